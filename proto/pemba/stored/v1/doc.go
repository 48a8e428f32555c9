// Package storedv1 is the form of what Pemba stores and hands out as opaque text: the changes of a history, and cursors.
// It is no API: only the codec of package datastore and the server's cursors use it.
package storedv1
