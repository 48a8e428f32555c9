package sql

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore"
)

// copies tells that the new rows go by COPY, in the transaction of the rest.
func (w *writes) copies(d *Dialect) bool { return d.CopyRows > 0 && len(w.inserted) >= d.CopyRows }

var copyColumns = append(append([]string{"store"}, strings.Split(keyColumns, ", ")...), "created", "deleted", "caveat", "context", "expiration")

// copy writes the new rows.
func (w *writes) copy(ctx context.Context, c *pgx.Conn, store datastore.StoreID) error {
	_, err := c.CopyFrom(ctx, pgx.Identifier{"pemba_relationship"}, copyColumns, pgx.CopyFromSlice(len(w.inserted), func(i int) ([]any, error) {
		r := &w.inserted[i]
		var expiration any
		if !r.Expiration.IsZero() {
			expiration = r.Expiration.UnixMicro()
		}
		return []any{int64(store), r.Object.Type, r.Object.ID, r.Relation, r.Subject.Type, r.Subject.ID, r.Subject.Relation,
			int64(r.Created), r.deleted, r.Caveat.Name, r.Caveat.Context, expiration}, nil
	}))
	return err
}
