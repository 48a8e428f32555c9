package scim

import "context"

// Find calls f for the resources of a kind that a filter matches (nil: all), in the
// order of their ids' bytes, those after an id, until f returns false.
func Find(ctx context.Context, v View, k Kind, filter *Filter, after string, f func(*Resource) bool) error {
	l := &listing{
		exchange: &exchange{Server: finder, Session: &Session{}, ctx: ctx, view: v},
		view:     v, types: []*ResourceType{TypeOf(k)}, filters: []*Filter{filter},
	}
	err := l.scan(0, after, func(r *Resource) error {
		if !f(r) {
			return errEnough
		}
		return ctx.Err()
	})
	if err == errEnough {
		return nil
	}
	return err
}

// finder has the limits of Find.
var finder = New(Config{})
