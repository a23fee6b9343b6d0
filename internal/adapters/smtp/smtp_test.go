package smtp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/smtp"
	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

func open(t *testing.T, deps spec.Deps, settings string, args ...any) spec.Adapter {
	t.Helper()
	return adaptertest.Open(t, smtp.Kind(), deps, fmt.Sprintf(settings, args...))
}

// base are settings that work, over STARTTLS with a verified certificate.
func (x *exim) base() string {
	return fmt.Sprintf("host: 127.0.0.1\nport: %d\nca_file: %s\nallow_networks: [loopback]\nfrom: weiche@land.test\nto: [bauamt@bauamt.test]\nusername: router\npassword_file: password\n", x.port, x.ca.File)
}

func secret(t *testing.T, deps spec.Deps, text string) {
	t.Helper()
	path := filepath.Join(deps.WithDefaults().SecretsDir, "password")
	must(t, os.WriteFile(path+".new", []byte(text+"\n"), 0o600))
	must(t, os.Rename(path+".new", path))
}

func TestConformance(t *testing.T) {
	adaptertest.Suite{
		Repeats: true,
		Open: func(t *testing.T, c adaptertest.Condition, deps spec.Deps) adaptertest.Door {
			x := startExim(t)
			secret(t, deps, eximPassword)
			door := adaptertest.Door{Received: x.received, Secrets: []string{eximPassword}}
			settings := x.base()
			quoting := adaptertest.Canary + " " + eximPassword // an answer that quotes everything
			switch c {
			case adaptertest.RefusesForGood:
				x.answer("data", "554 5.6.0 "+quoting)
			case adaptertest.RefusesForNow:
				x.answer("data", "451 4.3.0 "+quoting)
			case adaptertest.AtFault:
				x.password("another")
			case adaptertest.Slow:
				x.answer("data", "wait")
				begun := make(chan struct{}, 10)
				door.Begun = begun
				door.Delivery = func() *submission.Delivery {
					d := adaptertest.NewDelivery([]byte("Anlage"))
					from := d.Attachments[0].Open
					d.Attachments[0].Open = func() (io.ReadCloser, error) { begun <- struct{}{}; return from() }
					return d
				}
			case adaptertest.CutsOff:
				r := newRelay(t, addr(x.port), cutUpstream(200_000))
				settings = strings.Replace(settings, fmt.Sprintf("port: %d", x.port), fmt.Sprintf("port: %d", r), 1)
				door.Delivery = func() *submission.Delivery { return adaptertest.NewDelivery(make([]byte, 1<<20)) }
				t.Cleanup(func() {
					if got := x.files(); len(got) != 0 {
						t.Errorf("%d mails came out of a transfer that was cut off", len(got))
					}
				})
			case adaptertest.RotatesSecret:
				n := 0
				door.Rotate = func() {
					n++
					p := fmt.Sprintf("Geheimnis Nummer %d", n)
					secret(t, deps, p)
					x.password(p)
				}
				door.Secrets = append(door.Secrets, "Geheimnis Nummer")
			}
			door.Adapter = open(t, deps, "%s", settings)
			return door
		},
	}.Run(t)
}

// newRelay passes bytes between a client and the server; each connection's two
// directions go through what cut makes of them.
func newRelay(t *testing.T, to string, cut func(up, down net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = client.Close() }()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer func() { _ = server.Close() }()
				cut(client, server)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// cutUpstream closes both ends once the client has sent n bytes.
func cutUpstream(n int64) func(client, server net.Conn) {
	return func(client, server net.Conn) {
		go func() { _, _ = io.Copy(client, server) }()
		_, _ = io.CopyN(server, client, n)
	}
}

// cutAnswer passes everything but the server's answer to the message, which is
// seen in plain text: the client learns nothing, the server has it.
func cutAnswer(client, server net.Conn) {
	ended := make(chan struct{})
	go func() {
		buf := make([]byte, 64<<10)
		var tail []byte
		for {
			n, err := client.Read(buf)
			if n > 0 {
				tail = append(tail, buf[:n]...)
				if bytes.HasSuffix(tail, []byte("\r\n.\r\n")) {
					close(ended)
				}
				tail = tail[max(0, len(tail)-5):]
				_, _ = server.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		select {
		case <-ended:
			return
		default:
		}
		if err != nil {
			return
		}
		_, _ = client.Write(buf[:n])
	}
}

// After an unknown answer the mail comes again, the same byte for byte.
func TestUnknownAnswer(t *testing.T) {
	x := startExim(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	r := newRelay(t, addr(x.port), cutAnswer)
	plain := "host: 127.0.0.1\nport: %d\ntls: none\nallow_networks: [loopback]\nfrom: weiche@land.test\nto: [bauamt@bauamt.test]\nusername: router\npassword_file: password\n"
	d := adaptertest.NewDelivery([]byte("Anlage"))
	mustFault(t, "the answer is lost", open(t, deps, plain, r).Deliver(t.Context(), d), fault.Retryable, fault.ReasonInterrupted)
	d.Attempt = 2
	must(t, open(t, deps, plain, x.port).Deliver(t.Context(), d))
	files := x.files()
	if len(files) != 2 {
		t.Fatalf("%d mails lie in the mailbox, 2 were expected", len(files))
	}
	var sent [2][]byte
	for i, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		// Above From stands what the server has put before it.
		_, sent[i], _ = bytes.Cut(b, []byte("\nFrom: weiche@"))
	}
	if len(sent[0]) == 0 || !bytes.Equal(sent[0], sent[1]) {
		t.Error("the repeat is not the same mail")
	}
	mails := x.mails()
	if a, b := mails[0].header("Message-ID"), mails[1].header("Message-ID"); a != b || a != "<"+d.ID+"@land.test>" {
		t.Errorf("the Message-IDs are %s and %s", a, b)
	}
}

func mustFault(t *testing.T, what string, err error, class fault.Class, reason fault.Reason) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error came, %s %s was expected", what, class, reason)
		return
	}
	if f := fault.Of(err); f.Class != class || f.Reason != reason {
		t.Errorf("%s counts as %s %s (%v, %v), not as %s %s", what, f.Class, f.Reason, f, f.Unwrap(), class, reason)
	}
}

// Each answer at each step, and what it counts as: the table of the reference.
func TestAnswers(t *testing.T) {
	x := startExim(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	a := open(t, deps, "%s", x.base())
	for _, c := range []struct {
		step, answers string // codes, separated by semicolons
		class         fault.Class
		reason        fault.Reason
	}{
		{"connect", "421 4.3.2; 450 4.7.1; 421", fault.Retryable, fault.ReasonUnavailable},
		{"connect", "554 5.7.1; 554; 550", fault.Destination, fault.ReasonUnauthorized},
		{"connect", "521; 556", fault.Destination, fault.ReasonGone},
		{"helo", "504 5.5.2; 501", fault.Destination, fault.ReasonMisconfigured},
		{"helo", "550; 554 5.7.1", fault.Destination, fault.ReasonUnauthorized},
		{"starttls", "454 4.7.0", fault.Retryable, fault.ReasonUnavailable},
		{"starttls", "554 5.3.0", fault.Destination, fault.ReasonMisconfigured},
		{"mail", "421; 450; 451 4.3.0; 452 4.3.1; 454", fault.Retryable, fault.ReasonUnavailable},
		{"mail", "530 5.7.0; 535 5.7.8; 550 5.7.1; 554 5.7.1", fault.Destination, fault.ReasonUnauthorized},
		{"mail", "550; 553 5.1.8; 501 5.1.7; 555", fault.Destination, fault.ReasonMisconfigured},
		{"mail", "552 5.3.4; 552", fault.Permanent, fault.ReasonTooLarge},
		{"rcpt", "421; 450 4.2.0; 451 4.7.1; 452 4.2.2; 452 4.5.3", fault.Retryable, fault.ReasonUnavailable},
		{"rcpt", "550; 550 5.1.1; 551; 553 5.1.3; 554; 501 5.1.3", fault.Destination, fault.ReasonMisconfigured},
		{"rcpt", "550 5.7.1; 554 5.7.1; 530 5.7.0", fault.Destination, fault.ReasonUnauthorized},
		{"rcpt", "552; 552 5.2.2; 550 5.2.2", fault.Destination, fault.ReasonStorage},
		{"rcpt", "550 5.2.1; 556 5.1.10", fault.Destination, fault.ReasonGone},
		{"rcpt", "552 5.2.3; 552 5.3.4", fault.Permanent, fault.ReasonTooLarge},
		{"predata", "451; 421", fault.Retryable, fault.ReasonUnavailable},
		{"predata", "554 5.5.1; 503", fault.Destination, fault.ReasonMisconfigured},
		{"data", "421; 450 4.7.1; 451; 451 4.3.0; 452 4.3.1", fault.Retryable, fault.ReasonUnavailable},
		{"data", "554; 554 5.6.0; 550; 550 5.7.1; 554 5.7.0; 550 5.6.1", fault.Permanent, fault.ReasonRefused},
		{"data", "552; 552 5.3.4; 554 5.2.3; 523 5.3.4", fault.Permanent, fault.ReasonTooLarge},
		{"data", "552 5.2.2; 554 5.2.2", fault.Destination, fault.ReasonStorage},
		{"data", "550 5.1.1; 554 5.1.10", fault.Destination, fault.ReasonMisconfigured},
		{"data", "530 5.7.0; 550 5.7.26", fault.Destination, fault.ReasonUnauthorized},
		{"data", "550 5.2.1", fault.Destination, fault.ReasonGone},
	} {
		for _, code := range strings.Split(c.answers, "; ") {
			x.answer(c.step, code+" "+adaptertest.Canary)
			err := a.Deliver(t.Context(), adaptertest.NewDelivery([]byte("a")))
			mustFault(t, c.step+" "+code, err, c.class, c.reason)
			if err != nil && strings.Contains(err.Error(), "Kanarien") {
				t.Errorf("%s %s: the server's words stand in the error: %v", c.step, code, err)
			}
		}
		x.answer(c.step, "")
	}
	if n := len(x.files()); n != 0 {
		t.Errorf("%d mails came through though each was refused", n)
	}
	must(t, a.Deliver(t.Context(), adaptertest.NewDelivery()))
}

// Faults before any mail, and the settings that are about them.
func TestConnection(t *testing.T) {
	x := startExim(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	must(t, os.WriteFile(filepath.Join(deps.DataDir, "wrong"), []byte("wrong\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(deps.DataDir, "empty"), nil, 0o600))
	x.write("token", "ya29.Token")
	must(t, os.WriteFile(filepath.Join(deps.DataDir, "token"), []byte("ya29.Token"), 0o600))
	other := kafkatest.NewAuthority(t)
	expired := startExim(t, certificate(func(a *kafkatest.Authority) kafkatest.Certificate {
		return a.Issue("mail.test", time.Now().Add(-time.Hour))
	}))
	bare := startExim(t, setting("tls_advertise_hosts ="))
	small := startExim(t, setting("message_size_limit = 4K"))
	babble := raw(t, func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, "220-"+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	silent := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ssh := raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") })
	hangsUp := raw(t, func(net.Conn) {})
	set := func(base, name, value string) string {
		var out []string
		for _, l := range strings.Split(strings.TrimSpace(base), "\n") {
			if !strings.HasPrefix(l, name+":") {
				out = append(out, l)
			}
		}
		if value != "" {
			out = append(out, name+": "+value)
		}
		return strings.Join(out, "\n") + "\n"
	}
	port := func(base string, p int) string { return set(base, "port", fmt.Sprint(p)) }
	implicit := set(port(x.base(), x.implicit), "tls", "implicit")
	for _, c := range []struct {
		name, settings string
		class          fault.Class
		reason         fault.Reason
	}{
		{"STARTTLS", x.base(), 0, ""},
		{"TLS from the first byte", implicit, 0, ""},
		{"plain text on loopback", set(set(x.base(), "tls", "none"), "ca_file", ""), 0, ""},
		{"any certificate on loopback", set(set(expired.base(), "allow_unverified_certificate", "true"), "ca_file", ""), 0, ""},
		{"login by LOGIN", set(x.base(), "login", "login"), 0, ""},
		{"login by PLAIN", set(x.base(), "login", "plain"), 0, ""},
		{"login by XOAUTH2", set(set(x.base(), "login", "xoauth2"), "password_file", "token"), 0, ""},
		{"several recipients", set(x.base(), "to", "[bauamt@bauamt.test, archiv@bauamt.test]"), 0, ""},

		{"connection refused", port(x.base(), freePort(t)), fault.Destination, fault.ReasonUnreachable},
		{"no such host", set(x.base(), "host", "gibt-es-nicht.invalid"), fault.Destination, fault.ReasonUnreachable},
		{"an address not allowed", set(x.base(), "allow_networks", "[private]"), fault.Destination, fault.ReasonMisconfigured},
		{"an address not allowed, by name", set(set(x.base(), "host", "localhost"), "allow_networks", ""), fault.Destination, fault.ReasonMisconfigured},
		{"plain text to another network", set(set(set(x.base(), "tls", "none"), "ca_file", ""), "allow_networks", "[private]"), fault.Destination, fault.ReasonMisconfigured},
		{"another authority", set(x.base(), "ca_file", other.File), fault.Destination, fault.ReasonCertificate},
		{"another authority, implicit", set(implicit, "ca_file", other.File), fault.Destination, fault.ReasonCertificate},
		{"the system's authorities", set(x.base(), "ca_file", ""), fault.Destination, fault.ReasonCertificate},
		{"another name", set(x.base(), "host", "localhost"), fault.Destination, fault.ReasonCertificate},
		{"expired", expired.base(), fault.Destination, fault.ReasonCertificate},
		{"no STARTTLS offered", bare.base(), fault.Destination, fault.ReasonCertificate},
		{"implicit where plain is spoken", set(x.base(), "tls", "implicit"), fault.Destination, fault.ReasonCertificate},
		{"ca_file missing", set(x.base(), "ca_file", "nowhere"), fault.Destination, fault.ReasonMisconfigured},
		{"wrong password", set(x.base(), "password_file", "wrong"), fault.Destination, fault.ReasonUnauthorized},
		{"wrong password, LOGIN", set(set(x.base(), "password_file", "wrong"), "login", "login"), fault.Destination, fault.ReasonUnauthorized},
		{"wrong token", set(set(x.base(), "password_file", "wrong"), "login", "xoauth2"), fault.Destination, fault.ReasonUnauthorized},
		{"password file missing", set(x.base(), "password_file", "nowhere"), fault.Destination, fault.ReasonMisconfigured},
		{"password file empty", set(x.base(), "password_file", "empty"), fault.Destination, fault.ReasonMisconfigured},
		{"no login", set(set(x.base(), "username", ""), "password_file", ""), fault.Destination, fault.ReasonUnauthorized},
		{"no relaying", set(x.base(), "to", "[x@anderswo.test]"), fault.Destination, fault.ReasonUnauthorized},
		{"one mailbox unknown", set(x.base(), "to", "[bauamt@bauamt.test, unbekannt@bauamt.test]"), fault.Destination, fault.ReasonMisconfigured},
		{"one mailbox greylisted", set(x.base(), "to", "[bauamt@bauamt.test, grau@bauamt.test]"), fault.Retryable, fault.ReasonUnavailable},
		{"larger than SIZE", small.base(), fault.Permanent, fault.ReasonTooLarge},
		{"larger than max_message", set(x.base(), "max_message", "4KB"), fault.Permanent, fault.ReasonTooLarge},
		{"endless greeting", port(x.base(), babble), fault.Retryable, fault.ReasonInterrupted},
		{"no TLS answer", set(set(port(x.base(), silent), "tls", "implicit"), "connect_timeout", "200ms"), fault.Retryable, fault.ReasonTimeout},
		{"no SMTP", port(x.base(), ssh), fault.Retryable, fault.ReasonInterrupted},
		{"hangs up", port(x.base(), hangsUp), fault.Retryable, fault.ReasonInterrupted},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(x.files())
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := open(t, deps, "%s", c.settings).Deliver(ctx, adaptertest.NewDelivery(make([]byte, 5000)))
			if c.reason != "" {
				mustFault(t, c.name, err, c.class, c.reason)
				if after := len(x.files()); after != before {
					t.Error("a mail came through all the same")
				}
				return
			}
			must(t, err)
		})
	}
	if got := len(x.files()) + len(expired.files()); got != 9 {
		t.Errorf("%d mails lie in the mailboxes, 9 were expected: 8 went in well, one to two recipients", got)
	}
}

// What somebody on the way says before TLS does not count within it.
func TestInjectedBeforeTLS(t *testing.T) {
	ca := kafkatest.NewAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("mail.test", time.Now().Add(time.Hour)).Pair(t)}, MinVersion: tls.VersionTLS12}
	var mu sync.Mutex
	var within []string
	port := raw(t, func(c net.Conn) {
		in := bufio.NewScanner(c)
		_, _ = io.WriteString(c, "220 mail.test ESMTP\r\n")
		for in.Scan() && in.Text() != "STARTTLS" {
			_, _ = io.WriteString(c, "250-mail.test\r\n250 STARTTLS\r\n")
		}
		_, _ = io.WriteString(c, "220 go on\r\n250-mail.test\r\n250 AUTH PLAIN\r\n")
		secure := tls.Server(c, conf)
		for in = bufio.NewScanner(secure); in.Scan(); {
			mu.Lock()
			within = append(within, in.Text())
			mu.Unlock()
			_, _ = io.WriteString(secure, "250 mail.test\r\n")
		}
	})
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	a := open(t, deps, "host: 127.0.0.1\nport: %d\nca_file: %s\nallow_networks: [loopback]\nfrom: w@land.test\nto: [b@bauamt.test]\nusername: router\npassword_file: password\n", port, ca.File)
	mustFault(t, "injected", a.Deliver(t.Context(), adaptertest.NewDelivery()), fault.Destination, fault.ReasonUnauthorized)
	mu.Lock()
	defer mu.Unlock()
	if len(within) == 0 || slices.ContainsFunc(within, func(l string) bool { return strings.HasPrefix(l, "AUTH") }) {
		t.Errorf("within TLS the router said %q", within)
	}
}

// A 250 is not the mailbox: what fails later comes back to bounces_to, with the
// head and the delivery id and without the message.
func TestBounce(t *testing.T) {
	x := startExim(t)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	d := adaptertest.NewDelivery([]byte("Anlage"))
	settings := strings.Replace(x.base(), "bauamt@", "spaeter@", 1) + "bounces_to: rueck@land.test\n"
	must(t, open(t, deps, "%s", settings).Deliver(t.Context(), d))
	x.wait("a bounce lies in the mailbox", func() bool { return len(x.files()) > 0 })
	files := x.files()
	raw, err := os.ReadFile(files[0])
	must(t, err)
	m := x.mails()[0]
	if len(files) != 1 || m.header("To") != "rueck@land.test" || m.header("Return-path") != "<>" {
		t.Errorf("%d mails came, the first to %s", len(files), m.header("To"))
	}
	if !bytes.Contains(raw, []byte("Message-ID: <"+d.ID+"@land.test>")) || !bytes.Contains(raw, []byte("Original-Envelope-ID: "+d.ID)) {
		t.Errorf("the bounce does not name the delivery:\n%s", raw)
	}
	if bytes.Contains(raw, []byte("Content-Disposition: attachment")) || bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString(d.Message)[:60])) {
		t.Error("the bounce carries the message")
	}
}

// SCRAM against Cyrus SASL, and with a server that is not the right one.
func TestSCRAM(t *testing.T) {
	x := startExim(t, scram)
	deps := spec.Deps{DataDir: t.TempDir()}
	secret(t, deps, eximPassword)
	for _, way := range []string{"auto", "scram-sha-256", "scram-sha-1"} {
		must(t, open(t, deps, "%slogin: %s\n", x.base(), way).Deliver(t.Context(), adaptertest.NewDelivery()))
	}
	log, err := os.ReadFile(filepath.Join(x.dir, "log-main"))
	must(t, err)
	if a, b := strings.Count(string(log), "A=SCRAM256:router"), strings.Count(string(log), "A=SCRAM1:router"); a != 2 || b != 1 {
		t.Errorf("%d logins by SCRAM-SHA-256 and %d by SCRAM-SHA-1 were made, 2 and 1 were expected", a, b)
	}
	secret(t, deps, "falsch")
	mustFault(t, "wrong password", open(t, deps, "%s", x.base()).Deliver(t.Context(), adaptertest.NewDelivery()), fault.Destination, fault.ReasonUnauthorized)

	for name, challenge := range map[string]string{
		"endless work": "r=%s1,s=QSXCR+Q6sek8bf92,i=2147483647", "no work": "r=%s1,s=QSXCR+Q6sek8bf92,i=0",
		"another's nonce": "r=x,s=QSXCR+Q6sek8bf92,i=4096", "forged proof": "r=%s1,s=QSXCR+Q6sek8bf92,i=4096",
	} {
		port := raw(t, func(c net.Conn) { forgedSCRAM(c, challenge) })
		a := open(t, deps, "host: 127.0.0.1\nport: %d\ntls: none\nallow_networks: [loopback]\nfrom: w@land.test\nto: [b@bauamt.test]\nusername: router\npassword_file: password\n", port)
		mustFault(t, name, a.Deliver(t.Context(), adaptertest.NewDelivery()), fault.Destination, fault.ReasonUnauthorized)
	}
}

// forgedSCRAM speaks SMTP as far as the login and does not know the password.
func forgedSCRAM(c net.Conn, challenge string) {
	say := func(line string) { _, _ = io.WriteString(c, line+"\r\n") }
	in := bufio.NewScanner(c)
	say("220 falsch.test ESMTP")
	for n := 0; in.Scan(); {
		line := in.Text()
		if strings.HasPrefix(line, "EHLO") {
			say("250-falsch.test\r\n250 AUTH SCRAM-SHA-256")
			continue
		}
		plain, _ := base64.StdEncoding.DecodeString(line)
		_, nonce, _ := strings.Cut(string(plain), ",r=")
		switch n++; {
		case n == 1:
			say("334 ")
		case n == 2 && strings.Contains(challenge, "%s"):
			say("334 " + base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf(challenge, nonce))))
		case n == 2:
			say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
		case line == "*":
			say("501 cancelled")
		case line == "QUIT":
			say("221 bye")
			return
		default:
			say("334 " + base64.StdEncoding.EncodeToString([]byte("v=Zm9yZ2Vk")))
		}
	}
}

// raw is a server that does as it likes.
func raw(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	return adaptertest.Serve(t, serve).Port
}
