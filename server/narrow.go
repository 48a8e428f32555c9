package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// about is what a request is about, as far as roles go: the store, where the message names
// one, and the types of the objects whose relationships or permissions it is about.
type about struct {
	store *string
	types []string
	// whole tells that it is about all types, or may show more than those.
	whole bool
	// none tells that it is about no store in particular.
	none bool
}

// typed adds the type of something that names one; without it the message is about
// all types, or is refused later for what it lacks.
func (a *about) typed(typ string) {
	a.types = append(a.types, typ)
	a.whole = a.whole || typ == ""
}

// aboutOf says what a message of a call is about. What it does not know is about
// the whole store: explanations and trees, for instance, show whatever leads to an
// answer.
func aboutOf(message any) about {
	switch r := message.(type) {
	case *pembav1.CheckRequest:
		return about{store: &r.Store, types: []string{r.GetResource().GetType()}}
	case *pembav1.BulkCheckRequest:
		a := about{store: &r.Store}
		for _, i := range r.Items {
			a.typed(i.GetResource().GetType())
		}
		return a
	case *pembav1.ListPermissionsRequest:
		return about{store: &r.Store, types: []string{r.GetResource().GetType()}}
	case *pembav1.LookupResourcesRequest:
		a := about{store: &r.Store}
		a.typed(r.ResourceType)
		if r.Under != nil {
			a.typed(r.Under.Type)
		}
		return a
	case *pembav1.LookupSubjectsRequest:
		return about{store: &r.Store, types: []string{r.GetResource().GetType()}}
	case *pembav1.ReadRelationshipsRequest:
		return aboutFilters(&r.Store, r.Filter)
	case *pembav1.ExportRelationshipsRequest:
		return aboutFilters(&r.Store, r.Filter)
	case *pembav1.DeleteRelationshipsRequest:
		return aboutFilters(&r.Store, append(conditions(r.Preconditions), r.Filter)...)
	case *pembav1.WriteRelationshipsRequest:
		a := aboutFilters(&r.Store, conditions(r.Preconditions)...)
		for _, o := range r.Operations {
			a.typed(written(o))
		}
		return a
	case *pembav1.ImportRelationshipsRequest:
		if start := r.GetStart(); start != nil {
			return about{store: &start.Store}
		}
		a := about{}
		for _, rel := range r.GetBatch().GetRelationships() {
			a.typed(rel.GetResource().GetType())
		}
		return a
	case *pembav1.ListStoresRequest:
		return about{none: true} // it lists those that the caller may do something in
	case *pembav1.WatchRequest:
		return about{store: &r.Store, types: r.GetFilter().GetResourceTypes(), whole: len(r.GetFilter().GetResourceTypes()) == 0}
	}
	return aboutAuthzed(message)
}

func aboutFilters(store *string, filters ...*pembav1.RelationshipFilter) about {
	a := about{store: store}
	for _, f := range filters {
		a.typed(f.GetResourceType())
	}
	return a
}

func conditions(list []*pembav1.Precondition) (out []*pembav1.RelationshipFilter) {
	for _, p := range list {
		if f := p.GetMustMatch(); f != nil {
			out = append(out, f)
		} else {
			out = append(out, p.GetMustNotMatch())
		}
	}
	return out
}

// written is the type of the object that an operation writes to.
func written(o *pembav1.WriteOperation) string {
	for _, r := range []*pembav1.Relationship{o.GetCreate(), o.GetTouch(), o.GetDelete()} {
		if r != nil {
			return r.GetResource().GetType()
		}
	}
	return o.GetSet().GetResource().GetType()
}

// aboutAuthzed is aboutOf for authzed.api.v1, whose calls name the store in their
// metadata.
func aboutAuthzed(message any) about {
	a := about{}
	switch r := message.(type) {
	case *authzedv1.CheckPermissionRequest:
		a.types, a.whole = []string{r.GetResource().GetObjectType()}, r.WithTracing
	case *authzedv1.CheckBulkPermissionsRequest:
		a.whole = r.WithTracing
		for _, i := range r.Items {
			a.typed(i.GetResource().GetObjectType())
		}
	case *authzedv1.BulkCheckPermissionRequest:
		//lint:ignore SA1019 clients still call it
		for _, i := range r.GetItems() {
			a.typed(i.GetResource().GetObjectType())
		}
	case *authzedv1.LookupResourcesRequest:
		a.typed(r.ResourceObjectType)
		a.whole = a.whole || r.WithDebug
	case *authzedv1.LookupSubjectsRequest:
		a.types = []string{r.GetResource().GetObjectType()}
	case *authzedv1.ReadRelationshipsRequest:
		a.typed(r.GetRelationshipFilter().GetResourceType())
	case *authzedv1.ExportBulkRelationshipsRequest:
		a.typed(r.GetOptionalRelationshipFilter().GetResourceType())
	case *authzedv1.BulkExportRelationshipsRequest:
		a.typed(r.GetOptionalRelationshipFilter().GetResourceType())
	case *authzedv1.WriteRelationshipsRequest:
		for _, u := range r.Updates {
			a.typed(u.GetRelationship().GetResource().GetObjectType())
		}
		a.conditions(r.OptionalPreconditions)
	case *authzedv1.DeleteRelationshipsRequest:
		a.typed(r.GetRelationshipFilter().GetResourceType())
		a.conditions(r.OptionalPreconditions)
	case *authzedv1.ImportBulkRelationshipsRequest:
		for _, rel := range r.Relationships {
			a.typed(rel.GetResource().GetObjectType())
		}
	case *authzedv1.BulkImportRelationshipsRequest:
		for _, rel := range r.Relationships {
			a.typed(rel.GetResource().GetObjectType())
		}
	case *authzedv1.WatchRequest:
		a.types = append(a.types, r.OptionalObjectTypes...)
		for _, f := range r.OptionalRelationshipFilters {
			a.typed(f.GetResourceType())
		}
		// Kinds of updates other than relationships are about the store.
		a.whole = a.whole || len(a.types) == 0 || slices.ContainsFunc(r.OptionalUpdateKinds, func(k authzedv1.WatchKind) bool {
			return k != authzedv1.WatchKind_WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES && k != authzedv1.WatchKind_WATCH_KIND_UNSPECIFIED
		})
	default: // only who may do something in the whole store may send it
		a.whole = true
		if named, ok := message.(interface{ GetStore() string }); ok {
			store := named.GetStore()
			a.store = &store
		}
	}
	return a
}

func (a *about) conditions(list []*authzedv1.Precondition) {
	for _, p := range list {
		a.typed(p.GetFilter().GetResourceType())
	}
}

// explains reports whether a check is to show what leads to its answer, which takes
// what [pembav1.PermissionServiceClient.Explain] takes.
func explains(message any) bool {
	switch r := message.(type) {
	case *authzedv1.CheckPermissionRequest:
		return r.WithTracing
	case *authzedv1.CheckBulkPermissionsRequest:
		return r.WithTracing
	}
	return false
}

// narrow refuses a message of a caller whose roles are narrowed to types, unless
// it is about those types alone; what it allows, it notes for store.
func (s *Server) narrow(ctx context.Context, method string, message any) error {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil || c.rights == nil || len(c.rights.types) == 0 || c.needs == known || c.rights.all&c.needs != 0 {
		return nil
	}
	a := aboutOf(message)
	if a.none {
		return nil
	}
	st, err := s.narrowedTo(ctx, c, a)
	if err != nil || st.ID == 0 || c.rights.on(st.ID)&c.needs != 0 {
		return err // or the call itself says what is wrong
	}
	types := c.rights.types[st.ID]
	if len(types) == 0 {
		return nil
	}
	if a.whole {
		return notOfType(c, st, method, "")
	}
	for _, t := range a.types {
		if types[t]&c.needs == 0 {
			return notOfType(c, st, method, t)
		}
	}
	c.cleared = st.ID
	c.used.add(a.types)
	return nil
}

// narrowedTo is the store that a message is about; none where there is no such.
func (s *Server) narrowedTo(ctx context.Context, c *caller, a about) (datastore.Store, error) {
	if a.store == nil && c.cleared != 0 { // a later message of a stream
		return datastore.Store{ID: c.cleared}, nil
	}
	name := "default"
	if a.store != nil && *a.store != "" {
		name = *a.store
	} else if a.store == nil {
		if given := storeKeys(ctx); len(given) == 1 {
			name = given[0]
		}
	}
	if datastore.CheckName("store", name) != nil {
		return datastore.Store{}, nil
	}
	st, err := s.ds.StoreByName(ctx, name)
	if isNoStore(err) {
		return st, nil
	}
	return st, err
}

func notOfType(c *caller, st datastore.Store, method, typ string) error {
	var have []string
	for t, p := range c.rights.types[st.ID] {
		if p&c.needs != 0 {
			have = append(have, t)
		}
	}
	slices.Sort(have)
	if len(have) > 10 {
		have = append(have[:10], "…")
	}
	on := "objects of type " + strings.Join(have, ", ")
	if len(have) == 0 {
		on = "objects of no type"
	}
	text := fmt.Sprintf("%s may call %s about %s only, and this is about type %q", c.what(), method, on, shortened(typ, 80))
	if typ == "" {
		text = fmt.Sprintf("%s has roles on %s only, and %s, asked like this, is about all types or shows more than these; name the type, if it can be named, or use a caller with a role on the whole store", c.what(), on, method)
	}
	return withReason(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_TYPE_NOT_GRANTED, text, "store", st.Name, "type", shortened(typ, 80))
}

// narrowStream judges each message that a stream brings.
type narrowStream struct {
	grpc.ServerStream
	server *Server
	ctx    context.Context
	method string
}

// RecvMsg receives the next message, unless the caller may not send it.
func (s narrowStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	return s.server.narrow(s.ctx, s.method, message)
}
