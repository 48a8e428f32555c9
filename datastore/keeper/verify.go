package keeper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// verifyTries bounds how often a verification begins anew because the history
// was trimmed, or the floor rose above its head, while it was under way.
const verifyTries = 4

// Verify implements [datastore.Datastore].
func (k *Keeper) Verify(ctx context.Context, id datastore.StoreID, report func(datastore.Verification) error) (datastore.Verification, error) {
	if report == nil {
		report = func(datastore.Verification) error { return nil }
	}
	for try := 1; ; try++ {
		v := &verifier{log: k.log, store: id, report: report, most: verifiedAtOnce}
		err := k.settled(ctx, id, func() error { return v.run(ctx) })
		if try == verifyTries || !errors.Is(err, datastore.ErrCompacted) {
			return v.Verification, err
		}
	}
}

// verifier verifies one store.
type verifier struct {
	datastore.Verification
	log    datastore.Log
	store  datastore.StoreID
	report func(datastore.Verification) error
	most   int // facts that a fold holds at once

	identities int                   // versions written since the anchor
	names      []string              // added since the anchor
	schema     *datastore.SchemaText // applied last since the anchor; nil: none

	table []string           // the names as they are kept
	until datastore.Revision // the head after table was read
}

func (v *verifier) run(ctx context.Context) (err error) {
	if v.Head, err = v.log.Head(ctx, v.store); err != nil {
		return err
	}
	if v.Anchor, err = v.log.Anchor(ctx, v.store); err != nil {
		return err
	}
	if v.table, err = v.log.Names(ctx, v.store); err != nil {
		return err
	}
	after, err := v.log.Head(ctx, v.store)
	if err != nil {
		return err
	}
	v.until = after.Revision
	v.Verified, v.Hash = v.Anchor.Revision, v.Anchor.Hash
	for from, first := uint64(0), true; ; first = false {
		f := newFold(from, v.Anchor.Revision, v.most)
		if err := v.walk(ctx, first, f); err != nil {
			return err
		}
		if first {
			if err := errors.Join(v.compareSchema(ctx), v.countIdentities(ctx)); err != nil {
				return err
			}
		}
		if err := v.compareRows(ctx, f); err != nil {
			return err
		}
		if f.last() {
			return nil
		}
		from = f.to + 1
	}
}

// history calls each for every change from the anchor to the head, after a
// check of its link, and once more between pages with how far it has come.
func (v *verifier) history(ctx context.Context, each func(datastore.Change) error, page func(at datastore.Revision, hash datastore.Hash) error) error {
	at, hash, size := v.Anchor.Revision, v.Anchor.Hash, firstPage
	for at < v.Head.Revision {
		head, entries, err := v.log.After(ctx, v.store, at, size)
		switch {
		case err != nil:
			return fmt.Errorf("read the history behind revision %d: %w", at, err)
		case head.Incarnation != v.Head.Incarnation:
			return fmt.Errorf("store %d was made anew meanwhile: %w", v.store, datastore.ErrForked)
		case len(entries) == 0:
			return datastore.MissingChange(v.store, at+1)
		}
		for _, e := range entries {
			if at == v.Head.Revision {
				break // made meanwhile
			}
			if e.Revision != at+1 {
				return datastore.MissingChange(v.store, at+1)
			}
			if err := datastore.VerifyLink(hash, e); err != nil {
				return datastore.BrokenAt(e.Revision, err)
			}
			c, err := datastore.Open(e)
			if err != nil {
				return datastore.BrokenAt(e.Revision, err)
			}
			if c.RequestID != e.RequestID {
				return datastore.BrokenAt(e.Revision, fmt.Errorf("%w: change %d is kept under the request id %q and says %q", datastore.ErrCorrupt, e.Revision, e.RequestID, c.RequestID))
			}
			if e.Revision == v.Head.Revision && !c.Time.Equal(v.Head.Time) {
				return datastore.BrokenAt(e.Revision, fmt.Errorf("%w: the head's time is %s, that of its change %s", datastore.ErrCorrupt, v.Head.Time, c.Time))
			}
			if err := each(c); err != nil {
				return err
			}
			at, hash = e.Revision, e.Hash
		}
		if err := page(at, hash); err != nil {
			return err
		}
		size = nextPage(size, entries)
	}
	if hash != v.Head.Hash {
		return datastore.BrokenAt(at, fmt.Errorf("%w: the head's hash is not that of change %d", datastore.ErrCorrupt, at))
	}
	return nil
}

// walk folds the history; the first walk also gathers names and schemas, and
// tells how far it has come.
func (v *verifier) walk(ctx context.Context, first bool, f *fold) error {
	var identities []identityAt
	return v.history(ctx, func(c datastore.Change) error {
		for _, o := range c.Operations {
			if o.Kind == datastore.ApplySchema && first {
				v.names, v.schema = append(v.names, o.Schema.Names...), o.Schema
			}
			if o.Kind == datastore.PutIdentity && first {
				identities = append(identities, identityAt{c.Revision, o.Identity})
			}
			f.apply(c.Revision, o)
		}
		return nil
	}, func(at datastore.Revision, hash datastore.Hash) error {
		if first {
			v.Verified, v.Hash = at, hash
			v.identities += len(identities)
			if err := v.compareIdentities(ctx, identities); err != nil {
				return err
			}
			identities = identities[:0]
		}
		return v.report(v.Verification)
	})
}

// compareSchema compares the schema in force and the table of names with the
// history.
func (v *verifier) compareSchema(ctx context.Context) error {
	text, err := v.log.Schema(ctx, v.store, v.Head.Revision)
	if err != nil {
		return err
	}
	differs := func(format string, args ...any) error {
		return datastore.BrokenAt(v.Head.Revision, fmt.Errorf("%w: "+format, append([]any{datastore.ErrCorrupt}, args...)...))
	}
	switch {
	case v.schema == nil && text == nil:
	case v.schema == nil && v.Anchor.Revision == 0:
		return differs("a schema is in force that no change applied")
	case v.schema == nil:
		v.OlderSchema = true
		if canonical, err := schema.Format(schema.Source{Name: "schema", Text: text.Text}); err != nil || sha256.Sum256([]byte(canonical)) != text.Hash {
			return differs("the schema in force is not the one whose hash is kept with it")
		}
	case text == nil:
		return differs("the schema that the history applied last is missing")
	case text.Text != v.schema.Text || text.Hash != v.schema.Hash || text.PreviousHash != v.schema.PreviousHash || !slices.Equal(text.Names, v.schema.Names):
		return differs("the schema in force is not the one that the history applied last")
	}
	return v.compareNames(ctx, differs)
}

// compareNames compares the table of names, which may hold some that were added
// between the head and v.until.
func (v *verifier) compareNames(ctx context.Context, differs func(string, ...any) error) error {
	late, err := v.lateNames(ctx)
	if err != nil {
		return err
	}
	want := append(slices.Clone(v.names), late...)
	for n := len(want); n >= len(v.names); n-- {
		older := len(v.table) - n
		if older == 0 || older > 0 && v.Anchor.Revision > 0 {
			if v.OlderNames = older; slices.Equal(v.table[older:], want[:n]) {
				return nil
			}
		}
	}
	older := len(v.table) - len(v.names)
	if older < 0 || v.Anchor.Revision == 0 && older > 0 {
		return differs("the table has %d names, and the history gives %d", len(v.table), len(v.names))
	}
	for i, name := range v.names {
		if v.table[older+i] != name {
			return differs("name %d is %q in the table, and %q in the history", older+i+1, v.table[older+i], name)
		}
	}
	return differs("the table of names has no end that the history gives")
}

// lateNames returns the names that were added behind the head up to v.until.
func (v *verifier) lateNames(ctx context.Context) (names []string, err error) {
	for at := v.Head.Revision; at < v.until; {
		_, entries, err := v.log.After(ctx, v.store, at, firstPage)
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, datastore.MissingChange(v.store, at+1)
		}
		for _, e := range entries {
			c, err := datastore.Open(e)
			if err != nil {
				return nil, datastore.BrokenAt(e.Revision, err)
			}
			for _, o := range c.Operations {
				if o.Kind == datastore.ApplySchema {
					names = append(names, o.Schema.Names...)
				}
			}
			at = e.Revision
		}
	}
	return names, nil
}

// The two orders in which a Log keeps its rows.
var rowOrders = [2]struct {
	bySubject bool
	name      string
}{{false, "in the order of objects"}, {true, "in the order of subjects"}}

// reportEvery is after how many rows a verification tells how far it has come.
const reportEvery = 4096

// compareRows compares the rows of both orders with what was folded.
func (v *verifier) compareRows(ctx context.Context, f *fold) error {
	read, progress := 0, v.Verification
	for i := range rowOrders {
		var failed error
		err := v.log.Rows(ctx, v.store, v.Head.Revision, datastore.RowQuery{BySubject: rowOrders[i].bySubject}, func(r datastore.Row) bool {
			f.row(i, r)
			if read++; read%reportEvery == 0 {
				progress.Rows = v.Rows + min(read/2, len(f.facts))
				failed = v.report(progress)
			}
			return failed == nil
		})
		if err = errors.Join(err, failed); err != nil {
			return fmt.Errorf("compare the rows %s at revision %d: %w", rowOrders[i].name, v.Head.Revision, err)
		}
	}
	if err := v.nameMissing(ctx, f); err != nil {
		return err
	}
	if d := f.found; d != nil {
		return datastore.BrokenAt(v.Head.Revision, datastore.With(fmt.Errorf("%w: relationship %s %s", datastore.ErrCorrupt, d.key, d.what), "relationship", d.key.String()))
	}
	rows, older := f.compared()
	v.Rows, v.Older = v.Rows+rows, v.Older+older
	return v.report(v.Verification)
}

// nameMissing finds the first of the relationships that one order lacks, or
// both: a fold knows only their hashes.
func (v *verifier) nameMissing(ctx context.Context, f *fold) error {
	written, older := f.missing()
	if written {
		if err := v.history(ctx, func(c datastore.Change) error {
			for _, o := range c.Operations {
				if o.Kind == datastore.Create || o.Kind == datastore.Touch {
					f.lacks(datastore.Row{Relationship: o.Relationship, Created: c.Revision})
				}
			}
			return nil
		}, func(datastore.Revision, datastore.Hash) error { return nil }); err != nil {
			return err
		}
	}
	if !older {
		return nil
	}
	return v.log.Rows(ctx, v.store, v.Head.Revision, datastore.RowQuery{}, func(r datastore.Row) bool {
		f.lacks(r)
		return true
	})
}
