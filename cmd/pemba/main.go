// Command pemba is the whole of Pemba in one binary: the server (`pemba serve`) and its command line.
//
// Exit codes: 0 yes or ok, 1 error, 2 usage, 3 no permission, 4 conditional.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: the first one gives the handler back.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}))
}
