package sql

import (
	"fmt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// Statement is a fixed statement with the index that it must take on
// pemba_relationship or pemba_change.
type Statement struct {
	Text       string
	Parameters int
	Index      string
	Sorts      bool // a few rows, by nature
	Args       []any
}

// Statements are those that must never read a whole table.
func Statements(d *Dialect) map[string]Statement {
	all := map[string]Statement{
		"head":     {selectHead, 1, "", false, []any{int64(1)}},
		"lock":     {lockHead, 1, "", false, []any{int64(1)}},
		"after":    {selectAfter, 3, "pemba_change_pkey", true, []any{int64(1), int64(1), 10}},
		"change":   {selectChange, 2, "pemba_change_pkey", false, []any{int64(1), int64(1)}},
		"request":  {selectRequest, 2, "pemba_change_request", false, []any{int64(1), []byte("r")}},
		"close":    {d.CloseRows, 8, "pemba_relationship_pkey", false, append(newKeys(1).args(1), []int64{1})},
		"collect":  {collectRows(d), 3, "pemba_relationship_deleted", false, []any{int64(1), int64(1), 10}},
		"new head": {updateHead, 4, "", false, []any{int64(1), int64(1), []byte{}, int64(1)}},
	}
	key := tuple.Key{Object: tuple.Object{Type: "t", ID: "i"}, Relation: "r", Subject: tuple.Subject{Object: tuple.Object{Type: "t", ID: "i"}, Relation: "r"}}
	filters := map[string]tuple.Filter{
		"all":              {},
		"type":             {ObjectType: "t"},
		"object":           {ObjectType: "t", ObjectID: "i"},
		"prefix":           {ObjectType: "t", ObjectIDPrefix: "p"},
		"relation":         {ObjectType: "t", ObjectID: "i", Relation: "r"},
		"membership":       {ObjectType: "t", ObjectID: "i", Relation: "r", Subject: tuple.SubjectFilter{Type: "t", ID: "i", Relation: tuple.Ellipsis}},
		"type's relation":  {ObjectType: "t", Relation: "r"},
		"object, subject":  {ObjectType: "t", ObjectID: "i", Subject: tuple.SubjectFilter{Type: "t", ID: "i"}},
		"subject":          {Subject: tuple.SubjectFilter{Type: "t", ID: "i"}},
		"userset":          {Subject: tuple.SubjectFilter{Type: "t", ID: "i", Relation: "r"}},
		"subject's prefix": {Subject: tuple.SubjectFilter{Type: "t", IDPrefix: "p"}},
		"subject, type":    {ObjectType: "t", Relation: "r", Subject: tuple.SubjectFilter{Type: "t", ID: "i"}},
		"caveat":           {Caveat: "c"},
	}
	for name, f := range filters {
		for _, bySubject := range []bool{false, true} {
			for _, after := range []*tuple.Key{nil, &key} {
				s, args, ok := shaped(1, 1, datastore.RowQuery{Filter: f, BySubject: bySubject}, after, 10)
				if !ok {
					continue
				}
				index := "pemba_relationship_pkey"
				if s.index == SubjectIndex {
					index = "pemba_relationship_subject"
				}
				sorts := bySubject != (s.index == SubjectIndex)
				if many := s.textOfMany(d); many != "" {
					all[fmt.Sprintf("many: %s, by subject %v, after %v", name, bySubject, after != nil)] = Statement{many, len(args), index, sorts, (&group{args: [][]any{args, args}}).arrays()}
				}
				all[fmt.Sprintf("rows: %s, by subject %v, after %v", name, bySubject, after != nil)] = Statement{s.text(d), len(args), index, sorts, args}
			}
		}
	}
	return all
}

// IdentityStatements are those about many users or groups, with what their plan
// must say, in dialects that look each up on its own.
func IdentityStatements() map[string]struct{ Text, Values, Cond string } {
	q := &datastore.IdentityQuery{Objects: []tuple.Object{{Type: "user", ID: "u1"}, {Type: "user", ID: "u2"}}}
	newest, _ := identityQuery(&Dialect{EachIdentity: true}, 1, 1, q, tuple.Object{})
	return map[string]struct{ Text, Values, Cond string }{
		"newest versions":  {newest, `1, '{user,user}', '{u1,u2}', 1, '', ''`, "(id = "},
		"who has keys":     {selectEachHolder, `1, 'user', '{userName,userName}', '{x1,x2}'`, "(value = "},
		"whom a key finds": {selectKeyed, `1, 'user', 'userName', 'x1', 10`, "(value = "},
		"keys of one":      {deleteIdentityKeysOf, `1, 'user', 'u1'`, "(id = "},
	}
}
