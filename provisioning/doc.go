// Package provisioning keeps users and groups in the history of a store, as
// identity providers send them: [Directory] is what package scim serves.
//
// A user is the identity `user:ID`, a group `group:ID`; a membership is the
// relationship `group:ID#member@user:ID`, or of a group in a group
// `group:ID#member@group:ID2#member`. So whoever is provisioned has access by the
// store's schema at once. The attributes of an identity are a JSON object with the
// names of SCIM (RFC 7643), and under "meta" when it was created and last changed;
// "active" is not among them, since that is the identity's state. It is found by
// the keys userName (in lower case) and externalId, of which no two of a type have
// the same, and a group by displayName (in lower case).
package provisioning
