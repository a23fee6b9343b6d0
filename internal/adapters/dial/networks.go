package dial

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The names of networks that are refused unless they are allowed.
const (
	Private   = "private"    // RFC 1918, unique local (RFC 4193), site-local
	Loopback  = "loopback"   // 127.0.0.0/8, ::1
	LinkLocal = "link-local" // 169.254.0.0/16 (cloud metadata too), fe80::/10
	CGNAT     = "cgnat"      // 100.64.0.0/10, RFC 6598
	NAT64     = "nat64"      // 64:ff9b::/96, RFC 6052; the IPv4 address within is judged as well
	Reserved  = "reserved"   // documentation, benchmarking, protocol assignments, not yet given out
)

var names = []string{Private, Loopback, LinkLocal, CGNAT, NAT64, Reserved}

// What no name opens: the local NAT64 prefix and tunnels lead to an IPv4 address
// that cannot be read with certainty from the IPv6 address; only a prefix of its
// own allows them.
const tunnel = "tunnel"

// What nothing opens: no host has such an address, and a socket takes 0.0.0.0 for
// the machine itself.
const never = "never"

const public = "public"

// The IANA special-purpose registries (RFC 6890) and what has changed since, in
// the order they are asked: the first that contains the address names it.
var ranges = []struct {
	network  string
	prefixes []netip.Prefix
}{
	{never, prefixes("0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32")},
	{Loopback, prefixes("127.0.0.0/8", "::1/128")},
	{LinkLocal, prefixes("169.254.0.0/16", "fe80::/10")},
	{Private, prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")},
	{CGNAT, prefixes("100.64.0.0/10")},
	{NAT64, prefixes("64:ff9b::/96")},
	{tunnel, prefixes(
		"64:ff9b:1::/48",  // NAT64 of local use, RFC 8215: where the IPv4 address stands in it is the network's secret
		"2002::/16",       // 6to4
		"2001::/32",       // Teredo
		"::/96",           // IPv4-compatible
		"::ffff:0:0:0/96", // IPv4-translated, RFC 2765
		"192.88.99.0/24",  // 6to4 relays
	)},
	{Reserved, prefixes(
		"192.0.0.0/24",    // IETF protocol assignments
		"192.0.2.0/24",    // documentation
		"198.18.0.0/15",   // benchmarking
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"240.0.0.0/4",     // never given out
		"2001::/23",       // IETF protocol assignments, benchmarking, ORCHID
		"2001:db8::/32",   // documentation
		"3fff::/20",       // documentation, RFC 9637
	)},
	{public, prefixes("0.0.0.0/0", "2000::/3")},
	{Reserved, prefixes("::/0")}, // IPv6 that nobody has been given yet
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// networkOf names the network of an address without zone, IPv4 unmapped.
func networkOf(a netip.Addr) string {
	for _, r := range ranges {
		if slices.ContainsFunc(r.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return r.network
		}
	}
	return never // not an address at all
}

// Networks are those that are not public and allowed all the same. The zero value
// allows none.
type Networks struct {
	names    []string
	prefixes []netip.Prefix
}

// Parse reads names of networks, prefixes ("10.20.0.0/16") and addresses. The
// error says which one is wrong.
func Parse(list []string) (Networks, error) {
	var n Networks
	for _, s := range list {
		if slices.Contains(names, s) {
			n.names = append(n.names, s)
			continue
		}
		p, err := parsePrefix(s)
		if err != nil {
			return Networks{}, err
		}
		n.prefixes = append(n.prefixes, p)
	}
	return n, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is neither one of %s nor a network such as 10.20.0.0/16", s, strings.Join(names, ", "))
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is an IPv4 network within IPv6; write it as IPv4", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q names a host and a network at once; %s is the network", s, p.Masked())
	}
	return p, nil
}

// None says that nothing is allowed beyond public addresses.
func (n Networks) None() bool { return len(n.names) == 0 && len(n.prefixes) == 0 }

// judge says which network an address is in, and whether it is among those
// allowed. A public address is never among them unless a prefix contains it.
func (n Networks) judge(a netip.Addr) (network string, allowed bool) {
	a = a.Unmap().WithZone("")
	network = networkOf(a)
	switch {
	case network == never:
		return network, false
	case slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(a) }):
		return network, true
	case network == NAT64 && slices.Contains(n.names, NAT64):
		b := a.As16()
		return n.judge(netip.AddrFrom4([4]byte(b[12:]))) // RFC 6052 section 2.2
	}
	return network, slices.Contains(n.names, network)
}

// AddressError says that an address is not one to be spoken to. It does not tell
// the address: a name server wrote it.
type AddressError struct{ network string }

// Error implements error.
func (e *AddressError) Error() string {
	switch e.network {
	case never:
		return "the host's address is none that can be spoken to"
	case public:
		return "the host's address is a public one; in plain text only those that allow_networks names are spoken to"
	case tunnel:
		return "the host's address is one of a tunnel or translator; only its own prefix in allow_networks would allow it"
	}
	return "the host's address is not a public one; " + e.network + " in allow_networks would allow it"
}
