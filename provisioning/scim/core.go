package scim

// URIs of schemas and messages (RFC 7643 §8.7, RFC 7644 §8.2).
const (
	UserSchema       = "urn:ietf:params:scim:schemas:core:2.0:User"
	GroupSchema      = "urn:ietf:params:scim:schemas:core:2.0:Group"
	EnterpriseSchema = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

	schemaSchema       = "urn:ietf:params:scim:schemas:core:2.0:Schema"
	resourceTypeSchema = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
	configSchema       = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"

	errorMessage        = "urn:ietf:params:scim:api:messages:2.0:Error"
	listMessage         = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	searchMessage       = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
	patchMessage        = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
	bulkRequestMessage  = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
	bulkResponseMessage = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
)

// change makes an attribute another by what is set in the order given.
type change func(*Attribute)

var (
	required   change = func(a *Attribute) { a.Required = true }
	lines      change = func(a *Attribute) { a.lines = true }
	caseExact  change = func(a *Attribute) { a.CaseExact = true }
	many       change = func(a *Attribute) { a.MultiValued = true }
	unique     change = func(a *Attribute) { a.Uniqueness = "server" }
	readOnly   change = func(a *Attribute) { a.Mutability = ReadOnly }
	immutable  change = func(a *Attribute) { a.Mutability = Immutable }
	always     change = func(a *Attribute) { a.Returned = Always }
	onRequest  change = func(a *Attribute) { a.Returned = OnRequest }
	secret     change = func(a *Attribute) { a.Mutability, a.Returned = WriteOnly, Never }
	onlyValues        = func(values ...string) change { return func(a *Attribute) { a.CanonicalValues = values } }
	refersTo          = func(types ...string) change { return func(a *Attribute) { a.ReferenceTypes = types } }
	with              = func(subs ...*Attribute) change { return func(a *Attribute) { a.SubAttributes = subs } }
)

func attribute(name string, t Type, description string, changes ...change) *Attribute {
	a := &Attribute{Name: name, Type: t, Description: description, Mutability: ReadWrite, Returned: Default, Uniqueness: "none"}
	if t == Reference || t == Binary {
		a.CaseExact = true
	}
	for _, c := range changes {
		c(a)
	}
	return a
}

func text(name, description string, changes ...change) *Attribute {
	return attribute(name, String, description, changes...)
}

// values is a multi-valued attribute with the usual sub-attributes (RFC 7643 §2.4).
func values(name, description string, value *Attribute, kinds ...string) *Attribute {
	return attribute(name, Complex, description, many, with(
		value,
		text("display", "A name for people to read"),
		text("type", "What it is for", onlyValues(kinds...)),
		attribute("primary", Boolean, "Whether it is the preferred one; at most one is"),
	))
}

// common are the attributes that every resource has (RFC 7643 §3.1). Schemas do
// not list them.
var common = []*Attribute{
	text("schemas", "The schemas whose attributes the resource has", many, caseExact, always),
	text("id", "The identifier that this service gave the resource", caseExact, readOnly, always, unique),
	text("externalId", "The identifier that the client gave the resource", caseExact, unique),
	attribute("meta", Complex, "What the service knows of the resource", readOnly, with(
		text("resourceType", "The kind of the resource", caseExact, readOnly),
		attribute("created", DateTime, "When it was created", readOnly),
		attribute("lastModified", DateTime, "When it was last changed", readOnly),
		attribute("location", Reference, "Its URI", readOnly, refersTo("uri")),
		text("version", "Its entity tag", caseExact, readOnly),
	)),
}

// userSchema is RFC 7643 §4.1. The groups of a user are told when asked for: for
// each user they take a look at the memberships.
var userSchema = &Schema{ID: UserSchema, Name: "User", Description: "A user account", Attributes: []*Attribute{
	text("userName", "The name that the user signs in with", required, unique, always),
	attribute("name", Complex, "The parts of the user's name", with(
		text("formatted", "The whole name as it is shown"),
		text("familyName", "The family name"),
		text("givenName", "The given name"),
		text("middleName", "The middle names"),
		text("honorificPrefix", "Titles before the name"),
		text("honorificSuffix", "Suffixes after the name"),
	)),
	text("displayName", "The name that is shown to others"),
	text("nickName", "What the user is called casually"),
	attribute("profileUrl", Reference, "A page about the user", refersTo("external")),
	text("title", "The user's title, such as Vice President"),
	text("userType", "How the user relates to the organization, such as Contractor"),
	text("preferredLanguage", "The languages that the user prefers, as in Accept-Language"),
	text("locale", "The user's locale, such as en-US"),
	text("timezone", "The user's time zone, such as Europe/Lisbon"),
	attribute("active", Boolean, "Whether the user has any access; false suspends the user"),
	text("password", "Accepted, and neither stored nor used: Pemba signs nobody in", secret, caseExact),
	values("emails", "E-mail addresses", text("value", "The address"), "work", "home", "other"),
	values("phoneNumbers", "Telephone numbers", text("value", "The number"), "work", "home", "mobile", "fax", "pager", "other"),
	values("ims", "Instant messaging addresses", text("value", "The address"), "aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"),
	values("photos", "Pictures of the user", attribute("value", Reference, "Where the picture is", refersTo("external")), "photo", "thumbnail"),
	attribute("addresses", Complex, "Postal addresses", many, with(
		text("formatted", "The whole address as it is shown", lines),
		text("streetAddress", "Street and number", lines),
		text("locality", "City"),
		text("region", "State or region"),
		text("postalCode", "Postal code"),
		text("country", "Country, in two letters"),
		text("type", "What it is for", onlyValues("work", "home", "other")),
		attribute("primary", Boolean, "Whether it is the preferred one; at most one is"),
	)),
	attribute("groups", Complex, "The groups that the user is a direct member of; change the groups to change it", many, readOnly, onRequest, with(
		text("value", "The id of the group", caseExact, readOnly),
		attribute("$ref", Reference, "The URI of the group", readOnly, refersTo("Group")),
		text("display", "The name of the group", readOnly),
		text("type", "How the user belongs to it", readOnly, onlyValues("direct")),
	)),
	values("entitlements", "What the user is entitled to, as the client says", text("value", "The entitlement")),
	values("roles", "What the user is, as the client says", text("value", "The role")),
	values("x509Certificates", "Certificates", attribute("value", Binary, "The certificate: DER in Base64")),
}}

// groupSchema is RFC 7643 §4.2.
var groupSchema = &Schema{ID: GroupSchema, Name: "Group", Description: "A group of users and groups", Attributes: []*Attribute{
	text("displayName", "The name of the group", required),
	attribute("members", Complex, "The direct members", many, with(
		text("value", "The id of the member", caseExact, immutable),
		attribute("$ref", Reference, "The URI of the member", immutable, refersTo("User", "Group")),
		text("type", "Whether the member is a user or a group", immutable, onlyValues("User", "Group")),
		text("display", "The name of the member", readOnly),
	)),
}}

// enterpriseSchema is RFC 7643 §4.3.
var enterpriseSchema = &Schema{ID: EnterpriseSchema, Name: "EnterpriseUser", Description: "What an organization knows of a user", Attributes: []*Attribute{
	text("employeeNumber", "The number of the employee"),
	text("costCenter", "The cost center"),
	text("organization", "The organization"),
	text("division", "The division"),
	text("department", "The department"),
	attribute("manager", Complex, "The user's manager", with(
		text("value", "The id of the manager", caseExact),
		attribute("$ref", Reference, "The URI of the manager", refersTo("User")),
		text("displayName", "The name of the manager", readOnly),
	)),
}}
