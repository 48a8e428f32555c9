package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// A store is backed up, plain and encrypted, and restored on a server of another
// datastore; the copy has the same history.
func TestAStoreIsBackedUpAndRestoredByCommands(t *testing.T) {
	from, to := startServer(t, "memory:", ""), startServer(t, "file:"+filepath.Join(t.TempDir(), "pemba.db"), "")
	run := func(addr string, code int, args ...string) string {
		t.Helper()
		out, complaints, got := pemba(addr, "", nil, args...)
		if got != code {
			t.Fatalf("pemba %s: exit code %d, %s%s", strings.Join(args, " "), got, out, complaints)
		}
		return out + complaints
	}
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"key.txt": identity.String(), "stranger.txt": stranger.String(),
		"recipients.txt": "# operators\n" + identity.Recipient().String() + "\n" + stranger.Recipient().String() + "\n", "hello.txt": "hello"} {
		if err := os.WriteFile(in(name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(from, 0, "schema", "apply", "testdata/documents.zed")
	run(from, 0, "relationship", "write", "document:1#viewer@user:ada", "document:2#viewer@user:grace")
	run(from, 0, "relationship", "delete", "document:2#viewer@user:grace")
	var whole backupJSON
	if err := json.Unmarshal([]byte(run(from, 0, "store", "backup", "--out", in("plain"), "-o", "json")), &whole); err != nil || whole.Head != 3 || whole.Oldest != 1 {
		t.Fatalf("backed up: %+v, %v", whole, err)
	}
	if info, err := os.Stat(in("plain")); err != nil || info.Size() != whole.Bytes || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	run(from, 0, "store", "backup", "--out", in("secret"), "--recipient", identity.Recipient().String())
	run(from, 0, "store", "backup", "--out", in("both"), "--recipient-file", in("recipients.txt"), "--revision", "2")
	secret, err := os.ReadFile(in("secret"))
	if err != nil || bytes.Contains(secret, []byte("ada")) {
		t.Errorf("an encrypted backup is readable (%v)", err)
	}
	for _, c := range []struct{ store, file, head, want string }{
		{"default", "plain", "", "revisions 1 to 3, hash " + whole.Hash},
		{"copy", "secret", "", "revisions 1 to 3, hash " + whole.Hash},
		{"earlier", "both", "", "revisions 1 to 2"},
		{"first", "secret", "1", "revisions 1 to 1"},
	} {
		args := []string{"store", "restore", in(c.file), "--store", c.store}
		if c.file != "plain" {
			args = append(args, "--identity", in("key.txt"))
		}
		if c.head != "" {
			args = append(args, "--revision", c.head)
		}
		if out := run(to, 0, args...); !strings.Contains(out, c.want) || !strings.Contains(out, "store "+c.store+" is restored") {
			t.Errorf("%s: %s", c.store, out)
		}
	}
	if out := run(to, 0, "store", "verify", "copy"); !strings.Contains(out, whole.Hash) {
		t.Errorf("verified: %s", out)
	}
	run(to, 0, "check", "document:1", "view", "user:ada", "--store", "copy")
	run(to, 3, "check", "document:2", "view", "user:grace", "--store", "copy")
	run(to, 0, "check", "document:2", "view", "user:grace", "--store", "earlier")

	damaged := func(name string, alter func([]byte) []byte) string {
		b, err := os.ReadFile(in(name))
		if err == nil {
			err = os.WriteFile(in("damaged"), alter(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return in("damaged")
	}
	flip := func(b []byte) []byte { b[len(b)-20] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-20] }
	for _, c := range []struct {
		want string
		args []string
	}{
		{"leave out --identity", []string{in("plain"), "--identity", in("key.txt")}},
		{"name the file of the age identity", []string{in("secret")}},
		{"is encrypted to others", []string{in("secret"), "--identity", in("stranger.txt")}},
		{"is no backup", []string{in("hello.txt")}},
		{"the age identities in", []string{in("secret"), "--identity", in("hello.txt")}},
		{"cannot read", []string{in("nothing")}},
		{"the backup cannot be used: at byte", []string{damaged("plain", flip)}},
	} {
		out, complaints, code := pemba(to, "", nil, append([]string{"store", "restore", "--store", "other"}, c.args...)...)
		if code == 0 || !strings.Contains(complaints, c.want) {
			t.Errorf("%v: exit code %d, %s%s", c.args, code, out, complaints)
		}
	}
	for name, alter := range map[string]func([]byte) []byte{"altered": flip, "cut": cut} {
		path := damaged("secret", alter)
		_, complaints, code := pemba(to, "", nil, "store", "restore", path, "--store", "other", "--identity", in("key.txt"))
		if code == 0 || !strings.Contains(complaints, "was cut off or altered before byte") {
			t.Errorf("%s: exit code %d, %s", name, code, complaints)
		}
	}
	damaged("plain", cut)
	if _, complaints, code := pemba(to, "", nil, "store", "restore", in("damaged"), "--store", "other"); code == 0 || !strings.Contains(complaints, "it was cut off here") {
		t.Errorf("cut: exit code %d, %s", code, complaints)
	}
	if out := run(to, 0, "store", "list", "other"); strings.Contains(out, "other") {
		t.Errorf("a damaged backup became a store: %s", out)
	}
	run(from, 2, "store", "backup", "--out", in("plain"))
	run(from, 2, "store", "backup", "--out", in("new"), "--recipient", "ada")
	run(from, 1, "store", "backup", "--out", in("new"), "--store", "nobody")
	run(from, 1, "store", "backup", "--out", in("new"), "--revision", "99")
	run(from, 1, "store", "backup", "--out", filepath.Join(folder, "no", "folder"))
	files, err := filepath.Glob(in("*"))
	hidden, err2 := filepath.Glob(in(".*"))
	if err != nil || err2 != nil || len(files) != 8 || len(hidden) > 0 {
		t.Errorf("the files are %v and %v (%v, %v)", files, hidden, err, err2)
	}
}

// A disk that is full leaves no file.
func TestABackupOnAFullDiskLeavesNothing(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here, which is as a full disk is")
	}
	defer full.Close()
	addr := startServer(t, "memory:", "")
	folder := t.TempDir()
	if _, complaints, code := pemba(addr, "", nil, "store", "backup", "--out", filepath.Join(folder, "image")); code != 0 {
		t.Fatal(complaints)
	}
	image, err := os.ReadFile(filepath.Join(folder, "image"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := newBackupFile(filepath.Join(folder, "second"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.buffer.Reset(full)
	_, err = f.Write(image)
	if err == nil {
		_, err = f.finish()
	}
	f.discard()
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("the error is %v", err)
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("the files are %v, %v", files, err)
	}
}
