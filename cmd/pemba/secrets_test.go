package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// secretFlags are the flags whose value is a secret, or may hold one, and how it
// comes in without a command line that others on the machine can read.
var secretFlags = map[string]struct{ file, env string }{
	"token":     {"token-file", "PEMBA_TOKEN"},
	"datastore": {"datastore-password-file", "PEMBA_DATASTORE"},
}

// looksSecret finds flags that speak of secrets; those that name a file, or are
// about something else, are told by what they say.
var looksSecret = regexp.MustCompile(`(?i)token|secret|password|\bkey\b|credential|identity`)

// TestEverySecretHasAFileAndAVariable: none has to stand on a command line, none
// has a default, and what is new and looks like one is decided about here.
func TestEverySecretHasAFileAndAVariable(t *testing.T) {
	seen := map[string]bool{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		flags := func(visit func(*pflag.Flag)) {
			c.InheritedFlags().VisitAll(visit)
			c.LocalFlags().VisitAll(visit)
		}
		find := func(name string) (found *pflag.Flag) {
			flags(func(f *pflag.Flag) {
				if f.Name == name {
					found = f
				}
			})
			return found
		}
		flags(func(f *pflag.Flag) {
			at := c.CommandPath() + " --" + f.Name
			s, secret := secretFlags[f.Name]
			if secret && !strings.HasPrefix(f.Value.Type(), "string") {
				t.Errorf("%s is a %s", at, f.Value.Type())
			}
			if secret && f.Value.Type() == "string" {
				seen[f.Name] = true
				if f.DefValue != "" && f.DefValue != "memory:" {
					t.Errorf("%s has the default %q", at, f.DefValue)
				}
				// The datastore that a command works on without a server is named where it is
				// called; its password comes from elsewhere.
				direct := f.Name == "datastore" && find("addr") != nil && !strings.HasPrefix(c.CommandPath(), "pemba loadtest")
				if env := f.Annotations["env"]; !direct && !slices.Equal(env, []string{s.env}) {
					t.Errorf("%s comes from the environment as %v, not as %s", at, env, s.env)
				}
				if file := find(s.file); file == nil && c.CommandPath() != "pemba loadtest run" && c.CommandPath() != "pemba loadtest table" {
					t.Errorf("%s has no --%s", at, s.file)
				}
				return
			}
			about := strings.Contains(f.Usage, "file") || f.Value.Type() != "string" && f.Value.Type() != "stringSlice"
			if looksSecret.MatchString(f.Name) && !about {
				t.Errorf("%s looks like a secret, and is not in the table: %s", at, f.Usage)
			}
			if strings.HasSuffix(f.Name, "-file") && secretFlags[strings.TrimSuffix(f.Name, "-file")].env != "" && len(f.Annotations["env"]) == 0 {
				t.Errorf("%s does not come from the environment", at)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).rootCommand())
	for name := range secretFlags {
		if !seen[name] {
			t.Errorf("no command has --%s", name)
		}
	}
}

// TestSecretsAreNotTold: whatever goes wrong at the start, and what help and
// suggestions say, none of the secrets that were given in any way is in it.
func TestSecretsAreNotTold(t *testing.T) {
	const token, password = "token-9f3a1c", "password-7be2d0"
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tokenFile, passwordFile := file("token", token), file("password", password)
	addr := startServer(t, "memory:", "another")
	for _, c := range []struct {
		args string
		env  map[string]string
	}{
		{"serve --check-config --datastore postgres://pemba:" + password + "@127.0.0.1:1/pemba --token " + token, nil},
		{"serve --check-config --datastore cockroachdb://127.0.0.1:1/pemba?user=pemba&password=" + password, map[string]string{"PEMBA_TOKEN": token}},
		{"serve --check-config --datastore postgres://pemba@127.0.0.1:1/pemba --datastore-password-file " + passwordFile + " --token-file " + tokenFile, nil},
		{"serve --grpc-addr 127.0.0.1:0 --datastore postgres://pemba:" + password + "@127.0.0.1:1/pemba", map[string]string{"PEMBA_TOKEN_FILE": tokenFile}},
		{"serve --grpc-addr 127.0.0.1:0 --datastore postgres://pemba:" + password + "@[::1/pemba --token " + token, nil},
		{"serve --grpc-addr nonsense --token " + token, map[string]string{"PEMBA_DATASTORE": "postgres://pemba:" + password + "@127.0.0.1:1/pemba"}},
		{"serve --no-such-flag --token " + token, nil},
		{"migrate --datastore postgres://pemba:" + password + "@127.0.0.1:1/pemba", nil},
		{"migrate --datastore postgres://pemba@127.0.0.1:1/pemba", map[string]string{"PEMBA_DATASTORE_PASSWORD": password}},
		{"migrate --datastore postgres://pemba:" + password + "@host with blanks/pemba", nil},
		{"store list --addr " + addr + " --token " + token, nil},
		{"store list --addr " + addr + " --token-file " + tokenFile, nil},
		{"store list --addr " + addr, map[string]string{"PEMBA_TOKEN": token}},
		{"store list --addr 127.0.0.1:1 --timeout 1s", map[string]string{"PEMBA_TOKEN": token}},
		{"store create --addr " + addr + " --token " + token, nil},
		{"store --help --token " + token, map[string]string{"PEMBA_TOKEN": token, "PEMBA_DATASTORE": "postgres://pemba:" + password + "@127.0.0.1:1/pemba"}},
		{"serve --help", map[string]string{"PEMBA_TOKEN": token, "PEMBA_DATASTORE_PASSWORD": password, "PEMBA_DATASTORE": "postgres://pemba:" + password + "@127.0.0.1:1/pemba"}},
		{"loadtest run --addr 127.0.0.1:1 --floor=false --size 10 --duration 10ms --token " + token, nil},
	} {
		out, told, _ := pemba("", "", c.env, strings.Fields(c.args)...)
		for _, secret := range []string{token, password} {
			if strings.Contains(out+told, secret) {
				t.Errorf("`pemba %s` with %v tells\n%s%s", c.args, c.env, out, told)
			}
		}
	}
}
