package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// TestWhatIsPrintedSteersNoTerminal: what a store holds may come from anywhere, and
// older stores may hold anything.
func TestWhatIsPrintedSteersNoTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"Ada Lovelace": "Ada Lovelace", "Zoë 김": "Zoë 김", "": "",
		"a\nuser:root": `"a\nuser:root"`, "a\tb": `"a\tb"`, "\x1b[2J": `"\x1b[2J"`, "a\u009bb": `"a\u009bb"`, "a\u202eb": `"a\u202eb"`,
	} {
		if got := shown(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
		if got := tabbed("x", text, "y"); got != "x\t"+want+"\ty" {
			t.Errorf("%q is tabbed as %q", text, got)
		}
		var b bytes.Buffer
		if err := document(&b, map[string]string{"name": text}); err != nil {
			t.Fatal(err)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back["name"] != text {
			t.Errorf("%q comes back from %s as %q, %v", text, b.Bytes(), back["name"], err)
		}
		if line := bytes.TrimSuffix(b.Bytes(), []byte("\n")); bytes.ContainsFunc(line, unprintable) {
			t.Errorf("%q is written as %q", text, line)
		}
	}
	var b bytes.Buffer
	if err := document(&b, "\U000e0001<&>"); err != nil || b.String() != `"\udb40\udc01<&>"`+"\n" {
		t.Errorf("written as %s, %v", b.String(), err)
	}
}
