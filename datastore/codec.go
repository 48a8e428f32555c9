package datastore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
	"github.com/pembadb/pemba/tuple"
)

// format is the version of the stored form that this code writes, and the newest
// it reads.
const format = 1

// hashDomain separates the hashes of changes from all other uses of SHA-256.
const hashDomain = "pemba change 1\x00"

// ErrUnknownOperation says that a stored change holds something this version
// does not know. A node that meets one must stop serving the store.
var ErrUnknownOperation = errors.New("the history holds an operation that this version of pemba does not know; upgrade this node")

// chain computes the hash of a change: over a domain tag, the hash before and
// the header's stored bytes, which hold the digest of the payload.
func chain(prev Hash, header []byte) Hash {
	h := sha256.New()
	h.Write([]byte(hashDomain))
	h.Write(prev[:])
	h.Write(header)
	return Hash(h.Sum(nil))
}

// Seal encodes a change and chains it to the hash of the one before. c.Hash is
// ignored.
func Seal(prev Hash, c Change) (Entry, error) {
	payload := &storedv1.ChangePayload{Operations: make([]*storedv1.Operation, len(c.Operations))}
	for i, o := range c.Operations {
		var err error
		if payload.Operations[i], err = encodeOperation(o); err != nil {
			return Entry{}, err
		}
	}
	payloadBytes, err := proto.Marshal(payload)
	if err != nil {
		return Entry{}, fmt.Errorf("encode change %d: %w", c.Revision, err)
	}
	digest := sha256.Sum256(payloadBytes)
	header, err := proto.Marshal(&storedv1.ChangeHeader{
		Format:        format,
		Revision:      uint64(c.Revision),
		Time:          c.Time.UnixMicro(),
		Actor:         c.Actor,
		Reason:        c.Reason,
		RequestId:     c.RequestID,
		RequestDigest: c.BodyDigest[:],
		PayloadDigest: digest[:],
		Metadata:      []byte(c.Metadata),
	})
	if err != nil {
		return Entry{}, fmt.Errorf("encode change %d: %w", c.Revision, err)
	}
	return Entry{
		Revision: c.Revision, RequestID: c.RequestID, Header: header, Payload: payloadBytes,
		Hash: chain(prev, header), Time: c.Time, Operations: c.Operations,
	}, nil
}

// VerifyLink returns nil if e follows the change whose hash is prev and its
// bytes are those that were hashed; otherwise an error that wraps ErrCorrupt.
func VerifyLink(prev Hash, e Entry) error {
	if chain(prev, e.Header) != e.Hash {
		return fmt.Errorf("%w: change %d does not link to the change before it", ErrCorrupt, e.Revision)
	}
	var header storedv1.ChangeHeader
	if err := proto.Unmarshal(e.Header, &header); err != nil {
		return fmt.Errorf("%w: the header of change %d cannot be read: %w", ErrCorrupt, e.Revision, err)
	}
	if Revision(header.Revision) != e.Revision {
		return fmt.Errorf("%w: change %d says that it is change %d", ErrCorrupt, e.Revision, header.Revision)
	}
	if digest := sha256.Sum256(e.Payload); string(digest[:]) != string(header.PayloadDigest) {
		return fmt.Errorf("%w: the operations of change %d are not those that were written", ErrCorrupt, e.Revision)
	}
	return nil
}

// Open decodes an entry. Errors wrap ErrUnknownOperation where the entry comes
// from a newer version, and ErrCorrupt otherwise.
func Open(e Entry) (Change, error) {
	var header storedv1.ChangeHeader
	if err := proto.Unmarshal(e.Header, &header); err != nil {
		return Change{}, fmt.Errorf("%w: the header of change %d cannot be read: %w", ErrCorrupt, e.Revision, err)
	}
	if header.Format != format {
		return Change{}, fmt.Errorf("change %d has format %d: %w", e.Revision, header.Format, ErrUnknownOperation)
	}
	var payload storedv1.ChangePayload
	if err := proto.Unmarshal(e.Payload, &payload); err != nil {
		return Change{}, fmt.Errorf("%w: the operations of change %d cannot be read: %w", ErrCorrupt, e.Revision, err)
	}
	if len(header.RequestDigest) != sha256.Size {
		return Change{}, fmt.Errorf("%w: the request digest of change %d has %d bytes", ErrCorrupt, e.Revision, len(header.RequestDigest))
	}
	c := Change{
		Revision: Revision(header.Revision), Time: time.UnixMicro(header.Time).UTC(), Actor: header.Actor,
		Reason: header.Reason, RequestID: header.RequestId, Metadata: string(header.Metadata), BodyDigest: [32]byte(header.RequestDigest), Hash: e.Hash,
		Operations: make([]Operation, len(payload.Operations)),
	}
	for i, o := range payload.Operations {
		var err error
		if c.Operations[i], err = decodeOperation(o, c.Time, c.Actor); err != nil {
			return Change{}, fmt.Errorf("change %d, operation %d: %w", e.Revision, i+1, err)
		}
	}
	return c, nil
}

func encodeOperation(o Operation) (*storedv1.Operation, error) {
	r := encodeRelationship(&o.Relationship)
	switch o.Kind {
	case Create:
		return &storedv1.Operation{Operation: &storedv1.Operation_Create{Create: &storedv1.RelationshipCreated{Relationship: r, Previous: encodeRelationship(o.Previous)}}}, nil
	case Touch:
		return &storedv1.Operation{Operation: &storedv1.Operation_Touch{Touch: &storedv1.RelationshipTouched{Relationship: r, Previous: encodeRelationship(o.Previous)}}}, nil
	case Delete:
		return &storedv1.Operation{Operation: &storedv1.Operation_Delete{Delete: &storedv1.RelationshipDeleted{Previous: r}}}, nil
	case Expire:
		return &storedv1.Operation{Operation: &storedv1.Operation_Expire{Expire: &storedv1.RelationshipExpired{Previous: r}}}, nil
	case ApplySchema:
		return &storedv1.Operation{Operation: &storedv1.Operation_SchemaApplied{SchemaApplied: &storedv1.SchemaApplied{
			Text: o.Schema.Text, Hash: o.Schema.Hash[:], PreviousHash: o.Schema.PreviousHash[:], AddedNames: o.Schema.Names}}}, nil
	case CreateStore:
		return &storedv1.Operation{Operation: &storedv1.Operation_StoreCreated{StoreCreated: &storedv1.StoreCreated{Id: uint64(o.Store.ID), Name: o.Store.Name}}}, nil
	case DeleteStore:
		return &storedv1.Operation{Operation: &storedv1.Operation_StoreDeleted{StoreDeleted: &storedv1.StoreDeleted{Id: uint64(o.Store.ID), Name: o.Store.Name}}}, nil
	case CreateToken:
		return &storedv1.Operation{Operation: &storedv1.Operation_TokenCreated{TokenCreated: &storedv1.TokenCreated{
			Name: o.Token.Name, Role: o.Token.Role, StoreId: encodeScope(o.Token), StoreName: o.Token.Store, SecretHash: o.Token.Hash[:],
			Expires: microsOf(o.Token.Expires), OlderHash: olderOf(o.Token), OlderUntil: microsOf(o.Token.OlderUntil)}}}, nil
	case RevokeToken:
		return &storedv1.Operation{Operation: &storedv1.Operation_TokenRevoked{TokenRevoked: &storedv1.TokenRevoked{
			Name: o.Token.Name, Role: o.Token.Role, StoreId: encodeScope(o.Token), StoreName: o.Token.Store}}}, nil
	case PutIdentity:
		return encodeIdentity(o.Identity), nil
	case Erase:
		return &storedv1.Operation{Operation: &storedv1.Operation_IdentityErased{IdentityErased: &storedv1.IdentityErased{Type: o.Erased.Type, Id: o.Erased.ID}}}, nil
	}
	return nil, fmt.Errorf("operation kind %d: %w", o.Kind, ErrUnknownOperation)
}

// microsOf and timeOf change times that may be none to microseconds and back.
func microsOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func olderOf(t *Token) []byte {
	if t.Older == [32]byte{} {
		return nil
	}
	return t.Older[:]
}

// A token for all stores has no store id; a token for one is bound to the id, so
// that a store made later under the same name is not opened by it.
func encodeScope(t *Token) *uint64 {
	if t.StoreID == 0 {
		return nil
	}
	return proto.Uint64(uint64(t.StoreID))
}

func decodeOperation(o *storedv1.Operation, at time.Time, actor string) (Operation, error) {
	switch o := o.Operation.(type) {
	case *storedv1.Operation_Create:
		return decodeWrite(Create, o.Create.GetRelationship(), o.Create.GetPrevious())
	case *storedv1.Operation_Touch:
		return decodeWrite(Touch, o.Touch.GetRelationship(), o.Touch.GetPrevious())
	case *storedv1.Operation_Delete:
		return decodeWrite(Delete, o.Delete.GetPrevious(), nil)
	case *storedv1.Operation_Expire:
		return decodeWrite(Expire, o.Expire.GetPrevious(), nil)
	case *storedv1.Operation_SchemaApplied:
		s := o.SchemaApplied
		if len(s.GetHash()) != sha256.Size || len(s.GetPreviousHash()) != sha256.Size {
			return Operation{}, fmt.Errorf("%w: a schema hash has the wrong length", ErrCorrupt)
		}
		return Operation{Kind: ApplySchema, Schema: &SchemaText{Text: s.Text, Hash: [32]byte(s.Hash), PreviousHash: [32]byte(s.PreviousHash), Names: s.AddedNames}}, nil
	case *storedv1.Operation_StoreCreated:
		return Operation{Kind: CreateStore, Store: &Store{ID: StoreID(o.StoreCreated.GetId()), Name: o.StoreCreated.GetName(), Created: at}}, nil
	case *storedv1.Operation_StoreDeleted:
		return Operation{Kind: DeleteStore, Store: &Store{ID: StoreID(o.StoreDeleted.GetId()), Name: o.StoreDeleted.GetName()}}, nil
	case *storedv1.Operation_TokenCreated:
		t := o.TokenCreated
		if len(t.GetSecretHash()) != sha256.Size {
			return Operation{}, fmt.Errorf("%w: a token hash has the wrong length", ErrCorrupt)
		}
		var older [32]byte
		if n := copy(older[:], t.GetOlderHash()); n != 0 && len(t.GetOlderHash()) != sha256.Size {
			return Operation{}, fmt.Errorf("%w: a token hash has the wrong length", ErrCorrupt)
		}
		return Operation{Kind: CreateToken, Token: &Token{Name: t.Name, Role: t.Role, Store: t.StoreName, StoreID: StoreID(t.GetStoreId()),
			Hash: [32]byte(t.SecretHash), Created: at, Actor: actor, Expires: timeOf(t.GetExpires()), Older: older, OlderUntil: timeOf(t.GetOlderUntil())}}, nil
	case *storedv1.Operation_TokenRevoked:
		t := o.TokenRevoked
		return Operation{Kind: RevokeToken, Token: &Token{Name: t.GetName(), Role: t.GetRole(), Store: t.GetStoreName(), StoreID: StoreID(t.GetStoreId())}}, nil
	case *storedv1.Operation_IdentityPut:
		return decodeIdentity(o.IdentityPut)
	case *storedv1.Operation_IdentityErased:
		return Operation{Kind: Erase, Erased: &tuple.Object{Type: o.IdentityErased.GetType(), ID: o.IdentityErased.GetId()}}, nil
	}
	return Operation{}, ErrUnknownOperation
}

func encodeIdentity(p *IdentityPut) *storedv1.Operation {
	put := &storedv1.IdentityPut{Type: p.Object.Type, Id: p.Object.ID, Kind: storedv1.IdentityKind(p.Kind),
		State: storedv1.IdentityState(p.State), Before: storedv1.IdentityState(p.Before)}
	if p.Digest != [32]byte{} {
		put.Digest = p.Digest[:]
	}
	return &storedv1.Operation{Operation: &storedv1.Operation_IdentityPut{IdentityPut: put}}
}

func decodeIdentity(s *storedv1.IdentityPut) (Operation, error) {
	p := &IdentityPut{Object: tuple.Object{Type: s.GetType(), ID: s.GetId()}, Kind: IdentityKind(s.GetKind()),
		State: IdentityState(s.GetState()), Before: IdentityState(s.GetBefore())}
	if p.Kind != User && p.Kind != Group || p.State < Active || p.State > Removed {
		return Operation{}, ErrUnknownOperation
	}
	if d := s.GetDigest(); len(d) == sha256.Size {
		p.Digest = [32]byte(d)
	} else if len(d) > 0 {
		return Operation{}, fmt.Errorf("%w: the digest of an identity has the wrong length", ErrCorrupt)
	}
	return Operation{Kind: PutIdentity, Identity: p}, nil
}

func decodeWrite(kind Kind, r, previous *storedv1.StoredRelationship) (Operation, error) {
	if r == nil {
		return Operation{}, fmt.Errorf("%w: a relationship is missing", ErrCorrupt)
	}
	o := Operation{Kind: kind, Relationship: decodeRelationship(r)}
	if previous != nil {
		p := decodeRelationship(previous)
		o.Previous = &p
	}
	return o, nil
}

func encodeRelationship(r *tuple.Relationship) *storedv1.StoredRelationship {
	if r == nil {
		return nil
	}
	s := &storedv1.StoredRelationship{
		ResourceType: r.Object.Type, ResourceId: r.Object.ID, Relation: r.Relation,
		SubjectType: r.Subject.Type, SubjectId: r.Subject.ID, SubjectRelation: r.Subject.Relation,
		Caveat: r.Caveat.Name, CaveatContext: []byte(r.Caveat.Context),
	}
	if !r.Expiration.IsZero() {
		s.Expiration = proto.Int64(r.Expiration.UnixMicro())
	}
	return s
}

func decodeRelationship(s *storedv1.StoredRelationship) tuple.Relationship {
	r := tuple.Relationship{
		Key: tuple.Key{
			Object:   tuple.Object{Type: s.ResourceType, ID: s.ResourceId},
			Relation: s.Relation,
			Subject:  tuple.Subject{Object: tuple.Object{Type: s.SubjectType, ID: s.SubjectId}, Relation: s.SubjectRelation},
		},
		Caveat: tuple.Caveat{Name: s.Caveat, Context: string(s.CaveatContext)},
	}
	if s.Expiration != nil {
		r.Expiration = time.UnixMicro(*s.Expiration).UTC()
	}
	return r
}
