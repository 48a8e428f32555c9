package provisioning

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

var errCrash = errors.New("the node crashed")

// crashing is a datastore whose node crashes in a write: before it is carried out,
// or after, so that nobody is told.
type crashing struct {
	datastore.Datastore
	in    int // how many writes from now
	after bool
}

func (c *crashing) Write(ctx context.Context, store datastore.StoreID, r datastore.Request) (datastore.Outcome, error) {
	if c.in--; c.in != 0 {
		return c.Datastore.Write(ctx, store, r)
	}
	if c.after {
		if _, err := c.Datastore.Write(ctx, store, r); err != nil {
			return datastore.Outcome{}, err
		}
	}
	return datastore.Outcome{}, errCrash
}

// TestAnOffboardingGoesOnAfterCrashes: wherever nodes crash, and whatever others
// write in between, who calls again with the same id ends without anything that
// names the user, and is told everything that went; from the first change on the
// user is denied everything.
func TestAnOffboardingGoesOnAfterCrashes(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		log := memory.New()
		k, err := keeper.Open(log, keeper.Options{MaxOperations: 1000})
		if err != nil {
			t.Fatal(err)
		}
		eve := tuple.Object{Type: "user", ID: "eve"}
		write := func(req datastore.Request) {
			t.Helper()
			if _, err := k.Write(t.Context(), datastore.Default, req); err != nil {
				t.Fatal(err)
			}
		}
		write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: `definition user { relation manager: user }
definition group { relation member: user | group#member }
definition document { relation viewer: user | user:* }`}})
		known := r.IntN(2) == 0
		if known {
			write(datastore.Request{Identities: []datastore.IdentityUpdate{{Object: eve, Kind: datastore.User, State: datastore.Active, Attributes: `{"userName":"eve"}`}}})
		}
		touch := func(texts ...string) {
			req := datastore.Request{}
			for _, text := range texts {
				rel, err := tuple.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				req.Updates = append(req.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
			}
			write(req)
		}
		var texts []string
		for i := range r.IntN(2500) {
			if texts = append(texts, fmt.Sprintf("document:d%d#viewer@user:eve", i)); len(texts) == 900 {
				touch(texts...)
				texts = nil
			}
		}
		touch(append(texts, "document:open#viewer@user:*", "group:g#member@user:eve", "user:eve#manager@user:ada", "user:ada#manager@user:eve", "document:d1#viewer@user:bob")...)
		denied := func() {
			t.Helper()
			s, err := k.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			q := graph.Question{Resource: tuple.Object{Type: "document", ID: "open"}, Permission: "viewer", Subject: tuple.Subject{Object: eve}}
			if a, err := graph.Check(t.Context(), s, q, time.Now(), graph.Limits{}); err != nil || a.Outcome != graph.No {
				t.Errorf("seed %d: she is not denied: %v, %v", seed, a, err)
			}
		}
		var told []string
		l := &Directory{Store: datastore.Default, Actor: "admin", Reason: "left"}
		crashes := 0
		for attempt := 1; ; attempt++ {
			told = nil
			l.Datastore = &crashing{Datastore: k, in: r.IntN(8), after: r.IntN(2) == 0}
			var end Offboarded
			err := l.Offboard(t.Context(), eve.ID, "op", func(part Offboarded) error {
				denied()
				for _, gone := range part.Removed {
					told = append(told, gone.String())
				}
				end = part
				return nil
			})
			if err == nil {
				want := datastore.Suspended
				if !known {
					want = datastore.Removed
				}
				if !end.Complete || end.State != want {
					t.Errorf("seed %d: the end is %+v", seed, end)
				}
				break
			}
			if !errors.Is(err, errCrash) || attempt > 200 {
				t.Fatalf("seed %d, attempt %d: %v", seed, attempt, err)
			}
			crashes++
		}
		left := 0
		s, err := k.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range naming(eve) {
			if err := s.Rows(t.Context(), datastore.QueryFor(f), time.Now(), func(datastore.Row) bool { left++; return true }); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		// What the history says went is what was told, each once.
		var went []string
		for c, err := range k.History(t.Context(), datastore.Default, 1) {
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range c.Operations {
				if op.Kind == datastore.Delete {
					went = append(went, op.Relationship.String())
				}
			}
		}
		slices.Sort(told)
		slices.Sort(went)
		if left > 0 || !slices.Equal(told, went) {
			t.Errorf("seed %d: after %d crashes %d relationships are left; %d were told of, %d went", seed, crashes, left, len(told), len(went))
		}
		denied()
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// An operation id stands for one user, one reason and one caller: with another
// nothing is changed at all, whatever the first came to. The same again, when
// nothing is left, writes nothing.
func TestAnOffboardingUnderAUsedIDChangesNothing(t *testing.T) {
	for what, prepare := range map[string]func(d *Directory) error{
		"an active user":  func(*Directory) error { return nil },
		"an unknown user": func(d *Directory) error { return nil },
		"a suspended user": func(d *Directory) error {
			_, err := d.Set(context.Background(), scim.User, "ada", datastore.Suspended, "")
			return err
		},
		"a removed user": func(d *Directory) error {
			_, err := d.Set(context.Background(), scim.User, "ada", datastore.Removed, "")
			return err
		},
	} {
		d, k := hired(t, unmarked)
		head := func() datastore.Revision {
			t.Helper()
			h, err := k.Head(t.Context(), datastore.Default)
			if err != nil {
				t.Fatal(err)
			}
			return h.Revision
		}
		for _, id := range []string{"ada", "bea"} {
			if what == "an unknown user" && id == "ada" {
				continue
			}
			if _, err := d.Create(t.Context(), scim.User, []Draft{{ID: id, Attributes: scim.Object{"userName": id}}}, ""); err != nil {
				t.Fatal(err)
			}
		}
		if err := prepare(d); err != nil {
			t.Fatal(err)
		}
		r, err := tuple.Parse("document:d#viewer@user:ada")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Write(t.Context(), datastore.Default, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}}); err != nil {
			t.Fatal(err)
		}
		run := func(who, reason, actor string) (removed int, unknown bool, err error) {
			other := *d
			other.Reason, other.Actor = reason, actor
			err = other.Offboard(t.Context(), who, "op", func(part Offboarded) error {
				removed, unknown = removed+len(part.Removed), part.Unknown
				return nil
			})
			return removed, unknown, err
		}
		removed, unknown, err := run("ada", "left", "admin")
		if err != nil || removed != 1 || unknown != (what == "an unknown user") {
			t.Fatalf("%s: %d removed, unknown %v, %v", what, removed, unknown, err)
		}
		before := head()
		if again, same, err := run("ada", "left", "admin"); err != nil || again != removed || same != unknown || head() != before {
			t.Errorf("%s: the same again tells of %d, unknown %v, and wrote %d changes; %v", what, again, same, head()-before, err)
		}
		for _, wrong := range []struct{ who, reason, actor, says string }{
			{"bea", "left", "admin", "use a new id to offboard user:bea"},
			{"nobody", "left", "admin", "use a new id to offboard user:nobody"},
			{"ada", "moved", "admin", `its reason was "left"`},
			{"ada", "left", "root", `"admin" began it`},
		} {
			_, _, err := run(wrong.who, wrong.reason, wrong.actor)
			if !errors.Is(err, datastore.ErrRequestReused) || !strings.Contains(err.Error(), wrong.says) || !strings.Contains(err.Error(), "a new id") {
				t.Errorf("%s, then %v: %v", what, wrong, err)
			}
		}
		if head() != before {
			t.Errorf("%s: what was refused wrote %d changes", what, head()-before)
		}
		// One who was reactivated is shut out again, and loses what came since.
		if what == "an active user" {
			if _, err := d.Set(t.Context(), scim.User, "ada", datastore.Active, ""); err != nil {
				t.Fatal(err)
			}
			if again, _, err := run("ada", "left", "admin"); err != nil || again != 1 {
				t.Errorf("after a reactivation: %d, %v", again, err)
			}
			if i, _, err := d.current(t.Context(), scim.User, "ada"); err != nil || i.State != datastore.Suspended {
				t.Errorf("after a reactivation she is %v, %v", i.State, err)
			}
		}
	}
}
