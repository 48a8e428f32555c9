// Package scim serves SCIM 2.0 (RFC 7643, RFC 7644) over HTTP: users with the
// enterprise extension, and groups. It knows the protocol and nothing of where the
// people are kept: whoever has them implements [Directory], and gives it to a
// [Server] for each request.
//
// What a request asks is read in one [View], one state of the directory, so that a
// page, the total beside it and the members of its groups agree. What it changes
// is one call of the Directory. Resources are JSON objects whose attributes have
// the names and types of their [Schema]; members of groups are apart from them,
// since there may be a hundred thousand: they are read in pages and written out as
// they come, and a change of a group names those who come and go only.
//
// Filters ([ParseFilter]) and paths ([ParsePath]) are the whole grammar of RFC 7644
// §3.4.2.2 and §3.5.2. What a filter asks of the id, the user name, the external
// id, a group's name or a member is looked up; anything else is found by reading
// in pages.
//
// Beyond the letter of the RFC it understands how Microsoft Entra and Okta write:
// "op" in capitals, booleans as text, one value where a list is due, attributes as
// dotted or URN keys of an operation without a path, members removed by a list of
// values, and values patched through a filter that matches none yet.
package scim
