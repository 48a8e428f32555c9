package main

import (
	"encoding/json"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/structpb"
)

// attributeFlags are attributes of a user or group as flags give them.
type attributeFlags struct {
	userName, displayName, externalID string
	emails, others, unset             []string
}

func (g *attributeFlags) addUser(f *pflag.FlagSet) {
	f.StringVar(&g.userName, "user-name", "", "the name that the user signs in with; no two users share one")
	f.StringVar(&g.displayName, "display-name", "", "the name to show")
	f.StringVar(&g.externalID, "external-id", "", "the user's id where it comes from; no two users share one")
	f.StringArrayVar(&g.emails, "email", nil, "an e-mail address, for work; the first is the preferred one; again for more")
	f.StringArrayVar(&g.others, "attribute", nil, "NAME=VALUE, by SCIM's name; VALUE is JSON, such as name={\"givenName\":\"Ada\"}, or else text; again for more")
}

func (g *attributeFlags) addGroup(f *pflag.FlagSet) {
	f.StringVar(&g.displayName, "display-name", "", "the name to show")
	f.StringVar(&g.externalID, "external-id", "", "the group's id where it comes from; no two groups share one")
}

func (g *attributeFlags) addUnset(f *pflag.FlagSet) {
	f.StringArrayVar(&g.unset, "unset", nil, "the name of an attribute to take away; again for more")
}

// wire are the attributes that flags give.
func (g *attributeFlags) wire(f *pflag.FlagSet) (*structpb.Struct, error) {
	given := map[string]any{}
	set := func(name string, v any) error {
		if _, twice := given[name]; twice {
			return usagef("%s is given twice; give it once", name)
		}
		given[name] = v
		return nil
	}
	for flag, name := range map[string]string{"user-name": "userName", "display-name": "displayName", "external-id": "externalId"} {
		if f.Lookup(flag) != nil && f.Changed(flag) {
			given[name] = f.Lookup(flag).Value.String()
		}
	}
	if len(g.emails) > 0 {
		var list []any
		for n, address := range g.emails {
			if address == "" {
				return nil, usagef("--email is empty; to take all addresses away write --unset emails")
			}
			list = append(list, map[string]any{"value": address, "type": "work", "primary": n == 0})
		}
		given["emails"] = list
	}
	for _, text := range g.others {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--attribute %q is not NAME=VALUE", text)
		}
		var v any = value
		var parsed any
		err := json.Unmarshal([]byte(value), &parsed)
		if err != nil && strings.HasPrefix(value, "{") {
			return nil, usagef("--attribute %s: %s begins like JSON and is none: %v", name, value, err)
		}
		if err == nil && parsed == nil {
			return nil, usagef("--attribute %s gives nothing; to take it away write --unset %s, and for the word %s=\"null\"", text, name, name)
		}
		if err == nil {
			if _, number := parsed.(float64); !number { // no attribute is a number: 007 is text
				v = parsed
			}
		}
		if err := set(name, v); err != nil {
			return nil, err
		}
	}
	for _, name := range g.unset {
		if err := set(name, nil); err != nil {
			return nil, err
		}
	}
	return structpb.NewStruct(given)
}
