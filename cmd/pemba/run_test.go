package main

import (
	"bytes"
	"context"
	"strings"
)

// pemba runs one command line against a server and returns what it prints, and its exit code.
func pemba(addr, stdin string, env map[string]string, args ...string) (out, complaints string, code int) {
	var o, e bytes.Buffer
	code = run(context.Background(), args, streams{in: strings.NewReader(stdin), out: &o, err: &e, getenv: func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		if name == "PEMBA_ADDR" {
			return addr
		}
		return ""
	}})
	return o.String(), e.String(), code
}
