package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// auditor is a server with a history, and a folder for what an auditor keeps.
type auditor struct {
	t    *testing.T
	addr string
	dir  string
}

func newAuditor(t *testing.T) *auditor {
	a := &auditor{t: t, addr: startServer(t, "memory:", ""), dir: t.TempDir()}
	a.run("schema", "apply", "testdata/documents.zed", "--reason", "the first schema")
	a.key("audit")
	return a
}

func (a *auditor) path(name string) string { return filepath.Join(a.dir, name) }

// key makes a pair of keys as openssl does: NAME.key and NAME.pub.
func (a *auditor) key(name string) {
	a.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	a.write(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open}))
}

func (a *auditor) write(name string, data []byte) string {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return a.path(name)
}

func (a *auditor) read(name string) []byte {
	a.t.Helper()
	data, err := os.ReadFile(a.path(name))
	if err != nil {
		a.t.Fatal(err)
	}
	return data
}

// run runs a command that must succeed.
func (a *auditor) run(args ...string) string {
	a.t.Helper()
	out, complaints, code := pemba(a.addr, "", nil, args...)
	if code != 0 {
		a.t.Fatalf("pemba %s: exit code %d, %s", strings.Join(args, " "), code, complaints)
	}
	return out
}

// fails runs a command that must fail with exit code 1 and say so.
func (a *auditor) fails(what string, want string, args ...string) {
	a.t.Helper()
	out, complaints, code := pemba(a.addr, "", nil, args...)
	if code != exitError || !strings.Contains(complaints, want) {
		a.t.Errorf("%s: exit code %d, %s%s; want %q", what, code, out, complaints, want)
	}
}

func (a *auditor) touch(i string) {
	a.run("relationship", "write", "document:"+i+"#viewer@user:ada", "--reason", "ticket "+i)
}

func TestACheckpointAgreesWithTheHistoryThatGoesOn(t *testing.T) {
	a := newAuditor(t)
	a.touch("1")
	a.run("history", "checkpoint", "--key", a.path("audit.key"), "--out", a.path("point"))
	if printed := a.run("history", "checkpoint", "--key", a.path("audit.key")); printed != string(a.read("point")) {
		t.Errorf("printed is %s, written %s", printed, a.read("point"))
	}
	a.touch("2")
	a.run("history", "export", a.path("history"))
	for _, args := range [][]string{{}, {"--file", a.path("history")}} {
		out := a.run(append(args, "history", "verify", "--checkpoint", a.path("point"), "--public-key", a.path("audit.pub"))...)
		if !strings.Contains(out, "revisions 1 to 3") || !strings.Contains(out, "agrees with the checkpoint of revision 2") {
			t.Errorf("verified %v: %s", args, out)
		}
	}
	a.run("history", "checkpoint", "--key", a.path("audit.key"), "--after", a.path("point"), "--out", a.path("next"))
	if printed := a.run("history", "checkpoint", "--key", a.path("audit.key"), "--after", a.path("next")); printed != string(a.read("next")) || printed == string(a.read("point")) {
		t.Errorf("the next one is %s, then %s", a.read("next"), printed)
	}
	if printed := a.run("history", "export"); printed != string(a.read("history")) {
		t.Error("an export differs from the one before")
	}
	a.run("history", "export", a.path("part"), "--from", "3")
	if out := a.run("history", "verify", "--file", a.path("part"), "--checkpoint", a.path("point"), "--public-key", a.path("audit.pub")); !strings.Contains(out, "revisions 3 to 3") {
		t.Errorf("the part behind the checkpoint: %s", out)
	}
	a.run("history", "export", a.path("nothing"), "--from", "4")
	if out := a.run("history", "verify", "--file", a.path("nothing"), "-o", "json"); !strings.Contains(out, `"oldest":4,"head":3`) {
		t.Errorf("the part behind the end: %s", out)
	}
}

func TestACheckpointFindsAnotherKeyStoreLineOrAnEndThatIsGone(t *testing.T) {
	a := newAuditor(t)
	a.touch("1")
	a.key("eve")
	verify := func(point, key string, more ...string) []string {
		return append([]string{"history", "verify", "--checkpoint", a.path(point), "--public-key", a.path(key)}, more...)
	}
	forge := func(name string, change func(*datastore.Checkpoint)) {
		c, err := datastore.ParseCheckpoint(a.read("point"))
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		key, err := readPrivateKey(a.path("audit.key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Sign(key)
		a.write(name, []byte(c.String()))
	}
	a.run("history", "checkpoint", "--key", a.path("audit.key"), "--out", a.path("point"))
	a.run("history", "export", a.path("history"))
	a.run("store", "create", "other")
	forge("later", func(c *datastore.Checkpoint) { c.Head.Revision++ })
	forge("rewritten", func(c *datastore.Checkpoint) { c.Head.Hash[3] ^= 1 })
	forge("anew", func(c *datastore.Checkpoint) { c.Head.Incarnation[3] ^= 1 })
	a.write("torn", a.read("point")[:100])
	a.fails("another key", "its signature is not of the key", verify("point", "eve.pub")...)
	a.fails("another store", "is not the one of the checkpoint", verify("point", "audit.pub", "--store", "other")...)
	for _, of := range [][]string{nil, {"--file", a.path("history")}} {
		a.fails("a history that ends before", "ends before its checkpoint: its last change is 2, and the checkpoint was made at 3", verify("later", "audit.pub", of...)...)
		a.fails("a rewritten history", "was rewritten", verify("rewritten", "audit.pub", of...)...)
		a.fails("another line", "restored, or made anew", verify("anew", "audit.pub", of...)...)
		a.fails("half a checkpoint", "not a valid checkpoint", verify("torn", "audit.pub", of...)...)
	}
	sign := func(after, want string) {
		a.fails("a checkpoint after "+after, want, "history", "checkpoint", "--key", a.path("audit.key"), "--after", a.path(after), "--out", a.path("none"))
		if _, err := os.Stat(a.path("none")); err == nil {
			t.Errorf("a checkpoint after %s was signed", after)
		}
	}
	sign("later", "ends before its checkpoint")
	sign("rewritten", "was rewritten")
	sign("anew", "restored, or made anew")
	a.fails("a private key for a public one", "holds no PUBLIC KEY", verify("point", "audit.key")...)
	a.fails("a public key for a private one", "holds no PRIVATE KEY", "history", "checkpoint", "--key", a.path("audit.pub"))
	a.fails("an empty store", "there is nothing to sign", "history", "checkpoint", "--key", a.path("audit.key"), "--store", "other")
	if _, complaints, code := pemba(a.addr, "", nil, "history", "verify", "--checkpoint", a.path("point")); code != exitUsage {
		t.Errorf("a checkpoint without a key: %d, %s", code, complaints)
	}
}

// Nothing of an export can be changed unseen: no byte of it, readable or not, no
// line.
func TestAnExportShowsEveryEdit(t *testing.T) {
	a := newAuditor(t)
	for _, i := range []string{"1", "2", "3"} {
		a.touch(i)
	}
	a.run("history", "export", a.path("history"))
	whole := a.read("history")
	verifies := func(data []byte) bool {
		_, _, code := pemba(a.addr, string(data), nil, "history", "verify", "--file", "-")
		return code == 0
	}
	if !verifies(whole) {
		t.Fatal("the export does not verify")
	}
	first := bytes.IndexByte(whole, '\n')
	for i := 0; i < len(whole); i += 7 {
		if i < first && bytes.Contains(whole[:i], []byte(`"store":`)) && i < bytes.Index(whole, []byte(`,"previous"`)) {
			continue // whose it is, only a checkpoint proves
		}
		changed := bytes.Clone(whole)
		if changed[i] ^= 1; verifies(changed) {
			t.Errorf("byte %d, %q, can be changed", i, whole[max(0, i-20):min(len(whole), i+20)])
		}
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1]
	for i := range lines {
		gone := append(append([][]byte(nil), lines[:i]...), lines[i+1:]...)
		if verifies(bytes.Join(gone, nil)) {
			t.Errorf("line %d can be removed", i+1)
		}
		if i+1 < len(lines) {
			swapped := append([][]byte(nil), lines...)
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			if verifies(bytes.Join(swapped, nil)) {
				t.Errorf("lines %d and %d can be swapped", i+1, i+2)
			}
		}
		if verifies(bytes.Join(append(append([][]byte(nil), lines...), lines[i]), nil)) {
			t.Errorf("line %d can be added", i+1)
		}
	}
}

var (
	guideFiles = regexp.MustCompile(`\b(audit\.(?:key|pub)|history\.jsonl|[0-9-]+\.checkpoint)`)
	guideTimes = regexp.MustCompile(`--at [0-9TZ:-]+`)
)

// TestTheGuideToTheAuditTrail runs every pemba command of docs/audit.md.
func TestTheGuideToTheAuditTrail(t *testing.T) {
	a := newAuditor(t)
	a.run("relationship", "write", "document:readme#viewer@user:ada")
	text, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	now, ran := time.Now().UTC().Format(time.RFC3339Nano), 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "pemba ") || strings.HasPrefix(line, "pemba checkpoint 1") {
			continue
		}
		ran++
		ours := guideTimes.ReplaceAllString(guideFiles.ReplaceAllString(line, a.path("$1")), "--at "+now)
		if out, complaints, code := pemba(a.addr, "", nil, split(ours)[1:]...); code != 0 {
			t.Errorf("%s: exit code %d, %s%s", line, code, out, complaints)
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands were found", ran)
	}
}

func TestQuestionsAboutThePastAndReports(t *testing.T) {
	a := newAuditor(t)
	a.touch("1")
	time.Sleep(2 * time.Millisecond)
	then := time.Now().UTC().Format(time.RFC3339Nano)
	time.Sleep(2 * time.Millisecond)
	a.run("relationship", "write", "--delete", "document:1#viewer@user:ada")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{0, "yes\n", []string{"check", "document:1", "view", "user:ada", "--at", then}},
		{exitNo, "no\n", []string{"check", "document:1", "view", "user:ada", "--consistency", "fully_consistent"}},
		{0, "document:1\n", []string{"lookup", "resources", "document", "view", "user:ada", "--at", then}},
		{0, "user:ada\n", []string{"lookup", "subjects", "document:1", "view", "user", "--at", then}},
		{0, "document:1", []string{"access-report", "--user", "user:ada", "--at", then}},
		{0, "complete: 0 permissions\n", []string{"access-report", "--user", "user:ada", "--consistency", "fully_consistent"}},
		{0, `{"resource":"document:1","permission":"view","subject":"user:ada","answer":"yes"}`, []string{"access-report", "--resource", "document:1", "--at", then, "-o", "json"}},
		{0, "- document:1#viewer@user:ada", []string{"history", "--since", then}},
		{0, "ticket 1", []string{"history", "--until", then, "--object", "document:1", "--subject", "user:ada", "--reason", "TICKET", "--actor", "anonymous"}},
		{exitUsage, "is no time", []string{"check", "document:1", "view", "user:ada", "--at", "yesterday"}},
		{exitUsage, "exclude each other; give one", []string{"check", "document:1", "view", "user:ada", "--at", then, "--consistency", "fully_consistent"}},
		{exitUsage, "user", []string{"access-report"}},
		{exitError, "lies in the future", []string{"check", "document:1", "view", "user:ada", "--at", "2999-01-01"}},
	} {
		out, complaints, code := pemba(a.addr, "", nil, c.args...)
		if code != c.code || !strings.Contains(out+complaints, c.want) {
			t.Errorf("pemba %s: exit code %d, %s%s; want %d, %q", strings.Join(c.args, " "), code, out, complaints, c.code, c.want)
		}
	}
}

// Whatever stands in a file, an auditor gets an answer: no file but one as an
// export writes it verifies.
func FuzzAnExport(f *testing.F) {
	e, err := datastore.Seal(datastore.Hash{}, datastore.Change{Revision: 1, Time: time.Unix(1, 0).UTC(), Actor: "ada", RequestID: "r",
		Operations: []datastore.Operation{{Kind: datastore.Erase, Erased: &tuple.Object{Type: "user", ID: "ada"}}}})
	if err != nil {
		f.Fatal(err)
	}
	c, err := datastore.Open(e)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	for _, line := range []any{exportStart{1, "default", 2, "0102030405060708", 0, strings.Repeat("0", 64)},
		exportChange{changeDocument(server.ChangeProto(&c, 2, datastore.Incarnation{1, 2, 3, 4, 5, 6, 7, 8})), e.Header, e.Payload},
		exportEnd{1, hex.EncodeToString(e.Hash[:])}} {
		if err := document(&b, line); err != nil {
			f.Fatal(err)
		}
	}
	whole := b.Bytes()
	verify := func(data []byte) (*exportVerifier, error) {
		v := &exportVerifier{in: bufio.NewReader(bytes.NewReader(data))}
		return v, v.run(nil)
	}
	if _, err := verify(whole); err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"pemba_history":1,"incarnation":"00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := verify(data)
		if err == nil && v.chain.At.Revision+1 < v.first {
			t.Errorf("%q verifies up to revision %d, from %d", data, v.chain.At.Revision, v.first)
		}
	})
}
