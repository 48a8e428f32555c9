package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
)

// place is where the data lives, as --datastore and its companions name it.
type place struct {
	uri          string
	password     string
	passwordFile string
}

const placeForms = "memory:, file:PATH, postgres://USER@HOST:PORT/DATABASE or cockroachdb://USER@HOST:PORT/DATABASE"

func (p *place) add(f *pflag.FlagSet) {
	f.StringVar(&p.uri, "datastore", "memory:", "where the data lives: "+placeForms)
	withEnv(f, "datastore", "PEMBA_DATASTORE")
	f.StringVar(&p.passwordFile, "datastore-password-file", "", "a file with the database's password; PEMBA_DATASTORE_PASSWORD and the URI may give it too")
	withEnv(f, "datastore-password-file", "PEMBA_DATASTORE_PASSWORD_FILE")
}

// readPassword takes the password from its file or the environment.
func (p *place) readPassword(getenv func(string) string) error {
	p.password = getenv("PEMBA_DATASTORE_PASSWORD")
	if p.passwordFile == "" {
		return nil
	}
	b, err := os.ReadFile(p.passwordFile)
	if err != nil {
		return fileError("read", err)
	}
	if p.password = strings.TrimSpace(string(b)); p.password == "" {
		return fmt.Errorf("the file %s with the database's password is empty", p.passwordFile)
	}
	return nil
}

// String never shows a password.
func (p *place) String() string {
	scheme, rest, found := strings.Cut(p.uri, "://")
	if !found {
		return p.uri
	}
	if u, err := url.Parse(p.uri); err == nil {
		q := u.Query()
		for _, secret := range []string{"password", "sslpassword"} {
			if q.Has(secret) {
				q.Set(secret, "xxxxx")
				u.RawQuery = q.Encode()
			}
		}
		return u.Redacted()
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://" + rest
}

// dialect is that of a SQL database, or nil.
func (p *place) dialect() *sql.Dialect {
	scheme, _, found := strings.Cut(p.uri, "://")
	if !found {
		return nil
	}
	return map[string]*sql.Dialect{
		"postgres": postgres.Dialect, "postgresql": postgres.Dialect,
		"cockroachdb": cockroach.Dialect, "cockroach": cockroach.Dialect,
	}[scheme]
}

func (p *place) options() sql.Options { return sql.Options{Password: p.password} }

// embedded tells whether the data lives in this process, where there is nothing
// to migrate.
func (p *place) embedded() (bool, error) {
	scheme, path, _ := strings.Cut(p.uri, ":")
	switch {
	case p.dialect() != nil:
		return false, nil
	case scheme == "memory" && path == "", scheme == "file" && path != "":
		return true, nil
	case scheme == "file":
		return false, usagef("datastore %q names no file; write file:PATH, such as file:pemba.db", p.uri)
	}
	return false, usagef("datastore %q is unknown; use %s", p, placeForms)
}

// open opens what --datastore names; failed is told when it can no longer be
// served from.
func (p *place) open(ctx context.Context, failed func(error)) (datastore.Log, error) {
	embedded, err := p.embedded()
	switch _, path, _ := strings.Cut(p.uri, ":"); {
	case err != nil:
		return nil, err
	case !embedded:
		return sql.Open(ctx, p.dialect(), p.uri, p.options())
	case path == "":
		return memory.New(), nil
	default:
		return file.Open(path, file.Options{Failed: failed})
	}
}
