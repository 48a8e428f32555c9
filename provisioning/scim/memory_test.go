package scim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is the plainest Directory: maps under a lock, copied for every view.
type memory struct {
	mu       sync.Mutex
	made     int
	revision int
	kept     map[Kind]map[string]*Resource
	members  map[string]map[Member]bool
	creates  int           // calls of Create
	read     int           // members that views gave out
	meddle   func(*memory) // called, unlocked, before each change
	fail     error         // what Create returns, if set
}

func newMemory() *memory {
	return &memory{kept: map[Kind]map[string]*Resource{User: {}, Group: {}}, members: map[string]map[Member]bool{}}
}

type memoryView struct {
	*memory
	kept     map[Kind]map[string]*Resource
	members  map[string]map[Member]bool
	revision int
}

func (m *memory) View(context.Context) (View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := &memoryView{memory: m, kept: map[Kind]map[string]*Resource{}, members: map[string]map[Member]bool{}, revision: m.revision}
	for k, all := range m.kept {
		v.kept[k] = maps.Clone(all)
	}
	for g, all := range m.members {
		v.members[g] = maps.Clone(all)
	}
	return v, nil
}

func (v *memoryView) Version() string { return strconv.Itoa(v.revision) }
func (v *memoryView) Close()          {}

func (v *memoryView) Get(_ context.Context, k Kind, id string) (*Resource, error) {
	if r := v.kept[k][id]; r != nil {
		return r, nil
	}
	return nil, NotFound(k, id)
}

func (v *memoryView) Count(_ context.Context, k Kind) (int, error) { return len(v.kept[k]), nil }

func (v *memoryView) List(_ context.Context, q Query) ([]*Resource, error) {
	var list []*Resource
	for _, id := range slices.Sorted(maps.Keys(v.kept[q.Kind])) {
		r := v.kept[q.Kind][id]
		if id > q.After && len(list) < q.Limit && v.has(r, q.Key) {
			list = append(list, r)
		}
	}
	return list, nil
}

func (v *memoryView) has(r *Resource, k *Key) bool {
	if k == nil {
		return true
	}
	if k.Attribute == "members.value" {
		ok, _ := v.HasMember(context.Background(), r.ID, k.Value)
		return ok
	}
	s, _ := r.Attributes[k.Attribute].(string)
	if k.Attribute == "externalId" {
		return s == k.Value
	}
	return strings.EqualFold(s, k.Value)
}

func (v *memoryView) HasMember(_ context.Context, group, id string) (bool, error) {
	return v.members[group][Member{ID: id, Kind: User}] || v.members[group][Member{ID: id, Kind: Group}], nil
}

func (v *memoryView) Members(_ context.Context, group string, after *Member, limit int) ([]Member, error) {
	list := sorted(v.members[group])
	if after != nil {
		list = list[slices.IndexFunc(list, func(m Member) bool { return m.ID == after.ID && m.Kind == after.Kind })+1:]
	}
	list = slices.Clone(list[:min(limit, len(list))])
	for i, m := range list {
		list[i].Display, _ = v.kept[m.Kind][m.ID].Attributes["displayName"].(string)
	}
	v.memory.mu.Lock()
	v.memory.read += len(list)
	v.memory.mu.Unlock()
	return list, nil
}

func (m *memory) Create(_ context.Context, k Kind, drafts []Draft) ([]*Resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.creates++; m.fail != nil {
		return nil, m.fail
	}
	var list []*Resource
	undo := func(err error) ([]*Resource, error) {
		for _, r := range list {
			delete(m.kept[k], r.ID)
			delete(m.members, r.ID)
		}
		return nil, err
	}
	for _, d := range drafts {
		m.made++
		id := fmt.Sprintf("%s-%04d", strings.ToLower(string(k)), m.made)
		r := &Resource{Kind: k, ID: id, Created: epoch, Modified: epoch, Attributes: d.Attributes}
		if err := m.unique(r); err != nil {
			return undo(err)
		}
		if err := m.edit(id, &MemberChange{Add: d.Members}); err != nil {
			return undo(err)
		}
		m.put(r)
		list = append(list, r)
	}
	return list, nil
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (m *memory) put(r *Resource) {
	m.revision++
	r.Version = strconv.Itoa(m.revision)
	m.kept[r.Kind][r.ID] = r
}

func (m *memory) unique(r *Resource) error {
	for _, other := range m.kept[r.Kind] {
		for _, name := range []string{"userName", "externalId"} {
			a, _ := r.Attributes[name].(string)
			b, _ := other.Attributes[name].(string)
			if other.ID != r.ID && a != "" && (a == b || name == "userName" && strings.EqualFold(a, b)) {
				return Duplicate("%s %q is taken", name, a)
			}
		}
	}
	return nil
}

// edit changes members: all of them, or none.
func (m *memory) edit(group string, c *MemberChange) error {
	if c == nil {
		return nil
	}
	next := maps.Clone(m.members[group])
	if next == nil || c.Replace {
		next = map[Member]bool{}
	}
	for _, member := range c.Remove {
		for _, k := range []Kind{User, Group} {
			if member.Kind == "" || member.Kind == k {
				delete(next, Member{ID: member.ID, Kind: k})
			}
		}
	}
	for _, member := range c.Add {
		if member.Kind == "" {
			member.Kind = User
			if m.kept[User][member.ID] == nil {
				member.Kind = Group
			}
		}
		if m.kept[member.Kind][member.ID] == nil {
			return Invalid("there is no %s %q", member.Kind, member.ID)
		}
		next[Member{ID: member.ID, Kind: member.Kind}] = true
	}
	m.members[group] = next
	return nil
}

func (m *memory) Update(_ context.Context, k Kind, id string, c Change) (*Resource, error) {
	if m.meddle != nil {
		m.meddle(m)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.kept[k][id]
	switch {
	case old == nil:
		return nil, NotFound(k, id)
	case c.Version != "" && c.Version != old.Version:
		return nil, ErrVersion
	}
	r := *old
	r.Modified = epoch.Add(time.Hour)
	if c.Attributes != nil {
		r.Attributes = maps.Clone(c.Attributes)
		if _, given := r.Attributes["active"]; !given && old.Attributes["active"] != nil {
			r.Attributes["active"] = old.Attributes["active"]
		}
	}
	if err := m.unique(&r); err != nil {
		return nil, err
	}
	if err := m.edit(id, c.Members); err != nil {
		return nil, err
	}
	m.put(&r)
	return &r, nil
}

func (m *memory) Delete(_ context.Context, k Kind, id, version string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.kept[k][id]
	switch {
	case old == nil:
		return NotFound(k, id)
	case version != "" && version != old.Version:
		return ErrVersion
	}
	delete(m.kept[k], id)
	delete(m.members, id)
	for g := range m.members {
		m.members[g] = maps.Clone(m.members[g])
		delete(m.members[g], Member{ID: id, Kind: k})
	}
	m.revision++
	return nil
}
