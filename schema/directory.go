package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// IDSource says what the id of a user or group is when an identity provider
// creates it. Whoever calls ProvisioningService gives the id itself.
type IDSource string

const (
	RandomID    IDSource = "uuid"       // a random UUID, the default
	ExternalID  IDSource = "externalId" // the provider's own id
	UserName    IDSource = "userName"   // of users
	DisplayName IDSource = "displayName"
)

// Directory says what stands for users and groups in the graph of a store. Without
// a word in the schema it is user, group, member, and random ids. A comment line
// above a definition says otherwise:
//
//	// pemba:users id=userName
//	definition person {}
//
//	// pemba:groups member=belongs id=externalId
//	definition team { relation belongs: person | team#belongs }
type Directory struct {
	User, Group     string // types
	Member          string // relation of a group to its members: users, and groups through it
	UserID, GroupID IDSource
}

// UsualDirectory is what stands for users and groups where a schema says nothing.
func UsualDirectory() Directory {
	return Directory{User: "user", Group: "group", Member: "member", UserID: RandomID, GroupID: RandomID}
}

// marking is a Directory being read, and what the schema named of it.
type marking struct {
	Directory
	users, groups bool
}

const directoryMark = "pemba:"

// directory reads the marks of users and groups.
func (c *compiler) directory() {
	d := marking{Directory: UsualDirectory()}
	for _, decl := range c.program.definitions {
		for _, comment := range decl.Leading {
			for line := range strings.Lines(comment.Text) {
				line = strings.Trim(line, "/* \t\r\n")
				if words := strings.Fields(line); strings.HasPrefix(line, directoryMark) {
					c.mark(&d, decl, words)
				}
			}
		}
	}
	if d.groups {
		c.checkMember(&d.Directory)
	}
	c.schema.Directory = d.Directory
}

// nearMark finds what is meant as a mark, in whatever case.
var nearMark = regexp.MustCompile(`(?i)^pemba[ \t]*:[ \t]*(users|groups)\b`)

// lintMarks warns of marks that mark nothing: in other letters, or not above a
// definition.
func (c *compiler) lintMarks() {
	for _, f := range c.program.files {
		for i, decl := range f.Declarations {
			n := decl.node()
			if i == len(f.Declarations)-1 {
				c.lintMark(decl, f.Comments, n.Pos, false)
			}
			d, ok := decl.(*DefinitionDecl)
			definition := ok && !d.Partial
			c.lintMark(decl, n.Leading, n.Pos, definition)
			c.lintMark(decl, n.Trailing, n.Pos, false)
			if ok {
				c.lintMark(decl, d.Comments, n.Pos, false)
				for _, s := range d.Statements {
					c.lintMark(s, append(slices.Clone(s.node().Leading), s.node().Trailing...), s.node().Pos, false)
				}
			}
		}
	}
}

func (c *compiler) lintMark(owner interface{ node() *Node }, comments []Comment, pos Position, reads bool) {
	for _, comment := range comments {
		for line := range strings.Lines(comment.Text) {
			line = strings.Trim(line, "/* \t\r\n")
			near := nearMark.FindString(line)
			if near == "" || reads && strings.HasPrefix(line, directoryMark) {
				continue
			}
			c.warn(owner, pos, near, "idle-mark", fmt.Sprintf("the comment says %s and marks nothing", quote(near)),
				"write // pemba:users or // pemba:groups, in small letters, on a line of its own above the definition")
		}
	}
}

// mark reads one line such as "pemba:groups member=belongs".
func (c *compiler) mark(d *marking, decl *expandedDefinition, words []string) {
	bad := func(token, message, hint string) { c.add(decl.NamePos, token, message, hint) }
	var sources []IDSource
	id, marked, typ := &d.UserID, &d.users, &d.User
	switch words[0] {
	case "pemba:users":
		sources = []IDSource{RandomID, ExternalID, UserName}
	case "pemba:groups":
		sources = []IDSource{RandomID, ExternalID, DisplayName}
		id, marked, typ = &d.GroupID, &d.groups, &d.Group
	default:
		bad(words[0], fmt.Sprintf("the comment above definition %s says %s, which means nothing", quote(decl.Name), quote(words[0])),
			"write pemba:users above the definition of users, pemba:groups above that of groups, or begin the comment otherwise")
		return
	}
	if *marked {
		bad(words[0], fmt.Sprintf("%s stands above the definitions %s and %s", quote(words[0]), quote(*typ), quote(decl.Name)), "keep it above one of them")
		return
	}
	*marked, *typ = true, decl.Name
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case key == "id" && slices.Contains(sources, IDSource(value)):
			*id = IDSource(value)
		case key == "id":
			bad(w, fmt.Sprintf("the ids of %s cannot come from %s", strings.TrimPrefix(words[0], directoryMark), quote(value)),
				fmt.Sprintf("write id=%s, id=%s or id=%s", sources[0], sources[1], sources[2]))
		case key == "member" && words[0] == "pemba:groups" && value != "":
			d.Member = value
		default:
			bad(w, fmt.Sprintf("%s has no setting %s", quote(words[0]), quote(w)), "write id=SOURCE, and above groups member=RELATION")
		}
	}
}

// checkMember refuses groups that could not hold their members.
func (c *compiler) checkMember(d *Directory) {
	def := c.schema.byType[d.Group]
	r := def.Relation(d.Member)
	if r == nil || r.IsPermission() {
		c.add(def.Pos, def.Type, fmt.Sprintf("the groups %s have no relation %s for their members", quote(def.Type), quote(d.Member)),
			"add `relation "+d.Member+": "+d.User+" | "+d.Group+"#"+d.Member+"`, or name another with member=RELATION")
		return
	}
	for _, a := range r.Allowed {
		if a.Definition.Type == d.User && a.Relation == nil && !a.Wildcard && a.Caveat == nil && !a.Expiration {
			return
		}
	}
	c.add(r.Pos, r.Text, fmt.Sprintf("relation %s of the groups %s cannot hold the users %s", quote(r.Text), quote(def.Type), quote(d.User)),
		"add `| "+d.User+"` to it, or mark the definition of users with pemba:users")
}

// String tells the directory as a person reads it.
func (d Directory) String() string {
	return fmt.Sprintf("users are %s (id: %s), groups are %s with relation %s (id: %s)", d.User, d.UserID, d.Group, d.Member, d.GroupID)
}
