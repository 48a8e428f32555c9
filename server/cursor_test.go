package server

import (
	"encoding/base64"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

var (
	aFilter   = &pembav1.RelationshipFilter{ResourceType: "document", Relation: "viewer"}
	aQuestion = question("relationships", datastore.Default, aFilter)
)

func aCursor(position string) cursor {
	return cursor{
		zookie: datastore.Head{Revision: 7}.Zookie(datastore.Default).String(), time: time.UnixMicro(1_700_000_000_000_000).UTC(),
		position: position, question: aQuestion,
	}
}

func TestACursorIsGoodForItsQuestionOnly(t *testing.T) {
	c := aCursor("document:readme#viewer@group:staff#member")
	got, err := parseCursor(c.String(), aQuestion)
	if err != nil || got != c {
		t.Fatalf("read back: %+v, %v; want %+v", got, err, c)
	}
	if key, err := got.key(); err != nil || key.String() != c.position {
		t.Errorf("the key is %v, %v", key, err)
	}
	for name, q := range map[string][16]byte{
		"another store":  question("relationships", datastore.Default+1, aFilter),
		"another filter": question("relationships", datastore.Default, &pembav1.RelationshipFilter{ResourceType: "document"}),
		"another list":   question("stores", datastore.Default, aFilter),
	} {
		if _, err := parseCursor(c.String(), q); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzCursor: whatever a client sends as a cursor is refused as one, or is read
// as what its text, written again, says too.
func FuzzCursor(f *testing.F) {
	for _, position := range []string{"document:readme#viewer@user:ada", "document:1#viewer@user:*", "acme", ""} {
		text := aCursor(position).String()
		f.Add(text)
		f.Add(text[:len(text)/2])
		f.Add(text + "A")
		f.Add(text + "\n")
	}
	f.Add(base64.RawURLEncoding.EncodeToString([]byte{8, 1}))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text, aQuestion)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := parseCursor(c.String(), aQuestion)
		if err != nil || again != c {
			t.Fatalf("%q is %+v, and written again %+v, %v", text, c, again, err)
		}
		if key, err := c.key(); err == nil && key.String() != c.position {
			t.Fatalf("position %q is read as %s", c.position, key)
		}
	})
}

// FuzzNouns: whatever relationship a client sends is refused with an error that
// is the client's, or is one that the text form can hold.
func FuzzNouns(f *testing.F) {
	f.Add("document", "readme", "viewer", "user", "ada", "", "office", `{"hour":3}`, int64(0))
	f.Add("a/b", "é", "x", "group", "*", "...", "", ``, int64(1))
	s := &Server{limits: Limits{}.withDefaults()}
	f.Fuzz(func(t *testing.T, typ, id, relation, subjectType, subjectID, subjectRelation, caveat, given string, seconds int64) {
		r := &pembav1.Relationship{
			Resource: &pembav1.Object{Type: typ, Id: id}, Relation: relation,
			Subject: &pembav1.Subject{Type: subjectType, Id: subjectID, Relation: subjectRelation},
		}
		if caveat != "" || given != "" {
			r.Caveat = &pembav1.Caveat{Name: caveat, Context: contextOf(given)}
		}
		if seconds != 0 {
			r.Expiration = &timestamppb.Timestamp{Seconds: seconds}
		}
		rel, err := s.relationship(r, "relationship")
		if err != nil {
			if c := status.Code(s.status(t.Context(), "fuzz", err)); c != codes.InvalidArgument {
				t.Fatalf("%v: code %v: %v", r, c, err)
			}
			return
		}
		back, err := tuple.Parse(rel.String())
		if err != nil || !back.Equal(rel) {
			t.Fatalf("%s is read back as %s, %v", rel, back, err)
		}
		if again, err := s.relationship(relationshipProto(&rel), "relationship"); err != nil || !again.Equal(rel) {
			t.Fatalf("%s comes back as %s, %v", rel, again, err)
		}
	})
}

// FuzzFilter: a filter that is taken matches what it was made of.
func FuzzFilter(f *testing.F) {
	f.Add("document", "readme", "", "viewer", "user", "ada", "", "...", true)
	f.Add("document", "", "re", "", "", "", "", "member", false)
	f.Fuzz(func(t *testing.T, typ, id, prefix, relation, subjectType, subjectID, subjectPrefix, subjectRelation string, expires bool) {
		p := &pembav1.RelationshipFilter{
			ResourceType: typ, ResourceId: id, ResourceIdPrefix: prefix, Relation: relation, Expires: &expires,
			Subject: &pembav1.SubjectFilter{Type: subjectType, Id: subjectID, IdPrefix: subjectPrefix, Relation: &subjectRelation},
		}
		got, err := filter(p)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Fatalf("%v: %v", p, err)
			}
			return
		}
		start, _ := datastore.QueryFor(got).Bounds()
		if start.Object.Type != "" && start.Object.Type != typ {
			t.Fatalf("%v begins at %v", p, start)
		}
	})
}

// contextOf is a context of a JSON text; nil if it is none.
func contextOf(text string) *structpb.Struct {
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		return nil
	}
	return s
}
