package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/fault"
)

func TestNetworkOf(t *testing.T) {
	for network, addrs := range map[string]string{
		public:    "193.99.144.80 2a02:2e0:3fe:1001:7777:772e:2:85 ::ffff:193.99.144.80 1.1.1.1 223.255.255.255 100.63.255.255 100.128.0.0 172.32.0.0 2001:200::1",
		Loopback:  "127.0.0.1 127.8.8.8 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1",
		Private:   "10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 fc00::1 fd12::1 fec0::1 ::ffff:10.0.0.1",
		LinkLocal: "169.254.169.254 fe80::1%eth0 febf::1 ::ffff:169.254.169.254",
		CGNAT:     "100.64.0.1 100.127.255.255",
		NAT64:     "64:ff9b::a00:1 64:ff9b::193.99.144.80",
		tunnel:    "64:ff9b:1::a00:1 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 2002:a00:1:: 2001:0:1::1 ::10.0.0.1 ::ffff:0:a00:1 192.88.99.1",
		Reserved:  "192.0.0.8 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.7 240.0.0.1 255.255.255.254 2001:2::1 2001:20::1 2001:db8::1 3fff::1 100::1 100:0:0:1::1 5f00::1 4000::1 64:ff9b:2::1 ::1:0:0:0",
		never:     "0.0.0.0 0.1.2.3 224.0.0.1 239.1.1.1 255.255.255.255 :: ff02::1 ff0e::1 ::ffff:0.0.0.0",
	} {
		for _, s := range strings.Fields(addrs) {
			if got := networkOf(netip.MustParseAddr(s).Unmap().WithZone("")); got != network {
				t.Errorf("%s is in %s, %s was expected", s, got, network)
			}
		}
	}
	if got := networkOf(netip.Addr{}); got != never {
		t.Errorf("no address at all is in %s", got)
	}
}

// What each setting opens, and that it opens nothing else.
func TestAllowed(t *testing.T) {
	samples := strings.Fields("127.0.0.1 ::1 10.1.2.3 fd12::1 169.254.169.254 fe80::1 100.64.0.1 64:ff9b::193.99.144.80 64:ff9b::10.1.2.3 64:ff9b::127.0.0.1 64:ff9b:1::a01:203 2002:a01:203:: 192.0.2.1 0.0.0.0 224.0.0.1 ff02::1 ::")
	for _, c := range []struct{ setting, opens string }{
		{"", ""},
		{"loopback", "127.0.0.1 ::1"},
		{"private", "10.1.2.3 fd12::1"},
		{"link-local", "169.254.169.254 fe80::1"},
		{"cgnat", "100.64.0.1"},
		{"nat64", "64:ff9b::193.99.144.80"},
		{"nat64 private", "64:ff9b::193.99.144.80 64:ff9b::10.1.2.3 10.1.2.3 fd12::1"},
		{"reserved", "192.0.2.1"},
		{"10.0.0.0/8", "10.1.2.3"},
		{"10.1.2.4", ""},
		{"10.1.2.3", "10.1.2.3"},
		{"nat64 10.1.2.3", "64:ff9b::193.99.144.80 64:ff9b::10.1.2.3 10.1.2.3"},
		{"64:ff9b:1::/48", "64:ff9b:1::a01:203"},
		{"2002::/16", "2002:a01:203::"},
		{"0.0.0.0/0", "127.0.0.1 10.1.2.3 169.254.169.254 100.64.0.1 192.0.2.1"},
		{"loopback private link-local cgnat nat64 reserved", "127.0.0.1 ::1 10.1.2.3 fd12::1 169.254.169.254 fe80::1 100.64.0.1 64:ff9b::193.99.144.80 64:ff9b::10.1.2.3 64:ff9b::127.0.0.1 192.0.2.1"},
	} {
		n, err := Parse(strings.Fields(c.setting))
		if err != nil {
			t.Fatal(err)
		}
		if n.None() != (c.setting == "") {
			t.Errorf("[%s] says that it opens nothing: %t", c.setting, n.None())
		}
		opens := map[string]bool{}
		for _, a := range strings.Fields(c.opens) {
			opens[a] = true
		}
		for _, a := range samples {
			err := Dialer{Allowed: n}.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(a), 443).String(), nil)
			if (err == nil) != opens[a] {
				t.Errorf("[%s] lets %s through: %t", c.setting, a, err == nil)
			}
		}
	}
}

func TestParseComplains(t *testing.T) {
	for setting, want := range map[string]string{
		"privat": "neither one of", "": "neither one of", "10.0.0.0/33": "neither one of", "10.1.2.3/8": "10.0.0.0/8 is the network",
		"fe80::1%eth0": "neither one of", "::ffff:10.0.0.0/104": "write it as IPv4", "::ffff:10.0.0.1": "write it as IPv4", "tunnel": "neither one of", "never": "neither one of",
		"public": "neither one of", "Private": "neither one of", "example.org": "neither one of",
	} {
		if _, err := Parse([]string{"private", setting}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %q was expected", setting, err, want)
		}
	}
}

// Plain text goes to named networks only, whatever the name server says, and not
// through a translator to the public.
func TestOnlyAllowed(t *testing.T) {
	n, err := Parse([]string{Private, NAT64})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.0.0.1:80": true, "193.99.144.80:80": false, "127.0.0.1:80": false, "[64:ff9b::c163:9050]:80": false, "[64:ff9b::a00:1]:80": true} {
		err := Dialer{Allowed: n, OnlyAllowed: true}.control("tcp", addr, nil)
		if (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// listen counts who comes to an address.
func listen(t *testing.T, host string) (port string, came *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", host)
	if err != nil {
		adaptertest.Missing(t, fmt.Sprintf("this machine cannot listen on %s: %v", host, err))
	}
	t.Cleanup(func() { _ = l.Close() })
	came = &atomic.Int64{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, came
}

// nameServer answers every question for A with the next of its answers.
func nameServer(t *testing.T, answers ...[]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for asked := 0; ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Type == dnsmessage.TypeA {
				for _, a := range answers[asked%len(answers)] {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
				}
				asked++
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// A name server that changes its answer from one question to the next never
// brings a connection to the address that is not allowed.
func TestRebinding(t *testing.T) {
	port, good := listen(t, "127.0.0.2:0")
	_, evil := listen(t, "127.0.0.1:"+port)
	n, err := Parse([]string{"127.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	d := Dialer{Allowed: n, Timeout: 10 * time.Second, Resolver: nameServer(t, []string{"127.0.0.2"}, []string{"127.0.0.1"}, []string{"127.0.0.1", "127.0.0.2"}, []string{"127.0.0.2", "127.0.0.1"})}
	connected, refused := 0, 0
	for range 40 {
		c, err := d.DialContext(t.Context(), "tcp", "fachverfahren.example.:"+port)
		if err == nil {
			connected++
			if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != "127.0.0.2" {
				t.Errorf("a connection leads to %s", host)
			}
			_ = c.Close()
			continue
		}
		refused++
		if f := Fault(err); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonMisconfigured || strings.Contains(f.Error(), "127.") {
			t.Errorf("a refused address is classed as %v", f)
		}
	}
	if connected != 30 || refused != 10 {
		t.Errorf("%d connections and %d refusals, 30 and 10 were expected: of two addresses the allowed one is taken", connected, refused)
	}
	if evil.Load() != 0 || good.Load() == 0 {
		t.Errorf("%d came to the address that is not allowed, %d to the other", evil.Load(), good.Load())
	}
}

func TestFault(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	loopback, err := Parse([]string{Loopback})
	if err != nil {
		t.Fatal(err)
	}
	port, came := listen(t, "[::1]:0")
	for _, c := range []struct {
		name, address string
		allowed       Networks
		reason        fault.Reason
	}{
		{"nobody listens", closed.Addr().String(), loopback, fault.ReasonUnreachable},
		{"no such name", "gibt-es-nicht.invalid:443", loopback, fault.ReasonUnreachable},
		{"no port", "gibt-es-nicht.invalid", loopback, fault.ReasonUnreachable},
		{"loopback", "[::1]:" + port, Networks{}, fault.ReasonMisconfigured},
		{"loopback by name", "localhost:" + port, Networks{}, fault.ReasonMisconfigured},
		{"mapped", "[::ffff:127.0.0.1]:" + port, Networks{}, fault.ReasonMisconfigured},
		{"the machine itself", "0.0.0.0:" + port, loopback, fault.ReasonMisconfigured},
		{"the machine itself, IPv6", "[::]:" + port, loopback, fault.ReasonMisconfigured},
		{"no host", ":" + port, loopback, fault.ReasonMisconfigured},
	} {
		conn, err := Dialer{Allowed: c.allowed, Timeout: 10 * time.Second}.DialContext(t.Context(), "tcp", c.address)
		if err == nil {
			_ = conn.Close()
		}
		if f := Fault(err); f == nil || f.Class != fault.Destination || f.Reason != c.reason {
			t.Errorf("%s: %v (%v)", c.name, f, err)
		}
	}
	if came.Load() != 0 {
		t.Errorf("%d connections came to an address that was never allowed", came.Load())
	}
	if _, err := (Dialer{Allowed: loopback}).DialContext(t.Context(), "unix", "/run/docker.sock"); err == nil {
		t.Error("a socket of the machine is no host")
	}
	if f := Fault(errors.New("later")); f != nil {
		t.Errorf("an error of something else became %v", f)
	}
}
