package datastoretest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// model is one store of a Log in the most naive form: every row there ever was,
// and every entry.
type model struct {
	head    datastore.Head
	anchor  datastore.Anchor
	entries []datastore.Entry // all of them, trimmed ones too
	rows    []row
	names   []string
	schemas map[datastore.Revision]*datastore.SchemaText
}

type row struct {
	datastore.Row
	deleted datastore.Revision // zero: lives
}

func newModel(incarnation datastore.Incarnation) *model {
	return &model{head: datastore.Head{Incarnation: incarnation}, schemas: map[datastore.Revision]*datastore.SchemaText{}}
}

// seal makes the entry that would follow with these operations.
func (m *model) seal(operations []datastore.Operation, id string) (datastore.Entry, error) {
	return datastore.Seal(m.head.Hash, datastore.Change{
		Revision: m.head.Revision + 1, Time: start.Add(time.Duration(m.head.Revision+1) * time.Second),
		Actor: "ada", Reason: "test", RequestID: id, Operations: operations,
	})
}

func (m *model) live(k tuple.Key) *row {
	for i := range m.rows {
		if m.rows[i].Key == k && m.rows[i].deleted == 0 {
			return &m.rows[i]
		}
	}
	return nil
}

func (m *model) append(e datastore.Entry) {
	for _, o := range e.Operations {
		if o.Kind == datastore.ApplySchema {
			m.names = append(m.names, o.Schema.Names...)
			m.schemas[e.Revision] = o.Schema
			continue
		}
		if o.Kind == datastore.PutIdentity || o.Kind == datastore.Erase {
			continue
		}
		if old := m.live(o.Relationship.Key); old != nil {
			old.deleted = e.Revision
		}
		if o.Kind == datastore.Create || o.Kind == datastore.Touch {
			m.rows = append(m.rows, row{Row: datastore.Row{Relationship: o.Relationship, Created: e.Revision}})
		}
	}
	m.head.Revision, m.head.Hash, m.head.Time = e.Revision, e.Hash, e.Time
	m.entries = append(m.entries, e)
}

// at gives the rows that q selects at a revision, in its order.
func (m *model) at(revision datastore.Revision, q datastore.RowQuery) []datastore.Row {
	var found []datastore.Row
	for _, r := range m.rows {
		if r.Created <= revision && (r.deleted == 0 || r.deleted > revision) && q.Filter.Matches(r.Relationship) &&
			(q.After == nil || q.Compare(r.Key, *q.After) > 0) {
			found = append(found, r.Row)
		}
	}
	slices.SortFunc(found, func(a, b datastore.Row) int { return q.Compare(a.Key, b.Key) })
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[:q.Limit]
	}
	return found
}

func (m *model) schemaAt(revision datastore.Revision) *datastore.SchemaText {
	for r := revision; r > 0; r-- {
		if s := m.schemas[r]; s != nil {
			return s
		}
	}
	return nil
}

// collectable counts the rows that were closed at or below the floor.
func (m *model) collectable() (n int) {
	for _, r := range m.rows {
		if r.deleted != 0 && r.deleted <= m.head.Floor {
			n++
		}
	}
	return n
}

// collect forgets rows that were closed at or below the floor.
func (m *model) collect() {
	m.rows = slices.DeleteFunc(m.rows, func(r row) bool { return r.deleted != 0 && r.deleted <= m.head.Floor })
}

func (m *model) trim(upTo datastore.Revision) {
	if upTo > m.anchor.Revision {
		m.anchor = datastore.Anchor{Revision: upTo, Hash: m.entries[upTo-1].Hash}
	}
}

// start is the time of revision 0 of every store in the suite.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Ids that are prefixes of one another, and of more than one byte a letter: the
// order of rows is that of their bytes.
var (
	ids       = []string{"a", "aa", "a!", "b", "~", "é", "日本", "/users/{id}"}
	types     = []string{"document", "doc", "document/part"}
	relations = []string{"viewer", "view", "viewer_2"}
)

var genRelationship = rapid.Custom(func(t *rapid.T) tuple.Relationship {
	r := tuple.Relationship{Key: tuple.Key{
		Object:   tuple.Object{Type: rapid.SampledFrom(types).Draw(t, "type"), ID: rapid.SampledFrom(ids).Draw(t, "id")},
		Relation: rapid.SampledFrom(relations).Draw(t, "relation"),
		Subject: tuple.Subject{
			Object:   tuple.Object{Type: rapid.SampledFrom([]string{"user", "users"}).Draw(t, "subject type"), ID: rapid.SampledFrom(append(ids, tuple.Wildcard)).Draw(t, "subject id")},
			Relation: rapid.SampledFrom([]string{"", "member"}).Draw(t, "subject relation"),
		},
	}}
	switch rapid.IntRange(0, 3).Draw(t, "traits") {
	case 0:
		r.Caveat = tuple.Caveat{Name: "on_day", Context: rapid.SampledFrom([]string{"", `{"day":"monday"}`}).Draw(t, "context")}
	case 1:
		r.Expiration = start.Add(time.Duration(rapid.Int64Range(-1e6, 1e6).Draw(t, "expiration")) * time.Microsecond)
	case 2:
		r.Caveat = tuple.Caveat{Name: "on/day"}
		r.Expiration = start
	}
	return r
})

// genOperations draws the operations of one change, as a judge would make them.
func (m *model) genOperations(t *rapid.T) []datastore.Operation {
	if rapid.IntRange(0, 9).Draw(t, "schema") == 0 {
		text := fmt.Sprintf("definition d%d {}", m.head.Revision)
		return []datastore.Operation{{Kind: datastore.ApplySchema, Schema: &datastore.SchemaText{
			Text: text, Hash: schemaHash(text), Names: []string{text, text + "é"}}}}
	}
	var operations []datastore.Operation
	for _, r := range rapid.SliceOfNDistinct(genRelationship, 0, 5, func(r tuple.Relationship) tuple.Key { return r.Key }).Draw(t, "relationships") {
		old := m.live(r.Key)
		o := datastore.Operation{Kind: datastore.Create, Relationship: r}
		if old != nil {
			previous := old.Relationship
			o.Kind = rapid.SampledFrom([]datastore.Kind{datastore.Touch, datastore.Delete, datastore.Expire}).Draw(t, "kind")
			if o.Kind == datastore.Touch {
				o.Previous = &previous
			} else {
				o.Relationship = previous
			}
		}
		operations = append(operations, o)
	}
	// One that lives is drawn rarely: close one on purpose.
	if len(m.rows) > 0 && rapid.Bool().Draw(t, "close one") {
		r := m.rows[rapid.IntRange(0, len(m.rows)-1).Draw(t, "which")]
		if r.deleted == 0 && !slices.ContainsFunc(operations, func(o datastore.Operation) bool { return o.Relationship.Key == r.Key }) {
			operations = append(operations, datastore.Operation{Kind: datastore.Delete, Relationship: r.Relationship})
		}
	}
	return operations
}

func schemaHash(text string) [32]byte {
	canonical, err := schema.Format(schema.Source{Name: "schema", Text: text})
	if err != nil {
		panic(err)
	}
	return sha256.Sum256([]byte(canonical))
}

// genQuery draws a query; half of the filters select something.
func (m *model) genQuery(t *rapid.T) datastore.RowQuery {
	maybe := func(values ...string) string {
		return rapid.SampledFrom(append(values, "", "")).Draw(t, "filter")
	}
	q := datastore.RowQuery{BySubject: rapid.Bool().Draw(t, "by subject"), Limit: rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "limit")}
	f := &q.Filter
	if f.ObjectType = maybe(types...); f.ObjectType != "" {
		if f.ObjectID = maybe(ids...); f.ObjectID == "" {
			f.ObjectIDPrefix = maybe("a", "日", "no")
		}
	}
	f.Relation = maybe(relations...)
	if f.Subject.Type = maybe("user", "users"); f.Subject.Type != "" {
		if f.Subject.ID = maybe(append(ids, tuple.Wildcard)...); f.Subject.ID == "" {
			f.Subject.IDPrefix = maybe("a", "日")
		}
	}
	f.Subject.Relation = maybe("member", tuple.Ellipsis)
	f.Caveat = maybe("on_day")
	if rapid.IntRange(0, 4).Draw(t, "expires") == 0 {
		yes := rapid.Bool().Draw(t, "which")
		f.Expires = &yes
	}
	if rapid.Bool().Draw(t, "after") {
		k := genRelationship.Draw(t, "after").Key
		q.After = &k
	}
	return q
}

// render makes rows comparable and readable.
func render(rows []datastore.Row) string {
	text := ""
	for _, r := range rows {
		text += fmt.Sprintf("%s since %d\n", r.Relationship, r.Created)
	}
	return text
}

// sameEntries tells how two lists of entries differ, or "".
func sameEntries(got, want []datastore.Entry) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		w := want[i]
		if cmp.Compare(e.Revision, w.Revision) != 0 || e.RequestID != w.RequestID || e.Hash != w.Hash ||
			string(e.Header) != string(w.Header) || string(e.Payload) != string(w.Payload) {
			return fmt.Sprintf("entry %d is %+v, want %+v", i, e, w)
		}
	}
	return ""
}
