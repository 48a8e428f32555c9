package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// asks reads the schema with a secret.
func (n *node) asks(t *testing.T, secret string) error {
	t.Helper()
	_, err := n.schemas.GetSchema(bearer(t, secret), &pembav1.GetSchemaRequest{})
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("the secret is in an error: %v", err)
	}
	return err
}

// becomes waits until a secret is refused for a reason.
func (n *node) becomes(t *testing.T, secret, reason string) {
	t.Helper()
	until := time.Now().Add(20 * time.Second)
	for {
		err := n.asks(t, secret)
		if err != nil || time.Now().After(until) {
			expect(t, "a secret whose time is over", err, codes.Unauthenticated, reason)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A token ends when it was said to, and so do the streams that it opened; who
// rotates it brings it back, under the same name.
func TestATokenExpires(t *testing.T) {
	n := documents(t, offboardSchema)
	root, err := n.tokens.CreateToken(t.Context(), &pembav1.CreateTokenRequest{Name: "root", Role: pembav1.Role_ROLE_ADMIN, AllStores: true})
	if err != nil {
		t.Fatal(err)
	}
	admin := bearer(t, root.Secret)
	end := time.Now().Add(700 * time.Millisecond)
	made, err := n.tokens.CreateToken(admin, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_READER, Expires: timestamppb.New(end)})
	if err != nil {
		t.Fatal(err)
	}
	if got := made.Token.Expires.AsTime(); !got.Equal(end.UTC().Truncate(time.Microsecond)) {
		t.Errorf("it expires at %s, not %s", got, end)
	}
	watch, err := pembav1.NewWatchServiceClient(n.conn).Watch(bearer(t, made.Secret), &pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{FromRevision: 1}, Heartbeat: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if time.Now().Before(end) {
		t.Error("the stream ended before the token")
	}
	expect(t, "a stream of an expired token", err, codes.Unauthenticated, "EXPIRED_TOKEN")
	n.becomes(t, made.Secret, "EXPIRED_TOKEN")
	_, err = n.tokens.RotateToken(admin, &pembav1.RotateTokenRequest{Name: "robot"})
	expect(t, "rotating an expired token without a later end", err, codes.InvalidArgument, "INVALID_TOKEN")
	again, err := n.tokens.RotateToken(admin, &pembav1.RotateTokenRequest{Name: "robot", Expires: timestamppb.New(time.Now().Add(time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.asks(t, again.Secret); err != nil {
		t.Error(err)
	}
	n.becomes(t, made.Secret, "EXPIRED_TOKEN")
	_, err = n.tokens.CreateToken(admin, &pembav1.CreateTokenRequest{Name: "late", Role: pembav1.Role_ROLE_READER, Expires: timestamppb.New(time.Now().Add(-time.Second))})
	expect(t, "a token that has expired", err, codes.InvalidArgument, "INVALID_TOKEN")
}

// A token is rotated without a gap: both secrets are valid for the time of overlap,
// and never three; the list says until when.
func TestATokenIsRotatedWithoutAGap(t *testing.T) {
	n := documents(t, offboardSchema)
	root, err := n.tokens.CreateToken(t.Context(), &pembav1.CreateTokenRequest{Name: "root", Role: pembav1.Role_ROLE_ADMIN, AllStores: true})
	if err != nil {
		t.Fatal(err)
	}
	admin := bearer(t, root.Secret)
	first, err := n.tokens.CreateToken(admin, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_READER})
	if err != nil {
		t.Fatal(err)
	}
	rotate := func(overlap time.Duration, id string) (*pembav1.RotateTokenResponse, error) {
		return n.tokens.RotateToken(admin, &pembav1.RotateTokenRequest{Name: "robot", Overlap: durationpb.New(overlap), RequestId: id})
	}
	second, err := rotate(time.Hour, "r1")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{first.Secret, second.Secret} {
		if err := n.asks(t, secret); err != nil {
			t.Errorf("in the overlap: %v", err)
		}
	}
	list, err := n.tokens.ListTokens(admin, &pembav1.ListTokensRequest{Consistency: atLeast(second.Zookie)})
	if err != nil || len(list.Tokens) != 2 || list.Tokens[0].OverlapUntil.AsTime().Before(time.Now().Add(59*time.Minute)) || list.Tokens[1].OverlapUntil != nil {
		t.Errorf("the tokens are %v, %v", list, err)
	}
	_, err = rotate(time.Hour, "r1")
	expect(t, "the same request again", err, codes.AlreadyExists, "TOKEN_EXISTS")
	third, err := rotate(300*time.Millisecond, "")
	if err != nil {
		t.Fatal(err)
	}
	n.becomes(t, first.Secret, "UNKNOWN_TOKEN")
	n.becomes(t, second.Secret, "EXPIRED_TOKEN")
	if err := n.asks(t, third.Secret); err != nil {
		t.Error(err)
	}
	if _, err := n.tokens.RevokeToken(admin, &pembav1.RevokeTokenRequest{Name: "robot"}); err != nil {
		t.Fatal(err)
	}
	n.becomes(t, third.Secret, "UNKNOWN_TOKEN")
	n.becomes(t, second.Secret, "UNKNOWN_TOKEN")
	_, err = rotate(0, "")
	expect(t, "a token that was revoked", err, codes.NotFound, "TOKEN_NOT_FOUND")
	_, err = n.tokens.RotateToken(admin, &pembav1.RotateTokenRequest{Name: "root", Overlap: durationpb.New(-time.Second)})
	expect(t, "an overlap below 0", err, codes.InvalidArgument, "INVALID_FIELD")
	if _, err := n.tokens.RotateToken(context.Background(), &pembav1.RotateTokenRequest{Name: "root"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
}
