package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	mail "github.com/wneessen/go-mail/smtp"

	"weiche/internal/adapters/credential"
	"weiche/internal/fault"
)

const (
	maxChatter = 1 << 20 // bytes a server may say in one session
	farewell   = 2 * time.Second
)

// session is one connection, for one message.
type session struct {
	a    *Adapter
	conn net.Conn
	c    *mail.Client
	at   step
}

// send opens a connection, says what has to be said and hands the message over.
// It returns nil once the server has answered 250 to the final dot, whatever
// happens after it.
func (a *Adapter) send(ctx context.Context, id string, e entity) error {
	pool, err := a.authorities()
	if err != nil {
		return err
	}
	conn, err := a.dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.host, strconv.Itoa(a.port)))
	if err != nil {
		return classify(ctx, stepGreeting, err)
	}
	s := &session{a: a, conn: &bounded{Conn: conn, left: maxChatter}, at: stepGreeting}
	// A connection that is closed ends whatever waits on it. The final dot is
	// never sent then, so a server keeps nothing of a message that was cut short.
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error { return s.open(ctx, pool) },
		s.login,
		func(context.Context) error { return s.envelope(id, e.total()) },
		func(ctx context.Context) error { return s.message(ctx, e) },
	} {
		if err := do(ctx); err != nil {
			s.quit(err)
			return classify(ctx, s.at, err)
		}
	}
	stop()
	s.quit(nil)
	return nil
}

// quit takes leave where the server waits for a command: after its answer, or
// where the router itself does not want to go on. In the middle of a message
// QUIT would be a line of it.
func (s *session) quit(after error) {
	_, answered := errors.AsType[*textproto.Error](after)
	_, ours := errors.AsType[*fault.Error](after)
	if s.c == nil || s.at == stepTransfer || after != nil && !answered && !ours {
		return
	}
	_ = s.conn.SetDeadline(time.Now().Add(farewell))
	_ = s.c.Quit()
}

func (s *session) open(ctx context.Context, pool *x509.CertPool) error {
	conf := &tls.Config{ServerName: s.a.host, RootCAs: pool, MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.a.unverified}
	conn := s.conn
	if s.a.tls == tlsImplicit {
		s.at = stepTLS
		secure := tls.Client(s.conn, conf)
		timed, cancel := context.WithTimeout(ctx, s.a.timeout)
		defer cancel()
		if err := secure.HandshakeContext(timed); err != nil {
			return err
		}
		conn = secure
	}
	s.at = stepGreeting
	var err error
	if s.c, err = mail.NewClient(conn, s.a.host); err != nil {
		return err
	}
	// Everything in the mail is ASCII; a bounce shall come on failure only, and
	// carry the head alone and no payload (RFC 3461).
	s.c.SkipSMTPUTF8(true)
	s.c.SetDSNMailReturnOption("HDRS")
	s.c.SetDSNRcptNotifyOption("FAILURE")
	if err := s.c.Hello(s.a.hello); err != nil || s.a.tls != tlsStart {
		return err
	}
	s.at = stepTLS
	if ok, _ := s.c.Extension("STARTTLS"); !ok {
		return fault.New(fault.Destination, fault.ReasonCertificate, "the server does not offer STARTTLS, and plain text is not allowed")
	}
	_ = s.conn.SetDeadline(time.Now().Add(s.a.timeout))
	if err := s.c.StartTLS(conf); err != nil {
		return err
	}
	return s.conn.SetDeadline(time.Time{})
}

// envelope names sender and recipients. One recipient refused is all refused:
// the message has not been sent, and nobody has it alone.
func (s *session) envelope(id string, size int64) error {
	s.at = stepSender
	from := "<" + s.a.bounces + ">"
	if ok, limit := s.c.Extension("SIZE"); ok {
		if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && n > 0 && size > n {
			return fault.New(fault.Permanent, fault.ReasonTooLarge, "the message has %d bytes, the server takes %d", size, n)
		}
		from += fmt.Sprintf(" SIZE=%d", size) // RFC 1870
	}
	if ok, _ := s.c.Extension("DSN"); ok {
		from += " ENVID=" + id
	}
	if err := s.c.Mail(from); err != nil {
		return err
	}
	s.at = stepRecipient
	for _, to := range s.a.to {
		if err := s.c.Rcpt("<" + to + ">"); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) message(ctx context.Context, e entity) error {
	s.at = stepData
	w, err := s.c.Data()
	if err != nil {
		return err
	}
	s.at = stepTransfer
	out := bufio.NewWriterSize(w, 32<<10)
	if err := e.writeTo(ctx, out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	s.at = stepMessage
	return w.Close()
}

func (a *Adapter) authorities() (*x509.CertPool, error) {
	if a.caFile == "" {
		return nil, nil
	}
	b, err := credential.Read(a.caFile, maxFile)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(b) {
		return nil, fault.New(fault.Destination, fault.ReasonMisconfigured, "ca_file is missing or holds no certificate")
	}
	return pool, nil
}

var errChatter = errors.New("the server says more than an SMTP server has to say")

// bounded ends a connection whose other side does not stop talking: the library
// reads an answer as a whole.
type bounded struct {
	net.Conn
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errChatter
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
