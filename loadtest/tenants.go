package loadtest

import (
	"math/rand/v2"
	"slices"

	"github.com/pembadb/pemba/tuple"
)

const tenantsSchema = `
definition user {}

definition tenant {
  relation admin: user
  relation member: user
}

definition team {
  relation tenant: tenant
  relation member: user
}

definition project {
  relation tenant: tenant
  relation viewer: user | team#member
  relation editor: user | team#member
  relation open: tenant#member

  permission edit = editor + tenant->admin
  permission view = viewer + open + edit
}
`

// tenants are many small worlds: each has 30 users, the first of them its
// administrator, 4 teams and 20 projects.
type tenants struct {
	teams    lists // users of each team
	projects []project
}

const (
	tenantUsers    = 30
	tenantTeams    = 4
	tenantProjects = 20
)

type project struct {
	viewer, editor sharee // a team as its complement
	open           bool
}

func newTenants(size int, r *rand.Rand) *tenants {
	t := &tenants{}
	for made := 0; made < size; {
		first := t.users()
		made += tenantUsers + 1 // members and the administrator
		for range tenantTeams {
			var team []int32
			for range 3 + r.IntN(6) {
				team = append(team, int32(first+r.IntN(tenantUsers)))
			}
			t.teams.add(team)
			made += 1 + len(t.teams.at(t.teams.len()-1))
		}
		sharee := func() sharee {
			if r.IntN(2) == 0 {
				return sharee(first + r.IntN(tenantUsers))
			}
			return ^sharee(t.teams.len() - 1 - r.IntN(tenantTeams))
		}
		for range tenantProjects {
			p := project{viewer: sharee(), editor: sharee(), open: r.IntN(5) == 0}
			made += 3
			if p.open {
				made++
			}
			t.projects = append(t.projects, p)
		}
	}
	return t
}

func (t *tenants) Schema() string { return tenantsSchema }

func (t *tenants) relationships(put func(tuple.Object, string, tuple.Subject) bool) {
	going := true
	add := func(o tuple.Object, relation string, s tuple.Subject) { going = going && put(o, relation, s) }
	to := func(s sharee) tuple.Subject {
		if s < 0 {
			return of(object("team", int(^s)), "member")
		}
		return person(int(s))
	}
	for n := 0; n < t.resources()/tenantProjects && going; n++ {
		tenant := object("tenant", n)
		add(tenant, "admin", person(n*tenantUsers))
		for u := range tenantUsers {
			add(tenant, "member", person(n*tenantUsers+u))
		}
		for i := n * tenantTeams; i < (n+1)*tenantTeams; i++ {
			add(object("team", i), "tenant", tuple.Subject{Object: tenant})
			for _, u := range t.teams.at(i) {
				add(object("team", i), "member", person(int(u)))
			}
		}
		for i := n * tenantProjects; i < (n+1)*tenantProjects; i++ {
			o, p := t.resource(i), t.projects[i]
			add(o, "tenant", tuple.Subject{Object: tenant})
			add(o, "viewer", to(p.viewer))
			add(o, "editor", to(p.editor))
			if p.open {
				add(o, "open", of(tenant, "member"))
			}
		}
	}
}

func (t *tenants) users() int                  { return len(t.projects) / tenantProjects * tenantUsers }
func (t *tenants) resources() int              { return len(t.projects) }
func (t *tenants) resource(i int) tuple.Object { return object("project", i) }
func (t *tenants) permissions() []string       { return []string{"view", "edit"} }
func (t *tenants) share() string               { return "viewer" }

func (t *tenants) shared(i int, _ *rand.Rand) int {
	if s := t.projects[i].viewer; s >= 0 {
		return int(s)
	}
	return int(t.teams.at(int(^t.projects[i].viewer))[0])
}

func (t *tenants) neighbour(i int, r *rand.Rand) int {
	return i/tenantProjects*tenantUsers + r.IntN(tenantUsers)
}

func (t *tenants) has(i, p, u int) bool {
	first, x := i/tenantProjects*tenantUsers, t.projects[i]
	is := func(s sharee) bool {
		if s >= 0 {
			return int(s) == u
		}
		return slices.Contains(t.teams.at(int(^s)), int32(u))
	}
	if u == first || is(x.editor) {
		return true
	}
	return p == 0 && (is(x.viewer) || x.open && u >= first && u < first+tenantUsers)
}
