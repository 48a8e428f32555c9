package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
)

// mayAskPast refuses questions about the past to who may not audit.
func mayAskPast(ctx context.Context, store datastore.StoreID, what string) error {
	if c := callerOf(ctx); !c.may(store, mayAudit) {
		return tooWeak(&c, what, mayAudit)
	}
	return nil
}

// moment is a time of the past that a request names, in whole microseconds like
// the times of changes.
func moment(t *timestamppb.Timestamp, field string) (time.Time, error) {
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalidField(field, "%s: %v", field, err)
	}
	at := t.AsTime().Truncate(time.Microsecond)
	if now := time.Now(); at.After(now) {
		return time.Time{}, invalidField(field, "%s %s lies in the future: the server's clock says %s", field, at.Format(time.RFC3339Nano), now.UTC().Format(time.RFC3339Nano))
	}
	return at, nil
}

// past returns a snapshot of a store as it was at a time, and that time, which is
// when its questions are asked. A cursor, if there is one, names the revision:
// between two pages a change may come that is as old.
func (s *Server) past(ctx context.Context, store datastore.StoreID, t *timestamppb.Timestamp, c cursor) (datastore.Snapshot, time.Time, error) {
	if err := mayAskPast(ctx, store, "a question about the past (at_time)"); err != nil {
		return nil, time.Time{}, err
	}
	at, err := moment(t, "consistency.at_time")
	if err != nil {
		return nil, time.Time{}, err
	}
	var head datastore.Head
	if c.zookie != "" {
		at = c.time
		head.Revision, err = s.ds.Zookie(ctx, store, c.zookie)
	} else {
		head, err = s.ds.HeadBefore(ctx, store, at)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	snapshot, err := s.ds.AtRevision(ctx, store, head.Revision)
	if err == nil {
		s.metrics.read(datastore.AtExactSnapshot, snapshot)
	}
	return snapshot, at, err
}
