package loadtest

import (
	"context"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// ServeFloor serves the health call of a bare gRPC server on a free port of
// loopback until ctx ends, and prints the address on a line of its own.
func ServeFloor(ctx context.Context, out io.Writer) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the floor: %w", err)
	}
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if _, err := fmt.Fprintln(out, lis.Addr()); err != nil {
		return err
	}
	return s.Serve(lis)
}
