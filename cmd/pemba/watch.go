package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// watcher follows a history over the life of several servers.
type watcher struct {
	app       *app
	c         *connection
	request   *pb.WatchRequest
	limit     uint64
	delivered uint64 // changes
	messages  uint64 // changes and signs of life
}

// errEnough ends a watch that has delivered what was asked for.
var errEnough = fmt.Errorf("enough changes")

func (a *app) watchCommand() *cobra.Command {
	var from uint64
	var after string
	var limit uint64
	var heartbeat time.Duration
	var filter changeFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the changes of a store as they happen",
		Long: `Follow the changes of a store, without a gap: from now on, from a revision, or
after a zookie. When the server restarts, it goes on where it was. Ctrl-C ends it.`,
		Example: `  pemba watch
  pemba watch --from 1 --type document --output json`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		f, err := filter.toWire()
		if err != nil {
			return err
		}
		if from > 0 && after != "" {
			return usagef("--from and --after exclude each other; give one")
		}
		w := &watcher{app: a, c: c, limit: limit, request: &pb.WatchRequest{Store: c.store, Filter: f}}
		if from > 0 {
			w.request.Start = &pb.WatchRequest_FromRevision{FromRevision: from}
		}
		if after != "" {
			w.request.Start = &pb.WatchRequest_AfterZookie{AfterZookie: after}
		}
		if heartbeat > 0 {
			w.request.Heartbeat = durationpb.New(heartbeat)
		}
		return w.run(ctx)
	})
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "the first revision; absent, what happens from now on")
	f.StringVar(&after, "after", "", "a zookie: what happened after it")
	f.Uint64Var(&limit, "limit", 0, "end after this many changes; 0 never ends")
	f.DurationVar(&heartbeat, "heartbeat", 0, "how often the server gives a sign of life; absent, it decides")
	filter.add(cmd)
	return a.remote(cmd, true, false)
}

// run watches, and again where a server goes away that was there before.
func (w *watcher) run(ctx context.Context) error {
	waiting := false
	for {
		before := w.messages
		err := w.once(ctx)
		switch {
		case err == errEnough || ctx.Err() != nil:
			return nil
		case err == nil:
			return fmt.Errorf("the server at %s ended the watch; go on with --after ZOOKIE, the zookie of the last change", w.c.addr)
		case !gone(err) || w.messages == 0:
			return err
		}
		if !waiting || w.messages > before {
			waiting = true
			fmt.Fprintf(w.app.err, "the server at %s went away; waiting for it\n", w.c.addr)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// once watches until the stream ends, and notes where to go on.
func (w *watcher) once(ctx context.Context) error {
	stream, err := w.c.watches.Watch(ctx, w.request)
	if err != nil {
		return err
	}
	return receive(stream, func(r *pb.WatchResponse) error {
		w.messages++
		if change := r.GetChange(); change != nil {
			if err := w.app.printChange(w.app.out, change); err != nil {
				return err
			}
			w.delivered++
		}
		w.request.Start = &pb.WatchRequest_AfterZookie{AfterZookie: r.Zookie}
		if w.limit > 0 && w.delivered >= w.limit {
			return errEnough
		}
		return nil
	})
}
