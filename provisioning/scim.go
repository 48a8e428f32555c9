package provisioning

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// SCIM is a directory as clients of SCIM have it: it implements [scim.Directory].
type SCIM struct{ *Directory }

// told is an error as clients of SCIM are told it.
func told(err error) error {
	var mine *scim.Error
	var noun *tuple.Error
	is := func(kinds ...error) bool {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil || errors.As(err, &mine):
		return err
	case is(ErrNoMember):
		return scim.Invalid("%v", err)
	case is(datastore.ErrNoIdentity):
		return &scim.Error{Status: http.StatusNotFound, Detail: err.Error()}
	case is(datastore.ErrPrecondition):
		return scim.ErrVersion
	case is(datastore.ErrAlreadyExists):
		return scim.Duplicate("%v", err)
	case is(datastore.ErrTooLarge):
		return &scim.Error{Status: http.StatusRequestEntityTooLarge, Detail: err.Error()}
	case is(datastore.ErrUnavailable, datastore.ErrAmbiguous, datastore.ErrClosed, datastore.ErrOverloaded, datastore.ErrFull, datastore.ErrUnknownOperation):
		return &scim.Error{Status: http.StatusServiceUnavailable, Detail: err.Error()}
	case is(datastore.ErrInvalid, datastore.ErrNoSchema, datastore.ErrSchema, schema.ErrUnknownType, schema.ErrUnknownRelation, schema.ErrPermission, schema.ErrSubjectNotAllowed), errors.As(err, &noun):
		return scim.Invalid("%v", err)
	}
	return err
}

// View implements [scim.Directory].
func (d SCIM) View(ctx context.Context) (scim.View, error) {
	v, err := d.view(ctx)
	if err != nil {
		return nil, told(err)
	}
	return scimView{v}, nil
}

// Create implements [scim.Directory].
func (d SCIM) Create(ctx context.Context, k scim.Kind, drafts []scim.Draft) ([]*scim.Resource, error) {
	list := make([]Draft, len(drafts))
	for n, draft := range drafts {
		list[n] = Draft{Attributes: draft.Attributes, Members: draft.Members}
	}
	made, err := d.Directory.Create(ctx, k, list, "")
	if err != nil {
		return nil, told(err)
	}
	out := make([]*scim.Resource, len(made))
	for n, m := range made {
		out[n] = m.Resource
	}
	return out, nil
}

// version reads a version that a client means; zero is any.
func version(text string) (datastore.Revision, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, scim.ErrVersion
	}
	return datastore.Revision(n), nil
}

// Update implements [scim.Directory].
func (d SCIM) Update(ctx context.Context, k scim.Kind, id string, c scim.Change) (*scim.Resource, error) {
	meant, err := version(c.Version)
	if err != nil {
		return nil, err
	}
	change := Change{Revision: meant, Members: c.Members}
	if c.Attributes != nil {
		change.Attributes = func(scim.Object) (scim.Object, error) { return c.Attributes, nil }
	}
	w, err := d.Directory.Update(ctx, k, id, change)
	return w.Resource, told(err)
}

// Delete implements [scim.Directory].
func (d SCIM) Delete(ctx context.Context, k scim.Kind, id, text string) error {
	meant, err := version(text)
	if err != nil {
		return err
	}
	_, err = d.Directory.Delete(ctx, k, id, meant, "")
	return told(err)
}

// scimView is a view that tells errors as clients of SCIM are told them.
type scimView struct{ *view }

func (v scimView) Get(ctx context.Context, k scim.Kind, id string) (*scim.Resource, error) {
	r, err := v.view.Get(ctx, k, id)
	return r, told(err)
}

func (v scimView) List(ctx context.Context, q scim.Query) ([]*scim.Resource, error) {
	list, err := v.view.List(ctx, q)
	return list, told(err)
}

func (v scimView) Count(ctx context.Context, k scim.Kind) (int, error) {
	n, err := v.view.Count(ctx, k)
	return n, told(err)
}

func (v scimView) Members(ctx context.Context, group string, after *scim.Member, limit int) ([]scim.Member, error) {
	list, err := v.view.Members(ctx, group, after, limit)
	return list, told(err)
}

func (v scimView) HasMember(ctx context.Context, group, id string) (bool, error) {
	is, err := v.view.HasMember(ctx, group, id)
	return is, told(err)
}
