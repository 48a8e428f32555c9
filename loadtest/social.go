package loadtest

import (
	"math/rand/v2"
	"slices"

	"github.com/pembadb/pemba/tuple"
)

const socialSchema = `
definition user {}

definition profile {
  relation owner: user
  relation friend: user
  relation follower: user
  relation blocked: user
}

definition community {
  relation member: user | community#member
  relation banned: user

  permission take_part = member - banned
}

definition post {
  relation author: profile
  relation audience: user | user:* | profile#friend | profile#follower | community#take_part

  permission view = (audience + author->owner) - author->blocked
}
`

// social is people, what they have to do with one another, communities, and
// posts. User and profile have the same number.
type social struct {
	friends, followers, blocked lists
	members, banned             lists // of communities, in order of number
	parts                       []int32
	posts                       []post
}

type audience uint8

const (
	friendsOnly audience = iota
	followersOnly
	oneCommunity
	public
)

type post struct {
	author    int32
	community int32
	audience  audience
}

func newSocial(size int, r *rand.Rand) *social {
	s := &social{}
	people := size / 20
	made := 0
	some := func(n int) []int32 {
		list := make([]int32, n)
		for i := range list {
			list[i] = int32(r.IntN(people))
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	put := func(l *lists, list []int32) {
		l.all = append(l.all, list...)
		l.ends = append(l.ends, int32(len(l.all)))
		made += len(list)
	}
	for range people {
		made++ // owner
		put(&s.friends, some(r.IntN(6)))
		put(&s.followers, some(r.IntN(8)))
		put(&s.blocked, some(r.IntN(10)/9))
	}
	// The first three communities hold a tenth of all people each.
	for c := range max(4, people/200) {
		n := 5 + r.IntN(100)
		if c < 3 {
			n = people / 10
		}
		put(&s.members, some(n))
		put(&s.banned, some(r.IntN(4)))
		// Every fourth is part of an earlier one: its members are members there.
		part := int32(-1)
		if c > 0 && c%4 == 0 {
			part = int32(r.IntN(c))
			made++
		}
		s.parts = append(s.parts, part)
	}
	for made < size {
		p := post{author: int32(r.IntN(people)), community: int32(r.IntN(s.members.len()))}
		if r.IntN(4) == 0 {
			p.community = int32(r.IntN(3))
		}
		p.audience = audience(r.IntN(4))
		made += 2
		s.posts = append(s.posts, p)
	}
	return s
}

func (s *social) Schema() string { return socialSchema }

func (s *social) relationships(put func(tuple.Object, string, tuple.Subject) bool) {
	going := true
	add := func(o tuple.Object, relation string, subjects ...tuple.Subject) {
		for _, x := range subjects {
			going = going && put(o, relation, x)
		}
	}
	people := func(list []int32) []tuple.Subject {
		out := make([]tuple.Subject, len(list))
		for i, u := range list {
			out[i] = person(int(u))
		}
		return out
	}
	for u := 0; u < s.users() && going; u++ {
		o := object("profile", u)
		add(o, "owner", person(u))
		add(o, "friend", people(s.friends.at(u))...)
		add(o, "follower", people(s.followers.at(u))...)
		add(o, "blocked", people(s.blocked.at(u))...)
	}
	for c := 0; c < s.members.len() && going; c++ {
		o := object("community", c)
		add(o, "member", people(s.members.at(c))...)
		add(o, "banned", people(s.banned.at(c))...)
		if s.parts[c] >= 0 {
			add(object("community", int(s.parts[c])), "member", of(o, "member"))
		}
	}
	for i := 0; i < len(s.posts) && going; i++ {
		p := s.posts[i]
		author := object("profile", int(p.author))
		add(s.resource(i), "author", tuple.Subject{Object: author})
		switch p.audience {
		case friendsOnly:
			add(s.resource(i), "audience", of(author, "friend"))
		case followersOnly:
			add(s.resource(i), "audience", of(author, "follower"))
		case oneCommunity:
			add(s.resource(i), "audience", of(object("community", int(p.community)), "take_part"))
		case public:
			add(s.resource(i), "audience", everybody)
		}
	}
}

func (s *social) users() int                  { return s.friends.len() }
func (s *social) resources() int              { return len(s.posts) }
func (s *social) resource(i int) tuple.Object { return object("post", i) }
func (s *social) permissions() []string       { return []string{"view"} }
func (s *social) share() string               { return "audience" }

func (s *social) shared(i int, _ *rand.Rand) int { return int(s.posts[i].author) }

func (s *social) neighbour(i int, r *rand.Rand) int {
	p := s.posts[i]
	list := s.friends.at(int(p.author))
	switch p.audience {
	case followersOnly:
		list = s.followers.at(int(p.author))
	case oneCommunity:
		list = s.members.at(int(p.community))
	}
	if len(list) == 0 {
		return r.IntN(s.users())
	}
	return int(list[r.IntN(len(list))])
}

func (s *social) has(i, _, u int) bool {
	p := s.posts[i]
	in := func(l *lists, i int32) bool {
		_, found := slices.BinarySearch(l.at(int(i)), int32(u))
		return found
	}
	if in(&s.blocked, p.author) {
		return false
	}
	if int(p.author) == u {
		return true
	}
	switch p.audience {
	case friendsOnly:
		return in(&s.friends, p.author)
	case followersOnly:
		return in(&s.followers, p.author)
	case oneCommunity:
		return s.member(p.community, u) && !in(&s.banned, p.community)
	}
	return true
}

// member reports whether u is a member of a community, or of a part of it.
func (s *social) member(community int32, u int) bool {
	for c := range s.members.len() {
		if _, found := slices.BinarySearch(s.members.at(c), int32(u)); !found {
			continue
		}
		for up := int32(c); up >= 0; up = s.parts[up] {
			if up == community {
				return true
			}
		}
	}
	return false
}
