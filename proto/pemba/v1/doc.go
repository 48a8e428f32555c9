// Package pembav1 is the gRPC API of Pemba, version 1: the Go that buf generates from the .proto files beside it.
//
// Every request names its store (empty means `default`), every read its consistency, and every answer carries a zookie:
// the revision that answered. Errors carry a google.rpc.ErrorInfo; see [ErrorReason].
package pembav1
