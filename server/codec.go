package server

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// exactCodec is gRPC's codec, but knows incoming messages, and a large message
// takes what it needs. The
// buffers that gRPC keeps grow from 32 KiB straight to 1 MiB: ten times what a
// page of a list needs, for every client that does not read.
type exactCodec struct{ encoding.CodecV2 }

func (c exactCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*incoming); ok {
		in.err = in.read(c.CodecV2, data)
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

const largestPooled = 32 << 10

func (c exactCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok || proto.Size(m) <= largestPooled {
		return c.CodecV2.Marshal(v)
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}
