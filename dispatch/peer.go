package dispatch

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"sync"

	"github.com/pembadb/pemba/datastore"
)

// Peers are the nodes of a cluster. Each query has one owner among them, which
// remembers it for all: their caches add up.
type Peers interface {
	// Owner returns the owner of what has a hash; nil if that is this node, or nobody
	// who can be reached.
	Owner(hash uint64) Peer
}

// Peer is another node.
type Peer interface {
	// Read asks queries, each with a limit, and returns their rows. Whatever its
	// error, the asker reads the database instead. It must end soon.
	Read(ctx context.Context, at PeerPosition, qs []datastore.RowQuery) ([][]datastore.Row, error)
}

// PeerPosition is what a peer is asked about: a revision of a line of a store.
type PeerPosition struct {
	Store       datastore.StoreID
	Incarnation datastore.Incarnation
	Revision    datastore.Revision
	Hash        datastore.Hash
}

// Join makes c a part of a cluster. It is called before c is used.
func (c *Cache) Join(p Peers) { c.peers = p }

// ErrUnknownPosition says that a node does not know the revision that a peer asks
// about: it has not seen it yet, or no longer remembers it.
var ErrUnknownPosition = errors.New("this node does not know that revision of the store")

// Serve answers a peer's queries from what is remembered, or from the database,
// and never from another peer. Each query has a limit. Its errors may wrap
// [ErrUnknownPosition] and [datastore.ErrOverloaded].
func (c *Cache) Serve(ctx context.Context, p PeerPosition, qs []datastore.RowQuery) ([][]datastore.Row, error) {
	l, ok := c.current.Get(lineKey{p.Store, p.Incarnation})
	if !ok {
		return nil, ErrUnknownPosition
	}
	at, ok := l.recent.position(p.Revision, p.Hash)
	if !ok {
		return nil, ErrUnknownPosition
	}
	limits, unlimited := make([]int, len(qs)), make([]datastore.RowQuery, len(qs))
	for i, q := range qs {
		limits[i], q.Limit = q.Limit, 0
		unlimited[i] = q
	}
	rows := make([][]datastore.Row, len(qs))
	err := l.read(ctx, &reading{line: l, at: at, alone: true, qs: unlimited, f: func(q int, r datastore.Row) bool {
		rows[q] = append(rows[q], r)
		return len(rows[q]) < limits[q]
	}})
	return rows, err
}

// ownerHash is by what the owner of a query is found: what is asked of one object,
// or of one subject, is asked of one node.
func (l *line) ownerHash(q *datastore.RowQuery) uint64 {
	h := fnv.New64a()
	text := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{separateText})
	}
	text(strconv.FormatUint(uint64(l.store), 10))
	if q.BySubject {
		text("subject")
		text(q.Filter.Subject.Type)
		text(q.Filter.Subject.ID)
	} else {
		text("object")
		text(q.Filter.ObjectType)
		text(q.Filter.ObjectID)
	}
	return h.Sum64()
}

// readWithPeers asks each query of its owner, and the database for those of this
// node and for those that a peer does not answer.
func (l *line) readWithPeers(ctx context.Context, at datastore.Position, qs []datastore.RowQuery) ([][]datastore.Row, error) {
	owned := map[Peer][]int{}
	for i := range qs {
		owner := l.cache.peers.Owner(l.ownerHash(&qs[i]))
		owned[owner] = append(owned[owner], i)
	}
	rows := make([][]datastore.Row, len(qs))
	pick := func(which []int) []datastore.RowQuery {
		some := make([]datastore.RowQuery, len(which))
		for j, i := range which {
			some[j] = qs[i]
		}
		return some
	}
	put := func(which []int, found [][]datastore.Row) {
		for j, i := range which {
			rows[i] = found[j]
		}
	}
	var mu sync.Mutex
	var left []int
	var work sync.WaitGroup
	for owner, which := range owned {
		if owner == nil {
			continue
		}
		work.Go(func() {
			found, err := owner.Read(ctx, PeerPosition{l.store, l.incarnation, at.Revision, at.Hash}, pick(which))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || len(found) != len(which) {
				l.cache.declined.Add(int64(len(which)))
				left = append(left, which...)
				return
			}
			l.cache.asked.Add(int64(len(which)))
			account := requestOf(ctx)
			account.peers.Add(int64(len(which)))
			for j, i := range which {
				account.note("peer", &qs[i], len(found[j]))
			}
			put(which, found)
		})
	}
	fromLog := func(which []int) error {
		if len(which) == 0 {
			return nil
		}
		found, err := l.readLog(ctx, at.Revision, pick(which))
		if err == nil {
			put(which, found)
		}
		return err
	}
	err := fromLog(owned[nil])
	work.Wait()
	if err == nil {
		err = fromLog(left)
	}
	return rows, err
}
