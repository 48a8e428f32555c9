package server

import (
	"context"
	"crypto/rand"
	"log/slog"

	"google.golang.org/grpc/metadata"
)

// requestIDKey is the metadata, and the HTTP header, by which a caller names a
// call; what is logged about it carries the name. It has nothing to do with the
// request id of a write, which makes it harmless to repeat.
const requestIDKey = "x-request-id"

// maxCallName bounds such a name in bytes.
const maxCallName = 128

// callName is the name that a caller gave, if it is one, or a new one.
func callName(given string) string {
	if given == "" || len(given) > maxCallName {
		return rand.Text()
	}
	for i := range len(given) {
		if given[i] <= ' ' || given[i] >= 0x7f {
			return rand.Text()
		}
	}
	return given
}

// namingHandler adds the name of the call to what is logged about it.
type namingHandler struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h namingHandler) Handle(ctx context.Context, r slog.Record) error {
	if ctx != nil {
		if x := exchangeOf(ctx); x != nil {
			r.AddAttrs(slog.String("request", x.id))
		} else if given := metadata.ValueFromIncomingContext(ctx, requestIDKey); len(given) == 1 && callName(given[0]) == given[0] {
			r.AddAttrs(slog.String("request", given[0]))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h namingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return namingHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h namingHandler) WithGroup(name string) slog.Handler {
	return namingHandler{h.Handler.WithGroup(name)}
}
