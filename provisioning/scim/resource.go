package scim

import (
	"errors"
	"net/http"
)

// projection is what the request's URL asks for.
func (x *exchange) projection(ts []*ResourceType) (*projection, error) {
	q := x.r.URL.Query()
	return project(ts, names(q, "attributes"), names(q, "excludedAttributes"))
}

// get answers with one resource (RFC 7644 §3.4.1), or says that the client has its
// version already.
func (x *exchange) get(t *ResourceType, id string) error {
	p, err := x.projection([]*ResourceType{t})
	if err != nil {
		return err
	}
	view, err := x.newest()
	if err != nil {
		return err
	}
	r, err := view.Get(x.ctx, t.Kind, id)
	if err != nil {
		return err
	}
	if c := condition(x.r.Header.Get("If-None-Match")); c != "" && c.met(r.Version) {
		x.w.Header().Set("ETag", tag(r.Version))
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return x.answerResource(http.StatusOK, r, p)
}

// create answers a POST (RFC 7644 §3.3).
func (x *exchange) create(t *ResourceType) error {
	p, err := x.projection([]*ResourceType{t})
	if err != nil {
		return err
	}
	raw, err := x.body()
	if err != nil {
		return err
	}
	draft, err := t.draft(raw)
	if err != nil {
		return err
	}
	made, err := x.Directory.Create(x.ctx, t.Kind, []Draft{draft})
	if err != nil {
		return err
	}
	return x.answerResource(http.StatusCreated, made[0], p)
}

func (t *ResourceType) draft(raw Object) (Draft, error) {
	b, err := t.read(raw)
	return Draft{b.attributes, b.members}, err
}

// replace answers a PUT (RFC 7644 §3.5.1).
func (x *exchange) replace(t *ResourceType, id string) error {
	p, err := x.projection([]*ResourceType{t})
	if err != nil {
		return err
	}
	raw, err := x.body()
	if err != nil {
		return err
	}
	r, err := x.put(t, id, condition(x.r.Header.Get("If-Match")), raw)
	if err != nil {
		return err
	}
	return x.answerResource(http.StatusOK, r, p)
}

// modify answers a PATCH (RFC 7644 §3.5.2). Of a group the answer is empty, unless
// the client asks for attributes: its members may be many.
func (x *exchange) modify(t *ResourceType, id string) error {
	p, err := x.projection([]*ResourceType{t})
	if err != nil {
		return err
	}
	raw, err := x.body()
	if err != nil {
		return err
	}
	r, err := x.patch(t, id, condition(x.r.Header.Get("If-Match")), raw)
	if err != nil {
		return err
	}
	if t.Kind == Group && !p.projected() {
		x.w.Header().Set("ETag", tag(r.Version))
		x.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return x.answerResource(http.StatusOK, r, p)
}

// remove answers a DELETE (RFC 7644 §3.6).
func (x *exchange) remove(t *ResourceType, id string) error {
	if err := x.delete(t, id, condition(x.r.Header.Get("If-Match"))); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (x *exchange) delete(t *ResourceType, id string, c condition) error {
	version := ""
	if c != "" {
		view, err := x.newest()
		if err != nil {
			return err
		}
		r, err := view.Get(x.ctx, t.Kind, id)
		if err != nil {
			return err
		}
		if version, err = c.check(r); err != nil {
			return err
		}
	}
	defer x.changed()
	return x.Directory.Delete(x.ctx, t.Kind, id, version)
}

// put makes a resource what a body says. Attributes that it leaves out are
// cleared, members too; "active" stays, so that nobody who was suspended comes
// back by being left out (RFC 7644 §3.5.1 lets the service choose a default).
func (x *exchange) put(t *ResourceType, id string, c condition, raw Object) (*Resource, error) {
	view, err := x.newest()
	if err != nil {
		return nil, err
	}
	r, err := view.Get(x.ctx, t.Kind, id)
	if err != nil {
		return nil, err
	}
	version, err := c.check(r)
	if err != nil {
		return nil, err
	}
	b, err := t.read(raw)
	if err != nil {
		return nil, err
	}
	change := Change{Version: version, Attributes: b.attributes}
	if t.Kind == Group {
		change.Members = &MemberChange{Replace: true, Add: b.members}
	}
	defer x.changed()
	return x.Directory.Update(x.ctx, t.Kind, id, change)
}

// patchTries bounds how often a PATCH is judged anew because others changed the
// resource meanwhile.
const patchTries = 8

// patch changes a resource by operations.
func (x *exchange) patch(t *ResourceType, id string, c condition, raw Object) (*Resource, error) {
	ops, err := readPatch(raw)
	if err != nil {
		return nil, err
	}
	for range patchTries {
		r, err := x.patchOnce(t, id, c, ops)
		x.changed()
		if !errors.Is(err, ErrVersion) || c != "" {
			return r, err
		}
	}
	return nil, problem(http.StatusConflict, "", "others are changing %s %q all the time; try again", t.Kind, shorten(id))
}

func (x *exchange) patchOnce(t *ResourceType, id string, c condition, ops []operation) (*Resource, error) {
	view, err := x.newest()
	if err != nil {
		return nil, err
	}
	r, err := view.Get(x.ctx, t.Kind, id)
	if err != nil {
		return nil, err
	}
	version, err := c.check(r)
	if err != nil {
		return nil, err
	}
	group := &groupNow{x: x, view: view, id: id}
	p, err := applyPatch(r, ops, group)
	if err != nil || !p.changed() {
		return r, err
	}
	change := Change{Version: version, Members: p.members.change()}
	if group.read {
		change.Version = r.Version // who goes was judged by what was read
	}
	if p.attributesChanged() {
		change.Version, change.Attributes = r.Version, p.attributes
	}
	return x.Directory.Update(x.ctx, t.Kind, id, change)
}

// groupNow is a group as a PATCH finds it.
type groupNow struct {
	x    *exchange
	view View
	id   string
	read bool
}

func (g *groupNow) each(f func(Member) bool) error {
	g.read = true
	return g.x.eachMember(g.id, f)
}

func (g *groupNow) kind(id string) (Kind, error) {
	_, err := g.view.Get(g.x.ctx, User, id)
	if e := (*Error)(nil); errors.As(err, &e) && e.Status == http.StatusNotFound {
		return Group, nil
	}
	return User, err
}

// resourceSource gives a filter the values of a resource. Members and groups are
// read only if it asks for them.
type resourceSource struct {
	x    *exchange
	view View
	r    *Resource
}

func (s resourceSource) each(r ref, f func(any) bool) error {
	o, err := s.holder(r)
	if err != nil {
		return err
	}
	if o != nil {
		eachOf(o, r, f)
		return nil
	}
	more := true
	return s.x.eachMember(s.r.ID, func(m Member) bool {
		eachOf(Object{"members": memberObject(m, s.x.Base)}, r, func(v any) bool {
			more = f(v)
			return more
		})
		return more
	})
}

func (s resourceSource) elements(r ref, f func(Object) bool) error {
	r.sub = nil
	o, err := s.holder(r)
	if err != nil {
		return err
	}
	if o != nil {
		return objectSource(o).elements(r, f)
	}
	return s.x.eachMember(s.r.ID, func(m Member) bool { return f(memberObject(m, s.x.Base)) })
}

// holder is the object that an attribute stands in; nil for members.
func (s resourceSource) holder(r ref) (Object, error) {
	switch r.attribute {
	case membersRef.attribute:
		return nil, nil
	case groupsRef.attribute:
		groups, err := s.x.groupsOf(s.r.ID)
		return Object{"groups": groups}, err
	case common[0], common[1], common[3]:
		return s.x.object(s.r), nil
	}
	if s.r.Attributes == nil {
		return Object{}, nil
	}
	return s.r.Attributes, nil
}

func (s resourceSource) member(id string) (is, known bool, err error) {
	if s.r.Kind != Group {
		return false, false, nil
	}
	is, err = s.view.HasMember(s.x.ctx, s.r.ID, id)
	return is, true, err
}
