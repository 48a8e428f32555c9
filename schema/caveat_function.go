package schema

import (
	"fmt"
	"net/netip"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// ipAddressType is the CEL type of `ipaddress` parameters.
var ipAddressType = cel.OpaqueType("ipaddress")

// ipAddress is a value of type `ipaddress`.
type ipAddress netip.Addr

// ConvertToNative returns the address as a netip.Addr or as text.
func (a ipAddress) ConvertToNative(t reflect.Type) (any, error) {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return netip.Addr(a), nil
	case reflect.TypeFor[string]():
		return netip.Addr(a).String(), nil
	}
	return nil, fmt.Errorf("an ipaddress is no %v", t)
}

// ConvertToType implements type(a) and string(a).
func (a ipAddress) ConvertToType(t ref.Type) ref.Val {
	switch t.TypeName() {
	case ipAddressType.TypeName():
		return a
	case types.StringType.TypeName():
		return types.String(netip.Addr(a).String())
	case types.TypeType.TypeName():
		return ipAddressType
	}
	return types.NewErr("an ipaddress converts to string only")
}

// Equal compares addresses; a mapped IPv4 address is not the IPv4 address.
func (a ipAddress) Equal(other ref.Val) ref.Val {
	b, ok := other.(ipAddress)
	return types.Bool(ok && a == b)
}

// Type returns ipAddressType.
func (a ipAddress) Type() ref.Type { return ipAddressType }

// Value returns a netip.Addr.
func (a ipAddress) Value() any { return netip.Addr(a) }

// caveatFunctions are what caveats know beyond the standard library of CEL:
//
//	ipaddress.in_cidr(string) bool       is the address in that range?
//	map<any>.isSubtreeOf(map<any>) bool  is each key there, with an equal value,
//	                                     or, both being maps, a subtree of it?
func caveatFunctions() []cel.EnvOption {
	tree := cel.MapType(cel.StringType, cel.DynType)
	return []cel.EnvOption{
		cel.Function("in_cidr",
			cel.MemberOverload("ipaddress_in_cidr_string",
				[]*cel.Type{ipAddressType, cel.StringType}, cel.BoolType,
				cel.BinaryBinding(inCIDR))),
		cel.Function("isSubtreeOf",
			cel.MemberOverload("map_is_subtree_of_map",
				[]*cel.Type{tree, tree}, cel.BoolType,
				cel.BinaryBinding(isSubtreeOf))),
	}
}

// inCIDR follows netip: an IPv4 address in IPv6 form lies in no IPv4 range,
// an address with a zone in none at all.
func inCIDR(address, cidr ref.Val) ref.Val {
	addr, ok1 := address.(ipAddress)
	text, ok2 := cidr.(types.String)
	if !ok1 || !ok2 {
		return types.NoSuchOverloadErr()
	}
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		return types.WrapErr(errNoCIDR)
	}
	return types.Bool(prefix.Contains(netip.Addr(addr)))
}

func isSubtreeOf(sub, tree ref.Val) ref.Val {
	a, ok1 := sub.(traits.Mapper)
	b, ok2 := tree.(traits.Mapper)
	if !ok1 || !ok2 {
		return types.NoSuchOverloadErr()
	}
	for it := a.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		want, _ := a.Find(key)
		got, ok := b.Find(key)
		if !ok {
			return types.False
		}
		_, isTree1 := want.(traits.Mapper)
		_, isTree2 := got.(traits.Mapper)
		var same types.Bool
		if isTree1 && isTree2 {
			r := isSubtreeOf(want, got)
			if types.IsUnknownOrError(r) {
				return r
			}
			same = r.(types.Bool)
		} else {
			same = types.Equal(want, got) == types.True
		}
		if same == types.False {
			return types.False
		}
	}
	return types.True
}

// callCosts prices our own functions, and comparisons of lists and maps by all
// that they hold, where CEL counts only their length; nil leaves a call to the
// usual price.
type callCosts struct{}

// CallCost implements cost.ActualCostEstimator.
func (callCosts) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	switch function {
	case "isSubtreeOf":
		n := treeSize(args[0])
		return &n
	case operators.Equals, operators.NotEquals, operators.In:
		if !aggregate(args[0]) && (function != operators.In || !nested(args[1])) {
			return nil
		}
		n := treeSize(args[1])
		return &n
	case "in_cidr":
		n := uint64(1)
		if s, ok := args[1].(types.String); ok {
			n += uint64(len(s)) / 10
		}
		return &n
	}
	return nil
}

// aggregate reports whether v is a list or a map.
func aggregate(v ref.Val) bool {
	switch v.(type) {
	case traits.Mapper, traits.Lister:
		return true
	}
	return false
}

// nested reports whether v is a list that starts with a list or map.
func nested(v ref.Val) bool {
	list, ok := v.(traits.Lister)
	if !ok || list.Size() == types.IntZero {
		return false
	}
	return aggregate(list.Get(types.IntZero))
}

// treeSize counts the values in v, itself included: each may be compared once.
func treeSize(v ref.Val) uint64 {
	n := uint64(1)
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			child, _ := v.Find(it.Next())
			n += treeSize(child)
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			n += treeSize(it.Next())
		}
	case types.String:
		n += uint64(len(v)) / 10
	}
	return n
}
