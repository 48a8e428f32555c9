package keeper

import (
	"context"
	"crypto/sha256"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// compilation is a schema compiled over a table of names, and that table with
// what the schema adds.
type compilation struct {
	schema   *schema.Schema
	warnings []schema.Warning
	names    *schema.Names
}

// compilations are the last ones, so that a schema is compiled once, where its
// writer waits for it, and neither while the head is held nor again when it is
// applied. Stores with the same schema share it.
var compilations = must(lru.New[[32]byte, compilation](8))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // only for a size below 1
	}
	return v
}

// compile compiles a schema over names, which it leaves as they are.
func compile(text string, names *schema.Names, opts schema.Options) (compilation, error) {
	key := compilationKey(text, names)
	if c, ok := compilations.Get(key); ok {
		return c, nil
	}
	c := compilation{names: names.Clone()}
	var err error
	if c.schema, c.warnings, err = schema.Compile(schema.Source{Name: "schema", Text: text}, c.names, opts); err != nil {
		return compilation{}, err
	}
	compilations.Add(key, c)
	if c.names.Len() > names.Len() {
		compilations.Add(compilationKey(text, c.names), c)
	}
	return c, nil
}

func compilationKey(text string, names *schema.Names) [32]byte {
	h := sha256.New()
	for _, name := range names.All() {
		h.Write([]byte(name))
		h.Write([]byte{0})
	}
	h.Write([]byte{0})
	h.Write([]byte(text))
	return [32]byte(h.Sum(nil))
}

// checkSchema compiles a schema that is about to be applied, before its request
// waits for its turn.
func (k *Keeper) checkSchema(ctx context.Context, id datastore.StoreID, u *datastore.SchemaUpdate) error {
	if limit := k.opts.MaxSchemaBytes; len(u.Text) > limit {
		return datastore.OverLimit("max-schema-bytes", limit, fmt.Sprintf("schema of %d bytes", len(u.Text)), "split it into stores, or raise the limit")
	}
	s, err := k.At(ctx, id, datastore.Consistency{})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err = compile(u.Text, s.Names(), schema.Options{MaxBytes: k.opts.MaxSchemaBytes, Context: ctx}); err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	return err
}
