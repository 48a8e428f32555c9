package scim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fail answers with an error (RFC 7644 §3.12), or breaks off an answer that is
// being written, so that nobody takes it for whole.
func (x *exchange) fail(err error) {
	if x.began {
		x.log.Warn("SCIM answer broken off", "method", x.r.Method, "error", err)
		panic(http.ErrAbortHandler)
	}
	e := x.asError(err)
	if e.Status == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", `Bearer realm="scim"`)
	}
	if e.Status == http.StatusServiceUnavailable {
		x.w.Header().Set("Retry-After", "1")
	}
	x.answer(e.Status, e.message())
}

// asError is an error as clients are told it.
func (s *Server) asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrVersion):
		return problem(http.StatusPreconditionFailed, "", "the resource was changed meanwhile; read it again")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, "", "the request took too long; try again")
	}
	s.log.Error("SCIM request failed", "error", err)
	return problem(http.StatusInternalServerError, "", "the service failed; its log says why")
}

func (e *Error) message() Object {
	o := Object{"schemas": []any{errorMessage}, "status": strconv.Itoa(e.Status), "detail": e.Detail}
	if e.Type != "" {
		o["scimType"] = e.Type
	}
	return o
}

// begin sends the head of an answer. Who accepts application/json only gets that
// (RFC 7644 §3.1, §8.1).
func (x *exchange) begin(status int) {
	media := "application/scim+json"
	if a := strings.ToLower(x.r.Header.Get("Accept")); strings.Contains(a, "application/json") && !strings.Contains(a, media) {
		media = "application/json"
	}
	x.w.Header().Set("Content-Type", media+"; charset=utf-8")
	x.w.Header().Set("Cache-Control", "no-store")
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	x.began = true
	x.w.WriteHeader(status)
}

// answer sends a whole answer.
func (x *exchange) answer(status int, o Object) {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // of what was read from JSON, or is ours
	}
	x.begin(status)
	x.w.Write(data)
}

// answerResource sends a resource with its tag, as far as the request asks for it.
func (x *exchange) answerResource(status int, r *Resource, p *projection) error {
	x.w.Header().Set("ETag", tag(r.Version))
	if status == http.StatusCreated {
		x.w.Header().Set("Location", location(x.Base, r.Kind, r.ID))
	}
	if p.needsView(r.Kind) {
		if _, err := x.newest(); err != nil {
			return err
		}
	}
	x.begin(status)
	out := bufio.NewWriterSize(x.w, 16<<10)
	if err := x.write(out, r, p); err != nil {
		return err
	}
	return out.Flush()
}

// memberPage is how many members are read at once.
const memberPage = 1000

// write writes a resource. The members of a group are read in pages and written as
// they come.
func (x *exchange) write(out *bufio.Writer, r *Resource, p *projection) error {
	o := x.object(r)
	if r.Kind == User && p.wants(groupsRef) {
		groups, err := x.groupsOf(r.ID)
		if err != nil {
			return err
		}
		set(o, "groups", groups)
	}
	data, err := json.Marshal(p.of(TypeOf(r.Kind), o))
	if err != nil {
		return err
	}
	if r.Kind != Group || !p.wants(membersRef) {
		_, err = out.Write(data)
		return err
	}
	out.Write(data[:len(data)-1]) // an object that is not empty: it has its id
	if err := x.writeMembers(out, r.ID, p); err != nil {
		return err
	}
	return out.WriteByte('}')
}

func (x *exchange) writeMembers(out *bufio.Writer, group string, p *projection) error {
	first := true
	err := x.eachMember(group, func(m Member) bool {
		data, err := json.Marshal(p.member(memberObject(m, x.Base)))
		if first {
			out.WriteString(`,"members":[`)
		} else {
			out.WriteByte(',')
		}
		first = false
		if err == nil {
			_, err = out.Write(data)
		}
		return err == nil
	})
	if !first {
		out.WriteByte(']')
	}
	return err
}

// eachMember calls f for the direct members of a group until it returns false.
func (x *exchange) eachMember(group string, f func(Member) bool) error {
	view, err := x.newest()
	if err != nil {
		return err
	}
	var after *Member
	for {
		page, err := view.Members(x.ctx, group, after, memberPage)
		if err != nil {
			return err
		}
		for _, m := range page {
			if !f(m) {
				return nil
			}
		}
		if len(page) < memberPage {
			return nil
		}
		after = &page[len(page)-1]
	}
}

// groupsOf are the groups that a user is a direct member of, as clients see them.
func (x *exchange) groupsOf(user string) ([]any, error) {
	view, err := x.newest()
	if err != nil {
		return nil, err
	}
	var list []any
	q := Query{Kind: Group, Key: &Key{"members.value", user}, Limit: memberPage}
	for {
		page, err := view.List(x.ctx, q)
		if err != nil {
			return nil, err
		}
		for _, g := range page {
			o := Object{"value": g.ID, "$ref": location(x.Base, Group, g.ID), "type": "direct"}
			set(o, "display", g.Attributes["displayName"])
			list = append(list, o)
			q.After = g.ID
		}
		if len(page) < q.Limit {
			return list, nil
		}
	}
}

// object is a resource as clients see it, but for members and groups.
func (x *exchange) object(r *Resource) Object {
	o := make(Object, len(r.Attributes)+3)
	for k, v := range r.Attributes {
		o[k] = v
	}
	o["schemas"], o["id"], o["meta"] = schemasOf(r), r.ID, x.meta(r)
	return o
}

func schemasOf(r *Resource) []any {
	t := TypeOf(r.Kind)
	list := []any{t.Schema.ID}
	for _, e := range t.Extensions {
		if r.Attributes[e.ID] != nil {
			list = append(list, e.ID)
		}
	}
	return list
}

// meta is what the service knows of a resource (RFC 7643 §3.1).
func (x *exchange) meta(r *Resource) Object {
	o := Object{"resourceType": string(r.Kind), "location": location(x.Base, r.Kind, r.ID), "version": tag(r.Version)}
	if !r.Created.IsZero() {
		o["created"] = stamp(r.Created)
	}
	if !r.Modified.IsZero() {
		o["lastModified"] = stamp(r.Modified)
	}
	return o
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
