package http

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// errAddress means that the host's address is one that only allow_private opens.
var errAddress = errors.New("the address is not a public one")

// Ranges that netip does not name. NAT64 prefixes are on the list because they
// lead to IPv4 addresses that were not looked at.
var reserved = prefixes(
	"0.0.0.0/8",       // this host
	"100.64.0.0/10",   // carrier-grade NAT
	"192.0.0.0/24",    // IETF protocol assignments
	"192.0.2.0/24",    // documentation
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"240.0.0.0/4",     // reserved, broadcast
	"64:ff9b::/96",    // NAT64
	"64:ff9b:1::/48",  // NAT64, local use
	"2001::/32",       // Teredo
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4
	"::/96",           // IPv4-compatible
	"100::/64",        // discard
	"fec0::/10",       // site-local
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// public says whether an address may be spoken to without allow_private.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// dialer looks at each address after the name was resolved and before a packet
// is sent: a name may lead anywhere, and somewhere else the next time.
func dialer(allowPrivate bool, timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	if !allowPrivate {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !public(ap.Addr()) {
				return errAddress
			}
			return nil
		}
	}
	return d.DialContext
}
