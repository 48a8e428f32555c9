package server_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

var soak = flag.Bool("soak", false, "run hostile input at full size: a group of a million members")

// count is few, or many with -soak.
func count(few, many int) int {
	if *soak {
		return many
	}
	return few
}

const groupSchema = `
caveat tenant(id string) { id == "x" }
caveat slow(list list<int>) { list.all(x, list.all(y, list.all(z, x + y + z >= 0))) }
definition user {}
definition group { relation member: user | group#member | user with tenant | user with slow }
definition document {
  relation viewer: group#member | user
  relation editor: group#member
  permission edit = editor
  permission view = viewer + edit
}`

// fill imports relationships, a thousand a change.
func fill(t testing.TB, n *node, total int, row func(i int) *pembav1.Relationship) {
	t.Helper()
	stream, err := n.relationships.ImportRelationships(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(start(&pembav1.ImportStart{})); err != nil {
		t.Fatal(err)
	}
	for at := 0; at <= total; {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if at == total {
			break
		}
		b := &pembav1.ImportBatch{Offset: uint64(at)}
		for ; at < total && len(b.Relationships) < 1000; at++ {
			b.Relationships = append(b.Relationships, row(at))
		}
		if err := stream.Send(&pembav1.ImportRelationshipsRequest{Part: &pembav1.ImportRelationshipsRequest_Batch{Batch: b}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func obj(typ, id string) *pembav1.Object { return &pembav1.Object{Type: typ, Id: id} }
func user(id string) *pembav1.Subject    { return &pembav1.Subject{Type: "user", Id: id} }
func membersOf(id string) *pembav1.Subject {
	return &pembav1.Subject{Type: "group", Id: id, Relation: "member"}
}

// allocated runs f and returns how many bytes it allocated, dead or alive: a
// bound for what it can have held at any time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func ask(t testing.TB, n *node, o *pembav1.Object, permission string, s *pembav1.Subject) (pembav1.Answer, error) {
	t.Helper()
	r, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Resource: o, Permission: permission, Subject: s})
	return r.GetAnswer(), err
}

func TestAHugeGroupIsAnsweredWithoutHoldingItsMembers(t *testing.T) {
	n := documents(t, groupSchema)
	total := count(20_000, 1_000_000)
	fill(t, n, total, func(i int) *pembav1.Relationship {
		return &pembav1.Relationship{Resource: obj("group", "all"), Relation: "member", Subject: user(fmt.Sprintf("u%d", i))}
	})
	n.write(t, "document:d#viewer@group:all#member")
	took := allocated(func() {
		for name, want := range map[string]pembav1.Answer{
			"u0": pembav1.Answer_ANSWER_HAS_PERMISSION, fmt.Sprintf("u%d", total-1): pembav1.Answer_ANSWER_HAS_PERMISSION,
			"stranger": pembav1.Answer_ANSWER_NO_PERMISSION,
		} {
			if got, err := ask(t, n, obj("document", "d"), "view", user(name)); err != nil || got != want {
				t.Errorf("%s: %v, %v, want %v", name, got, err, want)
			}
		}
		l, err := n.permissions.ListPermissions(t.Context(), &pembav1.ListPermissionsRequest{Resource: obj("document", "d"), Subject: user("u7")})
		if err != nil || len(l.Permissions) != 2 || l.Permissions[0].Permission != "edit" || l.Permissions[1].Answer != pembav1.Answer_ANSWER_HAS_PERMISSION {
			t.Errorf("permissions: %v, %v", l, err)
		}
		e, err := n.permissions.Expand(t.Context(), &pembav1.ExpandRequest{Resource: obj("document", "d"), Permission: "view"})
		if err != nil || len(e.Nodes) == 0 {
			t.Errorf("one level: %v, %v", e, err)
		}
		_, err = n.permissions.Expand(t.Context(), &pembav1.ExpandRequest{Resource: obj("document", "d"), Permission: "view", Recursive: true})
		expect(t, "the members of all levels", err, codes.ResourceExhausted, "LIMIT_EXCEEDED")
		if fact(err, "limit") != "max-expand-results" || fact(err, "maximum") != "10000" {
			t.Errorf("the limit is not named: %v", err)
		}
	})
	if most := uint64(16 << 20); took > most {
		t.Errorf("the questions allocated %d bytes, more than %d", took, most)
	}
}

func TestDeepAndCircularGroupsAreAnswered(t *testing.T) {
	n := documents(t, groupSchema)
	deep, round := 1000, 10_000
	fill(t, n, deep, func(i int) *pembav1.Relationship {
		return &pembav1.Relationship{Resource: obj("group", fmt.Sprintf("deep%d", i)), Relation: "member", Subject: membersOf(fmt.Sprintf("deep%d", i+1))}
	})
	fill(t, n, round, func(i int) *pembav1.Relationship {
		return &pembav1.Relationship{Resource: obj("group", fmt.Sprintf("round%d", i)), Relation: "member", Subject: membersOf(fmt.Sprintf("round%d", (i+1)%round))}
	})
	n.write(t, fmt.Sprintf("group:deep%d#member@user:miner", deep), "group:round5000#member@user:walker",
		"document:d#viewer@group:deep0#member", "document:r#viewer@group:round0#member")
	for _, direct := range []bool{false, true} {
		if direct {
			k := n
			n = launchDirect(t, k)
		}
		for _, c := range []struct {
			document, user string
			want           pembav1.Answer
		}{
			{"d", "miner", pembav1.Answer_ANSWER_HAS_PERMISSION}, {"d", "walker", pembav1.Answer_ANSWER_NO_PERMISSION},
			{"r", "walker", pembav1.Answer_ANSWER_HAS_PERMISSION}, {"r", "miner", pembav1.Answer_ANSWER_NO_PERMISSION},
		} {
			if got, err := ask(t, n, obj("document", c.document), "view", user(c.user)); err != nil || got != c.want {
				t.Errorf("direct %t: %s on %s: %v, %v, want %v", direct, c.user, c.document, got, err, c.want)
			}
		}
		e, err := n.permissions.Expand(t.Context(), &pembav1.ExpandRequest{Resource: obj("document", "d"), Permission: "viewer", Recursive: true})
		if err != nil || len(e.Nodes) != deep+2 {
			t.Errorf("direct %t: the deep groups expand to %d nodes, %v", direct, len(e.GetNodes()), err)
		}
		_, err = n.permissions.Expand(t.Context(), &pembav1.ExpandRequest{Resource: obj("document", "r"), Permission: "viewer", Recursive: true})
		expect(t, "a cycle of more groups than an expansion may have", err, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	}
	small := launch(t, memory.New(), keeper.Options{Direct: true}, server.Config{Limits: server.Limits{GraphNodes: 100}})
	small.apply(t, groupSchema)
	fill(t, small, 200, func(i int) *pembav1.Relationship {
		return &pembav1.Relationship{Resource: obj("group", fmt.Sprintf("g%d", i)), Relation: "member", Subject: membersOf(fmt.Sprintf("g%d", i+1))}
	})
	_, err := ask(t, small, obj("group", "g0"), "member", user("nobody"))
	expect(t, "deeper than the limit", err, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	if fact(err, "limit") != "max-graph-nodes" || fact(err, "maximum") != "100" {
		t.Errorf("the limit is not named: %v", err)
	}
}

// launchDirect copies what a server holds to one that reads its log directly.
func launchDirect(t *testing.T, from *node) *node {
	t.Helper()
	n := launch(t, memory.New(), keeper.Options{Direct: true}, server.Config{})
	n.apply(t, groupSchema)
	ms, err := all(from.relationships.ExportRelationships(t.Context(), &pembav1.ExportRelationshipsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var rows []*pembav1.Relationship
	for _, m := range ms {
		rows = append(rows, m.Relationships...)
	}
	fill(t, n, len(rows), func(i int) *pembav1.Relationship { return rows[i] })
	return n
}

func TestIDsAndContextsAtTheirLimitsAreTakenAndJustOverItRefused(t *testing.T) {
	n := documents(t, groupSchema)
	long := strings.Repeat("i", 1024)
	write := func(r *pembav1.Relationship) error {
		_, err := n.relationships.WriteRelationships(t.Context(), &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{create(r)}})
		return err
	}
	if err := write(relationship("group", long, "member", "user", long)); err != nil {
		t.Errorf("ids of 1,024 bytes: %v", err)
	}
	if got, err := ask(t, n, obj("group", long), "member", user(long)); err != nil || got != pembav1.Answer_ANSWER_HAS_PERMISSION {
		t.Errorf("ids of 1,024 bytes: %v, %v", got, err)
	}
	named := func(what string, err error, reason, limit string) {
		expect(t, what, err, codes.InvalidArgument, reason)
		if !strings.Contains(err.Error(), limit) {
			t.Errorf("%s: the error does not name the limit %s: %v", what, limit, err)
		}
	}
	named("an object id of 1,025 bytes", write(relationship("group", long+"i", "member", "user", "a")), "INVALID_OBJECT", "1024")
	named("a subject id of 1,025 bytes", write(relationship("group", "a", "member", "user", long+"i")), "INVALID_SUBJECT", "1024")
	named("a type of 129 bytes", write(relationship(strings.Repeat("t", 129), "a", "member", "user", "a")), "INVALID_OBJECT", "128")
	named("a relation of 65 bytes", write(relationship("group", "a", strings.Repeat("r", 65), "user", "a")), "INVALID_RELATION", "64")

	caveated := func(size int) *pembav1.Relationship { // its context's JSON has that many bytes
		r := relationship("group", "g", "member", "user", fmt.Sprintf("u%d", size))
		r.Caveat = &pembav1.Caveat{Name: "tenant", Context: &structpb.Struct{Fields: map[string]*structpb.Value{
			"id": structpb.NewStringValue(strings.Repeat("x", size-len(`{"id":""}`)))}}}
		return r
	}
	if err := write(caveated(64 << 10)); err != nil {
		t.Errorf("a written context of 64 KiB: %v", err)
	}
	if rows, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Filter: &pembav1.RelationshipFilter{Caveat: "tenant"}})); err != nil || len(last(rows).Relationships) != 1 {
		t.Errorf("it is read back: %v, %v", rows, err)
	}
	named("a written context just over 64 KiB", write(caveated(64<<10+1)), "LIMIT_EXCEEDED", "65536")
	given := func(size int) error { // keys and strings together
		_, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Resource: obj("group", "g"), Permission: "member", Subject: user("a"),
			Context: &structpb.Struct{Fields: map[string]*structpb.Value{"id": structpb.NewStringValue(strings.Repeat("x", size-2))}}})
		return err
	}
	if err := given(64 << 10); err != nil {
		t.Errorf("a given context of 64 KiB: %v", err)
	}
	named("a given context just over 64 KiB", given(64<<10+1), "INVALID_CONTEXT", "65536")
	nested := func(depth int) error {
		v := structpb.NewNullValue()
		for range depth - 1 {
			v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
		}
		_, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Resource: obj("group", "g"), Permission: "member", Subject: user("a"),
			Context: &structpb.Struct{Fields: map[string]*structpb.Value{"id": v}}})
		return err
	}
	if err := nested(32); err != nil {
		t.Errorf("a context 32 levels deep: %v", err)
	}
	named("a context 33 levels deep", nested(33), "INVALID_CONTEXT", "32")
	if c := status.Code(nested(9000)); c != codes.InvalidArgument && c != codes.Internal {
		t.Errorf("a context 9,000 levels deep: %v", c)
	}
}

func TestRequestsOverALimitAreRefusedWithItsName(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{MaxOperations: 10, MaxChangeBytes: 20_000, MaxSchemaBytes: 2000}, server.Config{Limits: server.Limits{
		RequestBytes: 100_000, BulkItems: 10, Contextual: 10, Preconditions: 10, SchemaBytes: 2000,
	}})
	n.apply(t, groupSchema)
	ops := func(count, size int) error {
		r := &pembav1.WriteRelationshipsRequest{}
		for i := range count {
			rel := relationship("group", fmt.Sprint(i), "member", "user", "a")
			rel.Caveat = &pembav1.Caveat{Name: "tenant", Context: &structpb.Struct{Fields: map[string]*structpb.Value{"id": structpb.NewStringValue(strings.Repeat("x", size))}}}
			r.Operations = append(r.Operations, &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Touch{Touch: rel}})
		}
		_, err := n.relationships.WriteRelationships(t.Context(), r)
		return err
	}
	bulk := func(count int) error {
		r := &pembav1.BulkCheckRequest{}
		for range count {
			r.Items = append(r.Items, &pembav1.BulkCheckItem{Resource: obj("group", "g"), Permission: "member", Subject: user("a")})
		}
		_, err := n.permissions.BulkCheck(t.Context(), r)
		return err
	}
	contextual := func(count int) error {
		r := &pembav1.CheckRequest{Resource: obj("group", "g"), Permission: "member", Subject: user("a")}
		for i := range count {
			r.ContextualRelationships = append(r.ContextualRelationships, relationship("group", "g", "member", "user", fmt.Sprint(i)))
		}
		_, err := n.permissions.Check(t.Context(), r)
		return err
	}
	conditions := func(count int) error {
		r := &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{{Operation: &pembav1.WriteOperation_Touch{Touch: relationship("group", "g", "member", "user", "b")}}}}
		for range count {
			r.Preconditions = append(r.Preconditions, &pembav1.Precondition{Condition: &pembav1.Precondition_MustNotMatch{MustNotMatch: &pembav1.RelationshipFilter{ResourceType: "document"}}})
		}
		_, err := n.relationships.WriteRelationships(t.Context(), r)
		return err
	}
	schemaOf := func(size int) error {
		_, err := n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: groupSchema + "//" + strings.Repeat("x", size-len(groupSchema)-2)})
		return err
	}
	diffOf := func(size int) error {
		_, err := n.schemas.DiffSchema(t.Context(), &pembav1.DiffSchemaRequest{Text: groupSchema + "//" + strings.Repeat("x", size-len(groupSchema)-2)})
		return err
	}
	for _, c := range []struct {
		limit, maximum string
		within, over   error
	}{
		{"max-operations", "10", ops(10, 1), ops(11, 1)},
		{"max-change-bytes", "20000", ops(5, 3000), ops(8, 3000)},
		{"max-bulk-items", "10", bulk(10), bulk(11)},
		{"max-contextual", "10", contextual(10), contextual(11)},
		{"max-preconditions", "10", conditions(10), conditions(11)},
		{"max-schema-bytes", "2000", schemaOf(2000), schemaOf(2001)},
		{"max-schema-bytes", "2000", diffOf(2000), diffOf(2001)},
	} {
		if c.within != nil {
			t.Errorf("%s: at the limit: %v", c.limit, c.within)
		}
		expect(t, c.limit, c.over, codes.InvalidArgument, "LIMIT_EXCEEDED")
		if fact(c.over, "limit") != c.limit || fact(c.over, "maximum") != c.maximum || !strings.Contains(c.over.Error(), c.limit) {
			t.Errorf("%s %s is not named: %v", c.limit, c.maximum, c.over)
		}
	}
	err := schemaOf(150_000)
	expect(t, "a message over the limit", err, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	if fact(err, "limit") != "max-request-bytes" || fact(err, "maximum") != "100000" {
		t.Errorf("a message over the limit: %v", err)
	}
	if err := schemaOf(300_000); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message far over the limit: %v", err)
	}
}

func TestASchemaBombEndsInAnAnswerOrAnErrorSoon(t *testing.T) {
	n := documents(t, "definition user {}")
	var many, wide strings.Builder
	many.WriteString("definition user {}\n")
	for i := range count(2000, 20_000) {
		fmt.Fprintf(&many, "definition t%d { relation r: user permission p = r + r }\n", i)
	}
	wide.WriteString("definition user {}\ndefinition d { relation r: user permission p = r")
	for range count(20_000, 200_000) {
		wide.WriteString(" + r")
	}
	wide.WriteString(" }")
	deep := strings.Repeat("(", count(50_000, 500_000))
	for name, text := range map[string]string{
		"many types":          many.String(),
		"a wide expression":   wide.String(),
		"deep parentheses":    "definition user {}\ndefinition d { relation r: user permission p = " + deep + "r" + strings.ReplaceAll(deep, "(", ")") + " }",
		"only open ones":      "definition d { permission p = " + deep,
		"a deep caveat":       "caveat c(x int) { " + deep + "x" + strings.ReplaceAll(deep, "(", ")") + " > 1 }",
		"a wide caveat":       "caveat c(x int) { x > 0" + strings.Repeat(" && x > 0", count(5000, 100_000)) + " }",
		"an endless comment":  "/*" + strings.Repeat("*", count(300_000, 3<<20)),
		"bytes of no meaning": strings.Repeat("\x01{", count(100_000, 1<<20)),
		"a long circle":       "definition user {}\ndefinition d { relation r: user permission a = b permission b = a }",
	} {
		began := time.Now()
		_, err := n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: text, DryRun: true})
		if c := status.Code(err); c != codes.OK && c != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
		if len(status.Convert(err).Message()) > 5000 {
			t.Errorf("%s: the message has %d bytes", name, len(status.Convert(err).Message()))
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("%s took %v", name, took)
		} else {
			t.Logf("%s: %v, %v", name, took.Round(time.Millisecond), status.Code(err))
		}
	}
	if _, err := ask(t, n, obj("user", "a"), "x", user("a")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("afterwards: %v", err)
	}
}

func TestACaveatThatWouldRunForEverEndsAtItsCost(t *testing.T) {
	n := documents(t, groupSchema)
	n.write(t, "group:g#member@user:a[slow]")
	values := make([]*structpb.Value, 5000)
	for i := range values {
		values[i] = structpb.NewNumberValue(float64(i))
	}
	began := time.Now()
	_, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Resource: obj("group", "g"), Permission: "member", Subject: user("a"),
		Context: &structpb.Struct{Fields: map[string]*structpb.Value{"list": structpb.NewListValue(&structpb.ListValue{Values: values})}}})
	expect(t, "a caveat over 5,000³ steps", err, codes.ResourceExhausted, "CAVEAT_COST")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

func TestUnknownEnumsAndEmptyMessagesAreRefusedEverywhere(t *testing.T) {
	n := documents(t, groupSchema)
	protoregistry.GlobalFiles.RangeFilesByPackage("pemba.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				for _, request := range shapes(m.Input()) {
					if c := status.Code(call(t, n.conn, m, request)); c == codes.Internal || c == codes.Unknown || c == codes.Unimplemented {
						t.Errorf("%s of %v: %v", m.FullName(), request, c)
					}
				}
			}
		}
		return true
	})
	if _, err := ask(t, n, obj("group", "g"), "member", user("a")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// call makes a call of any kind with one request, twice on streams of requests.
func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, request proto.Message) error {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // watches do not end
	defer cancel()
	name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, name)
	if err != nil {
		return err
	}
	sends := 1
	if m.IsStreamingClient() {
		sends = 2
	}
	for range sends {
		if err := stream.SendMsg(request); err != nil {
			break
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(dynamicpb.NewMessage(m.Output())); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// shapes are requests of a type: hollow, with unknown enums, and each of its
// fields alone, hollow.
func shapes(d protoreflect.MessageDescriptor) []proto.Message {
	out := []proto.Message{hollow(d), odd(d, 4)}
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.Message() != nil && !f.IsList() && !f.IsMap() {
			m := dynamicpb.NewMessage(d)
			m.Set(f, protoreflect.ValueOfMessage(odd(f.Message(), 3)))
			out = append(out, m)
			empty := dynamicpb.NewMessage(d)
			empty.Mutable(f)
			out = append(out, empty)
		}
	}
	return out
}

// odd is a message with enums of unknown values, numbers at their ends, bytes of
// no meaning and sub-messages of the same kind.
func odd(d protoreflect.MessageDescriptor, depth int) *dynamicpb.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		var v protoreflect.Value
		switch f.Kind() {
		case protoreflect.MessageKind:
			if depth == 0 || f.IsMap() {
				continue
			}
			v = protoreflect.ValueOfMessage(odd(f.Message(), depth-1))
		case protoreflect.EnumKind:
			v = protoreflect.ValueOfEnum(99)
		case protoreflect.StringKind:
			v = protoreflect.ValueOfString("default")
		case protoreflect.BytesKind:
			v = protoreflect.ValueOfBytes([]byte{0xff})
		case protoreflect.BoolKind:
			v = protoreflect.ValueOfBool(true)
		case protoreflect.Uint64Kind:
			v = protoreflect.ValueOfUint64(^uint64(0))
		case protoreflect.Uint32Kind:
			v = protoreflect.ValueOfUint32(^uint32(0))
		case protoreflect.Int64Kind:
			v = protoreflect.ValueOfInt64(-1 << 63)
		case protoreflect.Int32Kind:
			v = protoreflect.ValueOfInt32(-1 << 31)
		default:
			continue
		}
		if f.IsList() {
			m.Mutable(f).List().Append(v)
			continue
		}
		m.Set(f, v)
	}
	return m
}
