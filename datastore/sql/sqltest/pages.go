package sqltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

const pagesSchema = `use expiration
caveat at(hour int) { hour > 8 }
definition user {}
definition group { relation member: user | group#member }
definition folder {
	relation parent: folder
	relation viewer: user | group#member
	permission view = viewer + parent->view
}
definition document {
	relation parent: folder
	relation viewer: user | user:* | group#member | user with at | user with expiration
	relation banned: user | group#member
	permission view = viewer + parent->view - banned
}`

// Of each kind of object in the world of the pages; one more is never mentioned.
const (
	pageDocuments = 60
	pageUsers     = 40
	pageFolders   = 6
	pageGroups    = 5
)

// RunPages runs two nodes as processes. While clients write on both, others look
// resources and subjects up in pages of all sizes, each page on either node.
// Together the pages must be the unlimited list of the other node at that
// revision, in order, and what its checks say.
func (target Target) RunPages(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	rounds := 12
	if *Soak {
		rounds = 400
	}
	p := &pages{nodes: target.start(t, target.Empty(t), 2)}
	if _, err := pemba.NewSchemaServiceClient(p.nodes[0].conn).ApplySchema(bg, &pemba.ApplySchemaRequest{Text: pagesSchema}); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if err := p.write(20); err != nil {
			t.Fatal(err)
		}
	}
	var work, writers sync.WaitGroup
	var ended atomic.Bool
	for range 2 {
		writers.Go(func() {
			for !ended.Load() {
				if err := p.write(1 + rand.IntN(5)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 4 {
		work.Go(func() {
			for range rounds {
				if err := p.round(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	ended.Store(true)
	writers.Wait()
	t.Logf("%d lists in %d pages with %d results, during %d writes", p.lists.Load(), p.read.Load(), p.results.Load(), p.writes.Load())
	if p.read.Load() < 2*p.lists.Load() || p.results.Load() < p.lists.Load() || *Soak && p.conditional.Load()*p.everybody.Load() == 0 {
		t.Error("that shows too little")
	}
}

// pages is two nodes and what was seen of their pages.
type pages struct {
	nodes                                                       []*process
	lists, read, results, writes, conditional, everybody, turns atomic.Int64
}

func (p *pages) either() *grpc.ClientConn { return p.nodes[rand.IntN(len(p.nodes))].conn }

// write touches and deletes a few relationships at random.
func (p *pages) write(n int) error {
	r, seen := &pemba.WriteRelationshipsRequest{}, map[string]bool{}
	for range n {
		rel := pageRelationship()
		if seen[identity(rel)] {
			continue
		}
		seen[identity(rel)] = true
		op := &pemba.WriteOperation{Operation: &pemba.WriteOperation_Touch{Touch: rel}}
		if rand.IntN(3) == 0 {
			op = &pemba.WriteOperation{Operation: &pemba.WriteOperation_Delete{Delete: rel}}
		}
		r.Operations = append(r.Operations, op)
	}
	_, err := pemba.NewRelationshipServiceClient(p.either()).WriteRelationships(bg, r)
	p.writes.Add(1)
	return err
}

// identity is what makes two relationships one.
func identity(r *pemba.Relationship) string {
	return fmt.Sprint(r.Resource.Type, ":", r.Resource.Id, "#", r.Relation, "@", r.Subject.Type, ":", r.Subject.Id, "#", r.Subject.Relation)
}

func pageRelationship() *pemba.Relationship {
	object := func(typ string, n int) *pemba.Object {
		return &pemba.Object{Type: typ, Id: fmt.Sprintf("%s%02d", typ[:1], rand.IntN(n))}
	}
	user := func() *pemba.Subject { o := object("user", pageUsers); return &pemba.Subject{Type: o.Type, Id: o.Id} }
	members := func() *pemba.Subject {
		o := object("group", pageGroups)
		return &pemba.Subject{Type: o.Type, Id: o.Id, Relation: "member"}
	}
	folder := func() *pemba.Subject {
		o := object("folder", pageFolders)
		return &pemba.Subject{Type: o.Type, Id: o.Id}
	}
	document := object("document", pageDocuments)
	switch rand.IntN(14) {
	case 0:
		return &pemba.Relationship{Resource: document, Relation: "viewer", Subject: &pemba.Subject{Type: "user", Id: "*"}}
	case 1, 2:
		return &pemba.Relationship{Resource: document, Relation: "viewer", Subject: members()}
	case 3:
		c := &pemba.Caveat{Name: "at"}
		if rand.IntN(2) == 0 {
			c.Context = &structpb.Struct{Fields: map[string]*structpb.Value{"hour": structpb.NewNumberValue(float64(rand.IntN(16)))}}
		}
		return &pemba.Relationship{Resource: document, Relation: "viewer", Subject: user(), Caveat: c}
	case 4:
		at := time.Date(2000+100*rand.IntN(2), 1, 1, 0, 0, 0, 0, time.UTC) // long ago, or far away
		return &pemba.Relationship{Resource: document, Relation: "viewer", Subject: user(), Expiration: timestamppb.New(at)}
	case 5:
		return &pemba.Relationship{Resource: document, Relation: "banned", Subject: members()}
	case 6:
		return &pemba.Relationship{Resource: document, Relation: "banned", Subject: user()}
	case 7, 8:
		return &pemba.Relationship{Resource: document, Relation: "parent", Subject: folder()}
	case 9:
		return &pemba.Relationship{Resource: object("folder", pageFolders), Relation: "parent", Subject: folder()}
	case 10:
		return &pemba.Relationship{Resource: object("folder", pageFolders), Relation: "viewer", Subject: user()}
	case 11:
		return &pemba.Relationship{Resource: object("group", pageGroups), Relation: "member", Subject: members()}
	case 12:
		return &pemba.Relationship{Resource: object("group", pageGroups), Relation: "member", Subject: user()}
	}
	return &pemba.Relationship{Resource: document, Relation: "viewer", Subject: user()}
}

// list is one lookup, that can be asked for in pages.
type list interface {
	page(*grpc.ClientConn, *pemba.Consistency, uint32, string) (answered, error)
	// item is the check that says whether a candidate belongs to the list.
	item(candidate string) *pemba.BulkCheckItem
	candidates() []string
}

// answered is what came of a request: results as "id answer".
type answered struct {
	results []string
	zookie  string
	end     *pemba.LookupEnd
}

// lookupAnswer is what the messages of both lookups have in common.
type lookupAnswer interface {
	GetZookie() string
	GetResults() []*pemba.LookupResult
	GetEnd() *pemba.LookupEnd
}

func gather[T lookupAnswer](receive func() (T, error)) (a answered, err error) {
	for {
		m, err := receive()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		for _, r := range m.GetResults() {
			a.results = append(a.results, r.Id+" "+fmt.Sprint(r.Answer, r.MissingFields))
		}
		a.zookie, a.end = m.GetZookie(), m.GetEnd()
	}
}

// resourcesOf lists the documents that a user may view.
type resourcesOf string

func (user resourcesOf) page(c *grpc.ClientConn, at *pemba.Consistency, limit uint32, cursor string) (answered, error) {
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	s, err := pemba.NewPermissionServiceClient(c).LookupResources(ctx, &pemba.LookupResourcesRequest{Consistency: at,
		ResourceType: "document", Permission: "view", Subject: &pemba.Subject{Type: "user", Id: string(user)}, Limit: limit, Cursor: cursor})
	if err != nil {
		return answered{}, err
	}
	return gather(s.Recv)
}

func (user resourcesOf) item(document string) *pemba.BulkCheckItem {
	return &pemba.BulkCheckItem{Resource: &pemba.Object{Type: "document", Id: document}, Permission: "view", Subject: &pemba.Subject{Type: "user", Id: string(user)}}
}

func (user resourcesOf) candidates() []string { return numbered("d", pageDocuments+1) }

// subjectsOf lists the users who may view a document.
type subjectsOf string

func (document subjectsOf) page(c *grpc.ClientConn, at *pemba.Consistency, limit uint32, cursor string) (answered, error) {
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	s, err := pemba.NewPermissionServiceClient(c).LookupSubjects(ctx, &pemba.LookupSubjectsRequest{Consistency: at,
		Resource: &pemba.Object{Type: "document", Id: string(document)}, Permission: "view", SubjectType: "user", Limit: limit, Cursor: cursor})
	if err != nil {
		return answered{}, err
	}
	return gather(s.Recv)
}

func (document subjectsOf) item(user string) *pemba.BulkCheckItem {
	return resourcesOf(user).item(string(document))
}

func (document subjectsOf) candidates() []string { return numbered("u", pageUsers+1) }

func numbered(letter string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("%s%02d", letter, i))
	}
	return out
}

// round asks for one list in pages and proves it.
func (p *pages) round() error {
	var l list = resourcesOf(fmt.Sprintf("u%02d", rand.IntN(pageUsers+1)))
	if p.turns.Add(1)%2 == 0 {
		l = subjectsOf(fmt.Sprintf("d%02d", rand.IntN(pageDocuments+1)))
	}
	limit := uint32([]int{1, 2, 3, 7, 20, 100}[rand.IntN(6)])
	got, zookie, err := p.together(l, limit)
	if err != nil {
		return fmt.Errorf("%v in pages of %d: %w", l, limit, err)
	}
	at := &pemba.Consistency{Requirement: &pemba.Consistency_AtExactSnapshot{AtExactSnapshot: zookie}}
	whole, err := l.page(p.either(), at, 0, "")
	if err != nil {
		return fmt.Errorf("%v without a limit: %w", l, err)
	}
	slices.SortFunc(whole.results, func(a, b string) int { return cmp.Compare(id(a), id(b)) })
	if !slices.Equal(got, whole.results) || !whole.end.Complete {
		return fmt.Errorf("%v in pages of %d: %q; without a limit: %q", l, limit, got, whole.results)
	}
	p.lists.Add(1)
	p.results.Add(int64(len(got)))
	return p.checks(l, at, got)
}

func id(result string) string { id, _, _ := strings.Cut(result, " "); return id }

// together puts the pages of a list together.
func (p *pages) together(l list, limit uint32) (got []string, zookie string, err error) {
	at, cursor := &pemba.Consistency{Requirement: &pemba.Consistency_FullyConsistent{FullyConsistent: true}}, ""
	for {
		if len(got) > 2*len(l.candidates()) {
			return nil, "", fmt.Errorf("the pages do not end: %q", got)
		}
		a, err := l.page(p.either(), at, limit, cursor)
		if err != nil {
			return nil, "", err
		}
		p.read.Add(1)
		if zookie == "" {
			zookie = a.zookie
		}
		switch {
		case a.zookie != zookie:
			return nil, "", errors.New("a later page is of another revision")
		case len(a.results) > int(limit), !a.end.Complete && len(a.results) != int(limit):
			return nil, "", fmt.Errorf("a page has %d results, complete %t", len(a.results), a.end.Complete)
		}
		got = append(got, a.results...)
		if a.end.Complete {
			return got, zookie, nil
		}
		cursor = a.end.Cursor
	}
}

// checks compares a list with what checks say of every candidate.
func (p *pages) checks(l list, at *pemba.Consistency, got []string) error {
	listed := map[string]string{}
	for _, r := range got {
		name, answer, _ := strings.Cut(r, " ")
		listed[name] = answer
		if strings.Contains(answer, "hour") {
			p.conditional.Add(1)
		}
		if name == "*" {
			p.everybody.Add(1)
		}
	}
	r, names := &pemba.BulkCheckRequest{Consistency: at}, l.candidates()
	for _, name := range names {
		r.Items = append(r.Items, l.item(name))
	}
	out, err := pemba.NewPermissionServiceClient(p.either()).BulkCheck(bg, r)
	if err != nil {
		return err
	}
	no := fmt.Sprint(pemba.Answer_ANSWER_NO_PERMISSION, []string(nil))
	for i, result := range out.Results {
		want, found := listed[names[i]]
		if !found {
			if want, found = listed["*"]; !found {
				want = no
			}
		}
		if said := fmt.Sprint(result.Answer, result.MissingFields); said != want {
			return fmt.Errorf("%v lists %q as %s, a check says %s (%v)", l, names[i], want, said, result.Error)
		}
	}
	return nil
}
