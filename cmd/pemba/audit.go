package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// position asks where a store's history stands, or stood at a revision.
func (c *connection) position(ctx context.Context, at *uint64) (*pb.GetPositionResponse, datastore.Head, error) {
	p, err := c.audits.GetPosition(ctx, &pb.GetPositionRequest{Store: c.store, Revision: at})
	if err != nil {
		return nil, datastore.Head{}, err
	}
	h := datastore.Head{Revision: datastore.Revision(p.Revision)}
	if copy(h.Incarnation[:], p.Incarnation) < len(h.Incarnation) || copy(h.Hash[:], p.Hash) < len(h.Hash) {
		return nil, h, fmt.Errorf("the server at %s gave a position without an incarnation or a hash", c.addr)
	}
	if p.Time != nil {
		h.Time = p.Time.AsTime()
	}
	return p, h, nil
}

func (a *app) historyCheckpointCommand() *cobra.Command {
	var key, out, after string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Sign where a store's history stands, for an auditor to keep",
		Long: `Sign where a store's history stands: its store, line, revision, hash and time, with
an Ed25519 key that the server never sees. Whoever keeps the checkpoint can tell
later, with "pemba history verify", whether the history was cut or rewritten. With
--after, the last checkpoint, signed with the same key, the history is verified
from it on before the next one is signed.

  openssl genpkey -algorithm ed25519 -out audit.key
  openssl pkey -in audit.key -pubout -out audit.pub`,
		Example: `  pemba history checkpoint --key audit.key --out 2026-01-31.checkpoint
  pemba history checkpoint --key audit.key --after 2026-01-31.checkpoint --out 2026-02-01.checkpoint`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		secret, err := readPrivateKey(key)
		if err != nil {
			return err
		}
		p, head, err := c.position(ctx, nil)
		if err != nil {
			return err
		}
		if after != "" {
			if head, err = a.verifySince(ctx, c, after, secret.Public().(ed25519.PublicKey)); err != nil {
				return err
			}
		}
		if head.Revision == 0 {
			return fmt.Errorf("the history of store %s is empty: there is nothing to sign", p.Store)
		}
		point := &datastore.Checkpoint{Store: p.Store, ID: datastore.StoreID(p.StoreId), Head: head}
		point.Sign(secret)
		if out == "" {
			a.printf("%s", point)
			return nil
		}
		if err := os.WriteFile(out, []byte(point.String()), 0o644); err != nil {
			return fileError("write", err)
		}
		a.printf("signed revision %d of store %s in %s\n", head.Revision, p.Store, out)
		return nil
	})
	cmd.Flags().StringVar(&key, "key", "", "the file with the operator's Ed25519 key, in PEM (PKCS #8)")
	cmd.Flags().StringVar(&after, "after", "", "the last checkpoint: what follows it is verified first")
	cmd.Flags().StringVar(&out, "out", "", "the file to write; absent, standard output")
	cobra.CheckErr(cmd.MarkFlagRequired("key"))
	return a.remote(cmd, true, false)
}

// readPEM reads the first block of a PEM file, which must be of a type.
func readPEM(path, typ string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fileError("read the key in", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != typ {
		return nil, fmt.Errorf("%s holds no %s in PEM", path, typ)
	}
	return block.Bytes, nil
}

// readPrivateKey reads an Ed25519 key in PKCS #8 (RFC 8410 §7).
func readPrivateKey(path string) (ed25519.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if secret, ok := key.(ed25519.PrivateKey); ok {
		return secret, nil
	}
	return nil, errors.Join(fmt.Errorf("%s holds no Ed25519 key; `openssl genpkey -algorithm ed25519` makes one", path), err)
}

// readPublicKey reads the public part of an Ed25519 key (RFC 8410 §4).
func readPublicKey(path string) (ed25519.PublicKey, error) {
	der, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if public, ok := key.(ed25519.PublicKey); ok {
		return public, nil
	}
	return nil, errors.Join(fmt.Errorf("%s holds no Ed25519 key; `openssl pkey -in KEY -pubout` gives the one of a private key", path), err)
}

// readCheckpoint reads a checkpoint and verifies its signature.
func (a *app) readCheckpoint(path, key string) (*datastore.Checkpoint, error) {
	if path == "" && key == "" {
		return nil, nil
	}
	if path == "" || key == "" {
		return nil, usagef("a checkpoint is verified with the public key of who signed it; give both --checkpoint and --public-key")
	}
	public, err := readPublicKey(key)
	if err != nil {
		return nil, err
	}
	return a.openCheckpoint(path, public)
}

// openCheckpoint reads a checkpoint that must be signed with a key.
func (a *app) openCheckpoint(path string, public ed25519.PublicKey) (*datastore.Checkpoint, error) {
	in, err := a.open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return nil, fileError("read", err)
	}
	point, err := datastore.ParseCheckpoint(text)
	if err == nil {
		err = point.Verify(public)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return point, nil
}

func (a *app) historyVerifyCommand() *cobra.Command {
	var file, checkpoint, key string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify a store's history, or an exported one, against a checkpoint",
		Long: `Recompute the hash chain of a store's history here, from the bytes the server sends
or, with --file, from those of an export, without trusting whoever gave them. With
a checkpoint, the history must be of its store and line, and must have had its
hash at its revision: a tail that was cut off after the checkpoint is found. A
server also verifies what it answers from, as "pemba store verify" does.`,
		Example: `  pemba history verify
  pemba history verify --checkpoint 2026-01-31.checkpoint --public-key audit.pub
  pemba history verify --file history.jsonl --checkpoint 2026-01-31.checkpoint --public-key audit.pub`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		point, err := a.readCheckpoint(checkpoint, key)
		if err != nil {
			return err
		}
		if file != "" {
			return a.verifyFile(file, point)
		}
		chain, from, err := a.verifyChain(ctx, c, point)
		if err != nil {
			return err
		}
		rows, err := a.verifyStore(ctx, c)
		if err != nil {
			return err
		}
		return a.printVerified("store "+c.store, from, chain, &rows.Rows)
	})
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "an export to verify instead of a server's history; - is standard input")
	f.StringVar(&checkpoint, "checkpoint", "", "the checkpoint that the history must agree with")
	f.StringVar(&key, "public-key", "", "the file with the public key of who signed it, in PEM")
	return a.remote(cmd, true, false)
}

// verifiedJSON is what a verification found, as JSON.
type verifiedJSON struct {
	Of         string  `json:"of"`
	Oldest     uint64  `json:"oldest"`
	Head       uint64  `json:"head"`
	Hash       string  `json:"hash"`
	Rows       *uint64 `json:"rows,omitempty"`
	Checkpoint uint64  `json:"checkpoint,omitempty"`
}

func (a *app) printVerified(of string, oldest datastore.Revision, chain *datastore.Chain, rows *uint64) error {
	j := verifiedJSON{Of: of, Oldest: uint64(oldest), Head: uint64(chain.At.Revision), Hash: hex.EncodeToString(chain.At.Hash[:]), Rows: rows}
	if chain.Checkpoint != nil {
		j.Checkpoint = uint64(chain.Checkpoint.Head.Revision)
	}
	if a.json() {
		return document(a.out, j)
	}
	a.printf("the history of %s is as it was written: revisions %d to %d, hash %s\n", of, j.Oldest, j.Head, j.Hash)
	if j.Checkpoint > 0 {
		a.printf("it agrees with the checkpoint of revision %d, %s\n", j.Checkpoint, clock(chain.Checkpoint.Head.Time))
	}
	if rows != nil {
		a.printf("what answers come from is what it says: %s\n", plural(*rows, "relationship"))
	}
	return nil
}

// verifySince verifies the history that follows a checkpoint, and returns where it
// ends.
func (a *app) verifySince(ctx context.Context, c *connection, path string, public ed25519.PublicKey) (datastore.Head, error) {
	point, err := a.openCheckpoint(path, public)
	if err != nil {
		return datastore.Head{}, err
	}
	now, head, err := c.position(ctx, nil)
	if err == nil && head.Revision < point.Head.Revision {
		chain := datastore.Chain{At: head, Checkpoint: point}
		err = chain.End()
	}
	if err != nil {
		return datastore.Head{}, err
	}
	// The change of the checkpoint comes along, unless it was trimmed.
	chain, err := a.verifyFrom(ctx, c, max(now.Oldest, uint64(point.Head.Revision)), point)
	if err != nil {
		return datastore.Head{}, err
	}
	return chain.At, nil
}

// verifyChain verifies the history that a server sends, from the oldest change it
// keeps to its head.
func (a *app) verifyChain(ctx context.Context, c *connection, point *datastore.Checkpoint) (*datastore.Chain, datastore.Revision, error) {
	now, _, err := c.position(ctx, nil)
	if err != nil {
		return nil, 0, err
	}
	chain, err := a.verifyFrom(ctx, c, now.Oldest, point)
	return chain, datastore.Revision(now.Oldest), err
}

func (a *app) verifyFrom(ctx context.Context, c *connection, from uint64, point *datastore.Checkpoint) (*datastore.Chain, error) {
	before := from - 1
	p, start, err := c.position(ctx, &before)
	if err != nil {
		return nil, err
	}
	chain, err := datastore.NewChain(datastore.StoreID(p.StoreId), start, point)
	if err != nil {
		return nil, err
	}
	progress := a.progress()
	defer progress.done()
	err = a.sealed(ctx, c, &pb.ReadHistoryRequest{Store: c.store, FromRevision: from, Sealed: true}, func(change *pb.Change) error {
		progress.at(change.Revision, "revision")
		return verifyChange(chain, datastore.StoreID(p.StoreId), change)
	})
	if err == nil {
		err = chain.End()
	}
	return chain, err
}

// sealed reads changes with their bytes, all that were asked for.
func (a *app) sealed(ctx context.Context, c *connection, r *pb.ReadHistoryRequest, each func(*pb.Change) error) error {
	stream, err := c.histories.ReadHistory(ctx, r)
	if err != nil {
		return err
	}
	var last *pb.ReadHistoryResponse
	reached := r.FromRevision - 1
	err = receive(stream, func(m *pb.ReadHistoryResponse) error {
		last = m
		for _, change := range m.Changes {
			if err := each(change); err != nil {
				return err
			}
			reached = change.Revision
		}
		return nil
	})
	if err != nil {
		return err
	}
	if last == nil || !last.Complete || reached+1 != last.NextRevision || r.ToRevision == 0 && reached != last.Head {
		return fmt.Errorf("the history is not complete: the server at %s stopped after revision %d", c.addr, reached)
	}
	return nil
}

// verifyChange verifies a change by its bytes, and that what was told of it is
// what they say.
func verifyChange(chain *datastore.Chain, store datastore.StoreID, told *pb.Change) error {
	e := datastore.Entry{Revision: datastore.Revision(told.Revision), RequestID: told.RequestId, Header: told.Sealed.GetHeader(), Payload: told.Sealed.GetPayload()}
	if copy(e.Hash[:], told.Hash) < len(e.Hash) {
		return fmt.Errorf("%w: change %d has no hash", datastore.ErrCorrupt, told.Revision)
	}
	c, err := chain.Next(e)
	if err != nil {
		return err
	}
	want := server.ChangeProto(&c, store, chain.At.Incarnation)
	want.Sealed = told.Sealed
	if !proto.Equal(want, told) {
		return fmt.Errorf("%w: change %d is told otherwise than its bytes say", datastore.ErrCorrupt, told.Revision)
	}
	return nil
}
