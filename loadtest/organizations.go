package loadtest

import (
	"math/rand/v2"

	"github.com/pembadb/pemba/tuple"
)

const organizationsSchema = `
definition user {}

definition team {
  relation member: user | team#member
}

definition org {
  relation owner: user
  relation member: user
}

definition repo {
  relation org: org
  relation reader: user | team#member | org#member
  relation writer: user | team#member
  relation admin: user | team#member

  permission push = writer + admin + org->owner
  permission pull = reader + push
}
`

// organizations are a forest of teams and repositories. Each organization has a
// stretch of users, teams and repositories; its first two users own it.
type organizations struct {
	list  []organization
	teams lists   // users of each team
	up    []int32 // the team that holds a team; -1: none
	above lists   // teams of each user
	repos []repo
	// of the user asked about last: teams it is in
	user int
	in   map[int32]bool
}

type organization struct{ users, teams, repos int } // where each stretch ends

type repo struct {
	org                   int32
	reader, writer, admin sharee // a team as its complement
	internal              bool   // every member may read it
}

const owners = 2

func newOrganizations(size int, r *rand.Rand) *organizations {
	o := &organizations{user: -1}
	for made := 0; made < size; {
		made += o.organization(r)
	}
	o.above = o.teams.inverted(o.users())
	return o
}

// organization draws one and returns how many relationships it has.
func (o *organizations) organization(r *rand.Rand) int {
	var last organization
	if n := len(o.list); n > 0 {
		last = o.list[n-1]
	}
	n := 40 + r.IntN(400)
	x := organization{users: last.users + n, teams: last.teams + n/5, repos: last.repos + n}
	made := n + owners
	for t := last.teams; t < x.teams; t++ {
		var team []int32
		for range 2 + r.IntN(12) {
			team = append(team, int32(last.users+r.IntN(n)))
		}
		o.teams.add(team)
		made += len(o.teams.at(t))
		up := int32(-1)
		if t > last.teams && r.IntN(2) == 0 {
			up = int32(last.teams + r.IntN(t-last.teams))
			made++
		}
		o.up = append(o.up, up)
	}
	sharee := func() sharee {
		switch r.IntN(8) {
		case 0, 1:
			return sharee(last.users + r.IntN(n))
		case 2:
			return sharee(r.IntN(x.users)) // perhaps of another organization
		case 3:
			return nobody
		}
		return ^sharee(last.teams + r.IntN(x.teams-last.teams))
	}
	for range n {
		p := repo{org: int32(len(o.list)), reader: sharee(), writer: sharee(), admin: sharee(), internal: r.IntN(3) == 0}
		made++
		for _, s := range []bool{p.reader != nobody, p.writer != nobody, p.admin != nobody, p.internal} {
			if s {
				made++
			}
		}
		o.repos = append(o.repos, p)
	}
	o.list = append(o.list, x)
	return made
}

// first is where the stretches of an organization begin.
func (o *organizations) first(org int) organization {
	if org == 0 {
		return organization{}
	}
	return o.list[org-1]
}

func (o *organizations) Schema() string { return organizationsSchema }

func (o *organizations) relationships(put func(tuple.Object, string, tuple.Subject) bool) {
	going := true
	add := func(x tuple.Object, relation string, s tuple.Subject) { going = going && put(x, relation, s) }
	share := func(x tuple.Object, relation string, s sharee) {
		switch {
		case s == nobody:
		case s < 0:
			add(x, relation, of(object("team", int(^s)), "member"))
		default:
			add(x, relation, person(int(s)))
		}
	}
	for n := 0; n < len(o.list) && going; n++ {
		org, from, to := object("org", n), o.first(n), o.list[n]
		for u := from.users; u < to.users; u++ {
			add(org, "member", person(u))
			if u < from.users+owners {
				add(org, "owner", person(u))
			}
		}
		for t := from.teams; t < to.teams; t++ {
			for _, u := range o.teams.at(t) {
				add(object("team", t), "member", person(int(u)))
			}
			if o.up[t] >= 0 {
				add(object("team", int(o.up[t])), "member", of(object("team", t), "member"))
			}
		}
		for i := from.repos; i < to.repos; i++ {
			x, p := o.resource(i), o.repos[i]
			add(x, "org", tuple.Subject{Object: org})
			share(x, "reader", p.reader)
			share(x, "writer", p.writer)
			share(x, "admin", p.admin)
			if p.internal {
				add(x, "reader", of(org, "member"))
			}
		}
	}
}

func (o *organizations) users() int                  { return o.list[len(o.list)-1].users }
func (o *organizations) resources() int              { return len(o.repos) }
func (o *organizations) resource(i int) tuple.Object { return object("repo", i) }
func (o *organizations) permissions() []string       { return []string{"pull", "push"} }
func (o *organizations) share() string               { return "reader" }

func (o *organizations) shared(i int, r *rand.Rand) int {
	p := o.repos[i]
	for _, s := range []sharee{p.reader, p.writer, p.admin} {
		if s != nobody {
			if s < 0 {
				team := o.teams.at(int(^s))
				return int(team[r.IntN(len(team))])
			}
			return int(s)
		}
	}
	return o.neighbour(i, r)
}

func (o *organizations) neighbour(i int, r *rand.Rand) int {
	org := int(o.repos[i].org)
	from, to := o.first(org).users, o.list[org].users
	return from + r.IntN(to-from)
}

func (o *organizations) has(i, p, u int) bool {
	x := o.repos[i]
	from, to := o.first(int(x.org)).users, o.list[x.org].users
	if u >= from && u < from+owners || o.is(u, x.writer) || o.is(u, x.admin) {
		return true
	}
	return p == 0 && (o.is(u, x.reader) || x.internal && u >= from && u < to)
}

// is reports whether u is s or in it.
func (o *organizations) is(u int, s sharee) bool {
	if s >= 0 {
		return int(s) == u && s != nobody
	}
	if o.user != u {
		o.user, o.in = u, map[int32]bool{}
		if u < o.users() {
			for _, t := range o.above.at(u) {
				for ; t >= 0 && !o.in[t]; t = o.up[t] {
					o.in[t] = true
				}
			}
		}
	}
	return o.in[int32(^s)]
}
