package sql

import "github.com/jackc/pgx/v5/pgxpool"

// Pool is what one of a log's pools of connections is like at a moment.
type Pool struct {
	Name              string // reads or writes
	InUse, Idle, Most int32
	// Waits counts since the log was opened who had to wait for a connection.
	Waits int64
}

// Pools returns what the log's pools are like.
func (l *Log) Pools() []Pool {
	tell := func(name string, p *pgxpool.Pool) Pool {
		s := p.Stat()
		return Pool{Name: name, InUse: s.AcquiredConns(), Idle: s.IdleConns(), Most: s.MaxConns(), Waits: s.EmptyAcquireCount()}
	}
	return []Pool{tell("reads", l.reads), tell("writes", l.writes)}
}
