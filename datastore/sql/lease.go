package sql

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// takeLease gives a lease to $2 if it has it already, nobody has it, or its time
// is over by the database's clock.
const takeLease = `INSERT INTO pemba_lease AS l (name, holder, until) VALUES ($1, $2, now() + $3::bigint * interval '1 millisecond')
	ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE l.holder = excluded.holder OR l.until < now()
	RETURNING holder`

// Lease implements [datastore.Leaser].
func (l *Log) Lease(ctx context.Context, name, holder string, ttl time.Duration) (held bool, err error) {
	err = l.on(ctx, l.writes, func(c *pgxpool.Conn) error {
		var by string
		err := c.QueryRow(ctx, takeLease, name, holder, ttl.Milliseconds()).Scan(&by)
		if held = err == nil; errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return held, err
}
