package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// directoryFile is a directory as a file has it: attributes by id, those of groups
// with their members.
type directoryFile struct {
	users, groups map[string]map[string]any
}

// readDirectory reads a directory, in the order in which it is sent. What it
// cannot take is an error that names it: what would be overlooked in a file would
// be removed from the store.
func (a *app) readDirectory(path string, types identityTypes) ([]*pb.DirectoryEntry, error) {
	text, err := a.read(path)
	if err != nil {
		return nil, err
	}
	file, err := parseDirectory(text)
	if err == nil {
		err = file.checkNames()
	}
	var entries []*pb.DirectoryEntry
	if err == nil {
		entries, err = file.entries(types)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %v", path, err) // no mistake of the command line, even where it is one of a member
	}
	return entries, nil
}

func parseDirectory(text string) (*directoryFile, error) {
	d := yaml.NewDecoder(strings.NewReader(text))
	var document yaml.Node
	err := d.Decode(&document)
	if err == io.EOF || err == nil && document.Content[0].ShortTag() == "!!null" {
		return nil, errors.New("it is empty; to have no users and no groups write `{users: {}, groups: {}}`")
	}
	if err == nil {
		var whole any // refuses keys that are there twice, and aliases without end
		err = document.Decode(&whole)
	}
	if err != nil {
		return nil, fmt.Errorf("it cannot be read as YAML or JSON: %w", yamlError(err))
	}
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		return nil, fmt.Errorf("a second document begins in line %d; a directory is one: join them", max(second.Line, document.Line+1))
	} else if err != io.EOF {
		return nil, fmt.Errorf("what follows the first document is no YAML and no JSON, and a directory is one document: %w", yamlError(err))
	}
	parts, err := membersOfMapping(document.Content[0], "a directory")
	if err != nil {
		return nil, err
	}
	file := &directoryFile{}
	for _, p := range parts {
		switch p.key {
		case "users":
			file.users, err = peopleOf(p, "user")
		case "groups":
			file.groups, err = peopleOf(p, "group")
		default:
			err = fmt.Errorf("line %d: %q is neither users nor groups", p.line, p.key)
		}
		if err != nil {
			return nil, err
		}
	}
	for noun, there := range map[string]bool{"users": file.users != nil, "groups": file.groups != nil} {
		if !there {
			return nil, fmt.Errorf("it has no %s, which would remove all there are; to have none write `%s: {}`", noun, noun)
		}
	}
	return file, nil
}

// yamlError says what the YAML package found in one line, without its own name.
func yamlError(err error) error {
	var several *yaml.TypeError
	text := err.Error()
	if errors.As(err, &several) {
		text = strings.Join(several.Errors, "; ")
	}
	return errors.New(strings.TrimPrefix(text, "yaml: "))
}

// yamlPair is a key of a mapping with its value.
type yamlPair struct {
	key   string
	line  int
	value *yaml.Node
}

// membersOfMapping are the pairs of a mapping, those that it merges in (`<<`)
// after its own. what is for errors.
func membersOfMapping(n *yaml.Node, what string) (list []yamlPair, err error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s must be a mapping such as {a: b}", n.Line, what)
	}
	seen := map[string]bool{}
	var merged []yamlPair
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		for k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		switch {
		case k.ShortTag() == "!!merge":
			more, err := mergedIn(v, what)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
			continue
		case k.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("line %d: a key of %s is no text", k.Line, what)
		case k.ShortTag() == "!!null":
			return nil, fmt.Errorf("line %d: a key of %s is null; put it in quotes if it is meant as text: %q", k.Line, what, k.Value)
		case seen[k.Value]:
			return nil, fmt.Errorf("line %d: %s has the key %q twice", k.Line, what, k.Value)
		}
		seen[k.Value] = true
		list = append(list, yamlPair{k.Value, k.Line, v})
	}
	for _, p := range merged {
		if !seen[p.key] {
			seen[p.key] = true
			list = append(list, p)
		}
	}
	return list, nil
}

// mergedIn are the pairs of a mapping, or of several, that another merges in.
func mergedIn(n *yaml.Node, what string) (list []yamlPair, err error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.SequenceNode {
		return membersOfMapping(n, what)
	}
	for _, one := range n.Content {
		more, err := membersOfMapping(one, what)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// peopleOf reads the users or the groups of a directory.
func peopleOf(p yamlPair, noun string) (map[string]map[string]any, error) {
	if p.value.ShortTag() == "!!null" {
		return nil, fmt.Errorf("line %d: %s is null, which would remove all there are; to have none write `%s: {}`", p.line, p.key, p.key)
	}
	list, err := membersOfMapping(p.value, p.key)
	if err != nil {
		return nil, err
	}
	people := make(map[string]map[string]any, len(list))
	for _, one := range list {
		if err := checkFileID(noun, one.key); err != nil {
			return nil, fmt.Errorf("line %d: %w", one.line, err)
		}
		what := fmt.Sprintf("%s %q", noun, one.key)
		value, err := yamlValue(one.value, what)
		if err != nil {
			return nil, err
		}
		attributes, ok := value.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("line %d: %s must have its attributes, such as %s", one.line, what, map[string]string{"user": "{userName: ada}", "group": "{displayName: Engineering}"}[noun])
		}
		people[one.key] = attributes
	}
	return people, nil
}

// checkFileID refuses keys that cannot be ids, and those with a type before the id.
func checkFileID(noun, id string) error {
	for _, typ := range []string{"user:", "group:"} {
		if rest, ok := strings.CutPrefix(id, typ); ok {
			return fmt.Errorf("%s %q: the key is the id alone, without the type; write %s", noun, id, rest)
		}
	}
	if id == tuple.Wildcard {
		return fmt.Errorf("%s %q: * stands for everybody, and is nobody's id", noun, id)
	}
	if err := (tuple.Object{Type: noun, ID: id}).Check(); err != nil {
		return fmt.Errorf("%s %q: %w", noun, id, err)
	}
	return nil
}

// yamlValue is a value as an attribute has it. No attribute is a number or a date:
// 007 and 2026-01-31 are text.
func yamlValue(n *yaml.Node, what string) (any, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		list, err := membersOfMapping(n, what)
		o := make(map[string]any, len(list))
		for _, p := range list {
			if err == nil {
				o[p.key], err = yamlValue(p.value, what+"."+p.key)
			}
		}
		return o, err
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			v, err := yamlValue(e, what)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!str", "!!int", "!!float", "!!timestamp":
		return n.Value, nil
	}
	return nil, fmt.Errorf("line %d: %s has a value of the kind %s; write text, true or false", n.Line, what, n.Tag)
}

// entries are the directory as it is sent.
func (f *directoryFile) entries(types identityTypes) (entries []*pb.DirectoryEntry, err error) {
	wire := func(noun, id string, attributes map[string]any) *structpb.Struct {
		s, failed := structpb.NewStruct(attributes)
		if failed != nil && err == nil {
			err = fmt.Errorf("%s %q: its attributes are not valid UTF-8", noun, id)
		}
		return s
	}
	for _, id := range slices.Sorted(maps.Keys(f.users)) {
		entries = append(entries, &pb.DirectoryEntry{Entry: &pb.DirectoryEntry_User{User: &pb.DirectoryUser{Id: id, Attributes: wire("user", id, f.users[id])}}})
	}
	var memberships []*pb.DirectoryEntry
	for _, id := range slices.Sorted(maps.Keys(f.groups)) {
		members, err := f.membersOf(id, types)
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", id, err)
		}
		for _, m := range members {
			memberships = append(memberships, &pb.DirectoryEntry{Entry: &pb.DirectoryEntry_Membership{Membership: &pb.Membership{Group: id, Member: m}}})
		}
		entries = append(entries, &pb.DirectoryEntry{Entry: &pb.DirectoryEntry_Group{Group: &pb.DirectoryGroup{Id: id, Attributes: wire("group", id, f.groups[id])}}})
	}
	return append(entries, memberships...), err
}

// membersOf takes the members out of a group's attributes, in the order in which
// they are sent.
func (f *directoryFile) membersOf(group string, types identityTypes) ([]*pb.Member, error) {
	given := f.groups[group]["members"]
	delete(f.groups[group], "members")
	list, isList := given.([]any)
	if given != nil && !isList {
		return nil, errors.New("members must be a list such as [user:ada, group:ops]")
	}
	texts := map[string]bool{}
	for _, m := range list {
		text, isText := m.(string)
		if !isText {
			return nil, errors.New("a member is no text; write user:ID or group:ID")
		}
		if texts[text] {
			return nil, fmt.Errorf("member %s is named twice", text)
		}
		texts[text] = true
	}
	members, err := parseMembers(slices.Sorted(maps.Keys(texts)), types)
	slices.SortStableFunc(members, compareMembers)
	for i, m := range members {
		if i > 0 && compareMembers(members[i-1], m) == 0 {
			return nil, fmt.Errorf("member %s is named twice", memberText(m))
		}
		if f.users[m.GetUser()] == nil && f.groups[m.GetGroup()] == nil {
			return nil, fmt.Errorf("its member %s is not in the directory", memberText(m))
		}
	}
	return members, err
}

// compareMembers orders members as a directory is sent: groups, then users, by their
// ids.
func compareMembers(a, b *pb.Member) int {
	if (a.GetGroup() == "") != (b.GetGroup() == "") {
		return cmp.Compare(a.GetUser(), b.GetUser()) // groups have none
	}
	return cmp.Or(cmp.Compare(a.GetGroup(), b.GetGroup()), cmp.Compare(a.GetUser(), b.GetUser()))
}

// checkNames refuses two users, or two groups, with one name that nobody shares.
func (f *directoryFile) checkNames() error {
	for _, k := range []struct {
		noun, attribute string
		people          map[string]map[string]any
		fold            func(string) string
		note            string
	}{
		{"users", "userName", f.users, scim.Fold, ", capitals or not"},
		{"users", "externalId", f.users, strings.Clone, ""},
		{"groups", "externalId", f.groups, strings.Clone, ""},
	} {
		of := map[string]string{}
		for _, id := range slices.Sorted(maps.Keys(k.people)) {
			for name, v := range k.people[id] {
				text, _ := v.(string)
				if scim.Fold(name) != scim.Fold(k.attribute) || text == "" {
					continue
				}
				if other, taken := of[k.fold(text)]; taken {
					return fmt.Errorf("the %s %q and %q have the same %s, %q%s; each needs its own", k.noun, other, id, k.attribute, text, k.note)
				}
				of[k.fold(text)] = id
			}
		}
	}
	return nil
}
