package memory

import (
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
)

// HandOf edits a Log behind its back.
func HandOf(l *Log) datastoretest.Hand {
	return datastoretest.Hand{
		Apart: true,
		Row: func(store datastore.StoreID, orders [2]bool, old, next *datastoretest.Stored) error {
			n := l.lines[store]
			for i, edited := range orders {
				if !edited {
					continue
				}
				if old != nil {
					n.rows(i == 1).Delete(&row{old.Row, old.Deleted})
				}
				if next != nil {
					n.rows(i == 1).Set(&row{next.Row, next.Deleted})
				}
			}
			return nil
		},
		Name: func(store datastore.StoreID, id int, name *string) error {
			n := l.lines[store]
			switch {
			case name == nil:
				n.names = slices.Delete(slices.Clone(n.names), id-1, id)
			case id > len(n.names):
				n.names = append(slices.Clone(n.names), *name)
			default:
				n.names = slices.Clone(n.names)
				n.names[id-1] = *name
			}
			return nil
		},
		Schema: func(store datastore.StoreID, at datastore.Revision, text *datastore.SchemaText) error {
			n := l.lines[store]
			n.schemas = slices.Clone(n.schemas)
			i := slices.IndexFunc(n.schemas, func(s schemaVersion) bool { return s.revision == at })
			if text == nil {
				n.schemas = slices.Delete(n.schemas, i, i+1)
			} else {
				n.schemas[i].text = text
			}
			return nil
		},
	}
}
