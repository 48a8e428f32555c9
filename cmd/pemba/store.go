package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

func (a *app) storeCommand() *cobra.Command {
	return group("store", "Make, list, delete, verify, back up and restore stores",
		a.storeCreateCommand(), a.storeListCommand(), a.storeDeleteCommand(), a.storeVerifyCommand(), a.storeBackupCommand(), a.storeRestoreCommand())
}

// storeJSON is a store as JSON.
type storeJSON struct {
	Store   string `json:"store"`
	ID      uint64 `json:"id"`
	Created string `json:"created,omitempty"`
	Head    uint64 `json:"head"`
}

func storeDocument(s *pb.Store) storeJSON {
	j := storeJSON{Store: s.GetName(), ID: s.GetId(), Head: s.GetHead()}
	if s.GetCreated() != nil {
		j.Created = clock(s.GetCreated().AsTime())
	}
	return j
}

func (a *app) storeCreateCommand() *cobra.Command {
	var id, reason string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make an empty store",
		Example: `  pemba store create staging`,
		Args:    takes("NAME"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		r, err := c.stores.CreateStore(ctx, &pb.CreateStoreRequest{Store: args[0], RequestId: id, Reason: reason})
		if err != nil {
			return err
		}
		if a.json() {
			return document(a.out, storeDocument(r.Store))
		}
		a.printf("store %s is made; name it with --store or PEMBA_STORE\n", r.Store.GetName())
		return nil
	})
	addRequest(cmd.Flags(), &id, &reason)
	return a.remote(cmd, false, false)
}

func (a *app) storeListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List the stores",
		Example: `  pemba store list
  pemba store list tenant-`,
		Args: takes("[PREFIX]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		request := &pb.ListStoresRequest{Consistency: c.at, Prefix: strings.Join(args, "")}
		var rows [][]string
		for {
			r, err := c.stores.ListStores(ctx, request)
			if err != nil {
				return err
			}
			for _, s := range r.Stores {
				j := storeDocument(s)
				if !a.json() {
					rows = append(rows, []string{j.Store, fmt.Sprint(j.ID), fmt.Sprint(j.Head), j.Created})
				} else if err := document(a.out, j); err != nil {
					return err
				}
			}
			if r.Complete || r.Cursor == "" {
				break
			}
			request.Cursor = r.Cursor
		}
		if !a.json() {
			a.table([]string{"STORE", "ID", "REVISION", "CREATED"}, rows)
		}
		return nil
	})
	return a.remote(cmd, false, true)
}

func (a *app) storeDeleteCommand() *cobra.Command {
	var id, reason string
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a store with everything in it, for good",
		Example: `  pemba store delete staging`,
		Args:    takes("NAME"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		r, err := c.stores.DeleteStore(ctx, &pb.DeleteStoreRequest{Store: args[0], RequestId: id, Reason: reason})
		if err != nil {
			return err
		}
		if a.json() {
			return document(a.out, struct {
				Store  string `json:"store"`
				Zookie string `json:"zookie"`
			}{args[0], r.Zookie})
		}
		a.printf("store %s is deleted\n", args[0])
		return nil
	})
	addRequest(cmd.Flags(), &id, &reason)
	return a.remote(cmd, false, false)
}

func (a *app) storeVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [NAME]",
		Short: "Verify a store's history, and that answers come from what it says",
		Example: `  pemba store verify default
  pemba store verify crm --output json`,
		Long: `Recompute the hash chain of a store's history, and compare the relationships, the
names and the schema that answers come from with what it says. The hash that is
printed, noted elsewhere, proves later that the history up to it was not
rewritten. Of relationships older than trimmed history it is known only that
nothing contradicts them.`,
		Args: takes("[NAME]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		if len(args) > 0 {
			if cmd.Flags().Changed("store") && c.store != args[0] {
				return usagef("two stores are named, %s and %s; give one", args[0], c.store)
			}
			c.store = args[0]
		}
		last, err := a.verifyStore(ctx, c)
		if err != nil {
			return err
		}
		hash := hex.EncodeToString(last.Hash)
		if a.json() {
			return document(a.out, struct {
				Store       string `json:"store"`
				Oldest      uint64 `json:"oldest"`
				Head        uint64 `json:"head"`
				Hash        string `json:"hash"`
				Zookie      string `json:"zookie"`
				Rows        uint64 `json:"rows"`
				OlderRows   uint64 `json:"older_rows"`
				OlderSchema bool   `json:"older_schema"`
			}{c.store, last.Oldest, last.Head, hash, last.Zookie, last.Rows, last.OlderRows, last.OlderSchema})
		}
		if last.Head == 0 {
			a.printf("the history of store %s is empty\n", c.store)
			return nil
		}
		a.printf("the history of store %s is as it was written: revisions %d to %d, hash %s\n", c.store, last.Oldest, last.Head, hash)
		a.printf("what answers come from is what it says: %s\n", plural(last.Rows, "relationship"))
		if last.OlderRows > 0 {
			a.printf("%s of them came before revision %d, where the history begins: nothing contradicts them, and nothing proves them\n", thousands(last.OlderRows), last.Oldest)
		}
		if last.OlderSchema {
			a.printf("the schema in force came before revision %d: only its own hash is verified\n", last.Oldest)
		}
		return nil
	})
	return a.remote(cmd, true, false)
}

// verifyStore has a server verify a store, and returns what it found.
func (a *app) verifyStore(ctx context.Context, c *connection) (*pb.VerifyStoreResponse, error) {
	stream, err := c.stores.VerifyStore(ctx, &pb.VerifyStoreRequest{Store: c.store})
	if err != nil {
		return nil, err
	}
	var last *pb.VerifyStoreResponse
	progress := a.progress()
	err = receive(stream, func(r *pb.VerifyStoreResponse) error {
		last = r
		if r.Rows > 0 {
			progress.at(r.Rows, "relationship")
		} else {
			progress.at(r.Verified, "revision")
		}
		return nil
	})
	progress.done()
	if err == nil && (last == nil || !last.Complete) {
		err = fmt.Errorf("the verification of store %s was not finished; try again", c.store)
	}
	return last, err
}
