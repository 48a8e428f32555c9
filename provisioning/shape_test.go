package provisioning

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/pembadb/pemba/provisioning/scim"
)

// An id that is taken from an attribute must be one that a request can name.
func TestAnIDFromAnAttributeCanBeNamed(t *testing.T) {
	d, _ := hired(t, `// pemba:users id=userName
definition user {}
// pemba:groups id=externalId
definition group { relation member: user | group#member }`)
	client := SCIM{d}
	for _, name := range []string{".", "..", ".search", "*", "a b"} {
		_, err := client.Create(t.Context(), scim.User, []scim.Draft{{Attributes: scim.Object{"userName": name}}})
		var refused *scim.Error
		if !errors.As(err, &refused) || refused.Status != 400 || refused.Type != "invalidValue" || !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"...", ".searching", "a/b"} {
		if made, err := client.Create(t.Context(), scim.User, []scim.Draft{{Attributes: scim.Object{"userName": name}}}); err != nil || made[0].ID != name {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := client.Create(t.Context(), scim.Group, []scim.Draft{{Attributes: scim.Object{"displayName": "G"}}}); err == nil || !strings.Contains(err.Error(), "a Group needs an externalId here") {
		t.Errorf("a group without its external id: %v", err)
	}
}
