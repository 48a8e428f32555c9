package scim

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// bulkOperation is one operation of a bulk request (RFC 7644 §3.7).
type bulkOperation struct {
	method, id string // id is the bulkId
	version    condition
	t          *ResourceType
	target     string // the id of the resource; empty for a POST
	data       Object
	state      bulkState
	made       *Resource // of a POST that succeeded
	// owed are references that were left out of a POST since they go round in a
	// circle; they are added once everything is made.
	owed   bool
	result Object
}

type bulkState uint8

const (
	waiting bulkState = iota
	running
	finished
)

// bulkJob is a bulk request under way.
type bulkJob struct {
	*exchange
	ops          []*bulkOperation
	byID         map[string]*bulkOperation
	failOnErrors int // zero: never
	errors       int
}

// bulk answers a bulk request (RFC 7644 §3.7): the operations are carried out in
// their order, except that one that another refers to by its bulkId comes first.
func (x *exchange) bulk() error {
	raw, err := x.body()
	if err != nil {
		return err
	}
	if err := checkMessage(raw, bulkRequestMessage); err != nil {
		return err
	}
	j := &bulkJob{exchange: x, byID: map[string]*bulkOperation{}}
	if err := j.read(raw); err != nil {
		return err
	}
	for i := range j.ops {
		if j.stopped() {
			break
		}
		j.run(i)
	}
	j.settle()
	results := []any{}
	for _, op := range j.ops {
		if op.result != nil {
			results = append(results, op.result)
		}
	}
	x.answer(http.StatusOK, Object{"schemas": []any{bulkResponseMessage}, "Operations": results})
	return nil
}

func (j *bulkJob) read(raw Object) error {
	if v := field(raw, "failOnErrors"); v != nil {
		number, ok := v.(json.Number)
		n, err := strconv.Atoi(string(number))
		if !ok || err != nil || n < 0 {
			return bad(invalidSyntax, "failOnErrors must be a whole number")
		}
		j.failOnErrors = n
	}
	list, ok := field(raw, "Operations").([]any)
	if !ok {
		return bad(invalidSyntax, "a bulk request needs Operations: a list")
	}
	if n := j.config.MaxOperations; len(list) > n {
		return problem(http.StatusRequestEntityTooLarge, tooMany, "%d operations are more than %d; send several requests", len(list), n)
	}
	for i, e := range list {
		op, err := j.readOperation(e)
		if err != nil {
			err.Detail = "operation " + strconv.Itoa(i+1) + ": " + err.Detail
			return err
		}
		j.ops = append(j.ops, op)
		if op.id == "" {
			continue
		}
		if j.byID[op.id] != nil {
			return bad(invalidSyntax, "operation %d: the bulkId %q is that of another", i+1, shorten(op.id))
		}
		if op.method == http.MethodPost {
			j.byID[op.id] = op
		}
	}
	return nil
}

func (j *bulkJob) readOperation(v any) (*bulkOperation, *Error) {
	o, ok := v.(Object)
	if !ok {
		return nil, bad(invalidSyntax, "it must be a JSON object")
	}
	method, _ := field(o, "method").(string)
	path, _ := field(o, "path").(string)
	version, _ := field(o, "version").(string)
	op := &bulkOperation{method: strings.ToUpper(method), version: condition(version)}
	op.id, _ = field(o, "bulkId").(string)
	op.data, _ = field(o, "data").(Object)
	endpoint, target, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	for _, t := range types {
		if t.Endpoint[1:] == endpoint {
			op.t = t
		}
	}
	var err error
	if op.target, err = url.PathUnescape(target); err != nil || op.t == nil {
		return nil, bad(invalidPath, "%q is no path; write /Users, /Groups or one of these with an id", shorten(path))
	}
	switch op.method {
	case http.MethodPost:
		if op.target != "" {
			return nil, bad(invalidPath, "a POST is to %s", op.t.Endpoint)
		}
		if op.id == "" {
			return nil, bad(invalidSyntax, "a POST needs a bulkId (RFC 7644 §3.7)")
		}
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		if op.target == "" {
			return nil, bad(invalidPath, "a %s needs the id of a resource in its path", op.method)
		}
	default:
		return nil, bad(invalidSyntax, "%q is no method; write POST, PUT, PATCH or DELETE", shorten(method))
	}
	if op.data == nil && op.method != http.MethodDelete {
		return nil, bad(invalidSyntax, "a %s needs data", op.method)
	}
	return op, nil
}

func (j *bulkJob) stopped() bool { return j.failOnErrors > 0 && j.errors >= j.failOnErrors }

// run carries out the operation at an index, with as many creates after it of the
// same type as refer to nothing: these become one call of the directory.
func (j *bulkJob) run(i int) {
	op := j.ops[i]
	if op.state == finished {
		return
	}
	if !op.plain() {
		j.one(op)
		return
	}
	batch := []*bulkOperation{op}
	for _, next := range j.ops[i+1:] {
		if !next.plain() || next.t != op.t || next.state == finished || len(batch) == j.config.MaxBatch {
			break
		}
		batch = append(batch, next)
	}
	j.createAll(batch)
}

// plain reports whether an operation creates something and refers to nothing.
func (op *bulkOperation) plain() bool { return op.method == http.MethodPost && !refers(op.data) }

const bulkPrefix = "bulkId:"

// refers reports whether a value has a reference to a bulkId in it.
func refers(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.HasPrefix(v, bulkPrefix)
	case []any:
		for _, e := range v {
			if refers(e) {
				return true
			}
		}
	case Object:
		for _, e := range v {
			if refers(e) {
				return true
			}
		}
	}
	return false
}

// createAll creates resources of one type in one call. Where that is refused, each
// half is tried for itself, so that those which are to blame are found, in their
// order.
func (j *bulkJob) createAll(batch []*bulkOperation) {
	if j.stopped() {
		return
	}
	drafts := make([]Draft, 0, len(batch))
	var failed error
	for _, op := range batch {
		d, err := op.t.draft(op.data)
		if err != nil {
			failed = err
			break
		}
		drafts = append(drafts, d)
	}
	if failed == nil {
		var made []*Resource
		if made, failed = j.Directory.Create(j.ctx, batch[0].t.Kind, drafts); failed == nil {
			j.changed()
			for i, op := range batch {
				j.done(op, made[i], http.StatusCreated, nil)
			}
			return
		}
	}
	if e := (*Error)(nil); len(batch) == 1 || !errors.As(failed, &e) || e.Status >= 500 {
		for _, op := range batch { // more than one: the directory fails, whatever it is asked
			if !j.stopped() {
				j.done(op, nil, 0, failed)
			}
		}
		return
	}
	j.createAll(batch[:len(batch)/2])
	j.createAll(batch[len(batch)/2:])
}

// one carries out an operation on its own, after those that it refers to.
func (j *bulkJob) one(op *bulkOperation) {
	op.state = running
	data, err := j.resolve(op, op.data)
	if err == nil && strings.HasPrefix(op.target, bulkPrefix) {
		op.target, err = j.referred(op, op.target)
		if err == nil && op.target == "" {
			err = bad(invalidPath, "a path cannot refer to the operation that it belongs to")
		}
	}
	if j.stopped() {
		return
	}
	if err != nil {
		j.done(op, nil, 0, err)
		return
	}
	body, _ := data.(Object)
	status := http.StatusOK
	var r *Resource
	switch op.method {
	case http.MethodPost:
		op.state = waiting
		whole := op.data
		op.data = body
		j.createAll([]*bulkOperation{op})
		op.data = whole
		return
	case http.MethodPut:
		r, err = j.put(op.t, op.target, op.version, body)
	case http.MethodPatch:
		r, err = j.patch(op.t, op.target, op.version, body)
	case http.MethodDelete:
		status = http.StatusNoContent
		err = j.delete(op.t, op.target, op.version)
	}
	j.done(op, r, status, err)
}

// done notes what an operation came to.
func (j *bulkJob) done(op *bulkOperation, r *Resource, status int, err error) {
	op.state = finished
	op.result = Object{"method": op.method}
	set(op.result, "bulkId", op.id)
	if op.target != "" {
		op.result["location"] = location(j.Base, op.t.Kind, op.target)
	}
	if err != nil {
		e := j.asError(err)
		op.result["status"], op.result["response"] = strconv.Itoa(e.Status), e.message()
		j.errors++
		return
	}
	op.result["status"] = strconv.Itoa(status)
	if r != nil {
		op.result["location"], op.result["version"] = location(j.Base, op.t.Kind, r.ID), tag(r.Version)
		if op.method == http.MethodPost {
			op.made = r
		}
	}
}

// errCircle says that a reference goes round in a circle.
var errCircle = errors.New("a circle of references")

// resolve puts ids where a value refers to bulkIds (RFC 7644 §3.7.2). What refers
// in a circle is left out of a POST, and owed: an element of a list, or the
// attribute.
func (j *bulkJob) resolve(op *bulkOperation, v any) (any, error) {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, bulkPrefix) {
			id, err := j.referred(op, v)
			if err == nil && id == "" {
				err = errCircle
			}
			return id, err
		}
	case []any:
		list := make([]any, 0, len(v))
		for _, e := range v {
			e, err := j.resolve(op, e)
			switch {
			case err == errCircle:
				op.owed = true
			case err != nil:
				return nil, err
			default:
				list = append(list, e)
			}
		}
		return list, nil
	case Object:
		o := make(Object, len(v))
		for k, e := range v {
			e, err := j.resolve(op, e)
			switch {
			case err == errCircle && k == "value":
				return nil, err // the object is nothing without it
			case err == errCircle:
				op.owed = true
			case err != nil:
				return nil, err
			default:
				o[k] = e
			}
		}
		return o, nil
	}
	return v, nil
}

// referred is the id of what an operation refers to, which is made now if it is
// not yet; empty if that waits for the operation itself.
func (j *bulkJob) referred(op *bulkOperation, text string) (string, error) {
	name := strings.TrimPrefix(text, bulkPrefix)
	other := j.byID[name]
	if other == nil {
		return "", bad(invalidValue, "there is no POST with the bulkId %q", shorten(name))
	}
	if other.state == waiting && other != op {
		j.one(other)
	}
	switch {
	case other.made != nil:
		return other.made.ID, nil
	case other.state == running && op.method == http.MethodPost:
		return "", nil
	}
	return "", problem(http.StatusConflict, "", "the operation with the bulkId %q did not succeed", shorten(name))
}

// settle adds the references that go round in circles.
func (j *bulkJob) settle() {
	for _, op := range j.ops {
		if !op.owed || op.made == nil {
			continue
		}
		data, err := j.resolve(op, op.data)
		if err == nil {
			var d Draft
			if d, err = op.t.draft(data.(Object)); err == nil {
				change := Change{Attributes: d.Attributes}
				if len(d.Members) > 0 {
					change.Members = &MemberChange{Add: d.Members}
				}
				var r *Resource
				if r, err = j.Directory.Update(j.ctx, op.t.Kind, op.made.ID, change); err == nil {
					op.made = r
				}
				j.changed()
			}
		}
		made := op.made
		j.done(op, made, http.StatusCreated, err)
		if op.made = made; err != nil {
			op.result["location"] = location(j.Base, op.t.Kind, made.ID)
		}
	}
}
