// Package dial is how adapters reach a host: it looks at every address after the
// name was resolved and before a packet is sent, so that no destination's name,
// and nobody who answers for that name, leads into the router's own networks.
//
// The check stands in the socket's own control function. What is looked at is
// what is connected to, for every address of a name and at every attempt; a name
// server that answers differently the second time gains nothing.
//
// Its limit: a translator's prefix out of the network's own public addresses
// (RFC 6052 section 2.2, "network-specific") looks like any other.
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
)

// FieldName is the setting that every adapter of this kind has; see Field.
const FieldName = "allow_networks"

// Field is the setting.
func Field() spec.Field {
	return spec.Field{Name: FieldName, Type: spec.List, Example: "[private, 100.64.3.0/24]",
		Doc: "Networks that may be spoken to although they are not public: `private` (RFC 1918, fc00::/7), `loopback`, `link-local`, `cgnat` (100.64.0.0/10), `nat64` (64:ff9b::/96, when the IPv4 address within is allowed too), `reserved`, or prefixes such as `10.20.0.0/16`. Tunnels (6to4, Teredo, 64:ff9b:1::/48) are opened by a prefix only. Names are checked after they are resolved, at every connection."}
}

// Check complains of what the setting says.
func Check(v spec.Values) []spec.Complaint {
	if _, err := Parse(v.List(FieldName)); err != nil {
		return []spec.Complaint{{Field: FieldName, Text: err.Error()}}
	}
	return nil
}

// Allowed returns the setting's networks; none where Check complains.
func Allowed(v spec.Values) Networks {
	n, _ := Parse(v.List(FieldName))
	return n
}

// Dialer connects to hosts over TCP. It keeps nothing and is safe for concurrent
// use.
type Dialer struct {
	// Allowed are networks that may be spoken to beside public addresses.
	Allowed Networks
	// OnlyAllowed refuses public addresses too; for protocols in plain text, which
	// are taken in named networks only.
	OnlyAllowed bool
	// Timeout bounds resolving and connecting together; 0 means the context's time.
	Timeout time.Duration
	// Resolver is nil for the system's.
	Resolver *net.Resolver
}

// DialContext connects to "host:port"; network is "tcp", "tcp4" or "tcp6". An
// address that is refused is an *AddressError within the error; of several
// addresses the refused ones are passed over. Fault classes the error.
func (d Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	nd := net.Dialer{Timeout: d.Timeout, KeepAlive: 30 * time.Second, Resolver: d.Resolver, Control: d.control}
	return nd.DialContext(ctx, network, address)
}

func (d Dialer) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &AddressError{never}
	}
	network, allowed := d.Allowed.judge(ap.Addr())
	if allowed || network == public && !d.OnlyAllowed {
		return nil
	}
	return &AddressError{network}
}

// Fault classes an error of DialContext: nil where err is none of them (an error
// after the connection was made). A cancelled context is not looked for.
func Fault(err error) *fault.Error {
	if a, ok := errors.AsType[*AddressError](err); ok {
		return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "%s", a.Error())
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return fault.Wrap(err, fault.Destination, fault.ReasonUnreachable, "the host's name cannot be resolved")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fault.Wrap(err, fault.Destination, fault.ReasonUnreachable, "no connection to the host")
	}
	return nil
}
