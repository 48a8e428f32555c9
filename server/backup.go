package server

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
)

// backupChunk is how many bytes of a backup go into one message: few enough that
// one on its way in is no large request.
const backupChunk = 60 << 10

func (s *stores) BackupStore(r *pembav1.BackupStoreRequest, out grpc.ServerStreamingServer[pembav1.BackupStoreResponse]) error {
	ctx := out.Context()
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	var until *datastore.Revision
	switch u := r.Until.(type) {
	case *pembav1.BackupStoreRequest_Revision:
		until = new(datastore.Revision)
		*until = datastore.Revision(u.Revision)
	case *pembav1.BackupStoreRequest_Time:
		at, err := timeOf(u.Time, "time")
		if err != nil {
			return err
		}
		head, err := s.ds.HeadBefore(ctx, st.ID, at)
		if err != nil {
			return err
		}
		until = &head.Revision
	}
	w := &backupSender{out: out}
	if _, _, err := s.ds.Backup(ctx, st, until, w); err != nil {
		return err
	}
	return w.flush()
}

// timeOf is a time of a request, in whole microseconds.
func timeOf(t *timestamppb.Timestamp, field string) (time.Time, error) {
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalidField(field, "%s: %v", field, err)
	}
	return t.AsTime().Truncate(time.Microsecond), nil
}

// backupSender sends what is written in messages of backupChunk bytes.
type backupSender struct {
	out  grpc.ServerStreamingServer[pembav1.BackupStoreResponse]
	data []byte
}

func (w *backupSender) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), backupChunk-len(w.data))
		w.data, rest = append(w.data, rest[:n]...), rest[n:]
		if len(w.data) == backupChunk {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (w *backupSender) flush() error {
	if len(w.data) == 0 {
		return nil
	}
	// What was sent may still be on its way: the next message has bytes of its own.
	err := w.out.Send(&pembav1.BackupStoreResponse{Data: w.data})
	w.data = make([]byte, 0, backupChunk)
	return err
}

func (s *stores) RestoreStore(in grpc.ClientStreamingServer[pembav1.RestoreStoreRequest, pembav1.RestoreStoreResponse]) error {
	first, err := in.Recv()
	if errors.Is(err, io.EOF) || err == nil && first.GetStart() == nil {
		return missing("start")
	}
	if err != nil {
		return err
	}
	out, err := s.restore(in.Context(), first.GetStart(), &backupReceiver{in: in})
	if err != nil {
		return registryError(err, pembav1.ErrorReason_ERROR_REASON_STORE_EXISTS, pembav1.ErrorReason_ERROR_REASON_INVALID_STORE)
	}
	return in.SendAndClose(out)
}

func (s *stores) restore(ctx context.Context, start *pembav1.RestoreStart, in io.Reader) (*pembav1.RestoreStoreResponse, error) {
	if start.Store == "" {
		return nil, missing("start.store")
	}
	if err := checkRequest("", start.Reason, 0); err != nil {
		return nil, err
	}
	o := datastore.RestoreOptions{Name: start.Store, Actor: callerOf(ctx).name, Reason: start.Reason, Keys: provisioning.KeysOf}
	switch u := start.Until.(type) {
	case *pembav1.RestoreStart_Revision:
		o.Revision = new(datastore.Revision)
		*o.Revision = datastore.Revision(u.Revision)
	case *pembav1.RestoreStart_Time:
		var err error
		if o.At, err = timeOf(u.Time, "start.time"); err != nil {
			return nil, err
		}
	}
	r, err := s.ds.Restore(ctx, in, o)
	if err != nil {
		return nil, err
	}
	out := &pembav1.RestoreStoreResponse{
		Store: storeProto(r.Store, r.Head.Revision), Zookie: r.Head.Zookie(r.Store.ID).String(), Hash: r.Head.Hash[:],
		Source: r.Backup.Store.Name, Made: timestamppb.New(r.Backup.Made),
	}
	if r.Head.Revision > r.Backup.Anchor.Revision {
		out.Oldest = uint64(r.Backup.Anchor.Revision) + 1
	}
	return out, nil
}

// backupReceiver reads the bytes of the messages of a restore.
type backupReceiver struct {
	in   grpc.ClientStreamingServer[pembav1.RestoreStoreRequest, pembav1.RestoreStoreResponse]
	data []byte
}

func (r *backupReceiver) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		m, err := r.in.Recv()
		if err != nil {
			return 0, err
		}
		data, ok := m.Message.(*pembav1.RestoreStoreRequest_Data)
		if !ok {
			return 0, missing("data")
		}
		r.data = data.Data
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}
