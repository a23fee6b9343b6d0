package sftp

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"weiche/internal/adapters/dial"
	"weiche/internal/fault"
)

// session is one connection, logged in, with SFTP running.
type session struct {
	conn    *metered
	ssh     *ssh.Client
	sftp    *sftp.Client
	tag     [32]byte
	stalled atomic.Bool
	gone    chan struct{} // closed when the connection has ended

	done chan struct{} // ends the watch over the present delivery
	idle *time.Timer
}

func (s *session) over() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// close ends the connection and everything that waits on it.
func (s *session) close() {
	_ = s.conn.Close() // first: the others would wait behind a transfer that hangs
	_ = s.sftp.Close()
	<-s.gone
}

// watch gives a connection up that has gone dead. Any byte from the server is a
// sign of life, so a slow line with a full queue is not taken for a dead one.
func (s *session) watch(every time.Duration, done <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, asked := s.conn.got.Load(), false
	for {
		select {
		case <-done:
			return
		case <-s.gone:
			return
		case <-tick.C:
		}
		switch now := s.conn.got.Load(); {
		case now != last:
			last, asked = now, false
		case asked:
			s.stalled.Store(true)
			_ = s.conn.Close()
			return
		default:
			asked = true
			go func() { _, _, _ = s.ssh.SendRequest("keepalive@openssh.com", true, nil) }()
		}
	}
}

var errBudget = errors.New("the server says more than there is to say")

// metered counts what the server sends and ends a connection whose other side
// does not stop: the libraries read lists as a whole.
type metered struct {
	net.Conn
	got, limit atomic.Int64
}

func (m *metered) allow(n int64) { m.limit.Store(m.got.Load() + n) }

// Read implements io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	if m.got.Load() > m.limit.Load() {
		return 0, errBudget
	}
	n, err := m.Conn.Read(p)
	m.got.Add(int64(n))
	return n, err
}

// connector opens connections. It is safe for concurrent use.
type connector struct {
	address, user string
	dialer        dial.Dialer
	timeout       time.Duration
	family        *atomic.Int32 // of host keys, that was the right one last
}

// connect asks for the kinds of host keys one after the other until the server
// shows one that is accepted.
func (c *connector) connect(ctx context.Context, l *login) (*session, error) {
	first := int(c.family.Load())
	var refused error
	for i := range families {
		n := (first + i) % len(families)
		if !l.wants(families[n]) {
			continue
		}
		s, err := c.open(ctx, l, families[n])
		if err == nil {
			c.family.Store(int32(n)) //nolint:gosec // one of three
			return s, nil
		}
		_, none := errors.AsType[*ssh.AlgorithmNegotiationError](err)
		f, _ := errors.AsType[*fault.Error](err)
		wrong := f != nil && f.Reason == fault.ReasonCertificate
		if !none && !wrong {
			return nil, err
		}
		if refused == nil || wrong {
			refused = err
		}
	}
	if refused == nil {
		refused = misconfigured(nil, "none of host_keys is of a kind that is taken (ed25519, ecdsa, rsa)")
	}
	return nil, refused
}

// open opens a connection where the server's host key is of the given kind. The
// error is a *fault.Error or one that classify knows.
func (c *connector) open(ctx context.Context, l *login, family []string) (*session, error) {
	judge, f := l.judge()
	if f != nil {
		return nil, f
	}
	methods, f := l.methods()
	if f != nil {
		return nil, f
	}
	raw, err := c.dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	conn := &metered{Conn: raw}
	conn.allow(4 << 20)
	_ = conn.SetDeadline(time.Now().Add(c.timeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var shown, accepted bool
	sc, channels, requests, err := ssh.NewClientConn(conn, c.address, &ssh.ClientConfig{
		User: c.user, Auth: methods, HostKeyAlgorithms: family, ClientVersion: "SSH-2.0-weiche",
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			shown = true
			err := judge(host, remote, key)
			accepted = err == nil
			return err
		},
	})
	if err != nil {
		_ = conn.Close()
		switch {
		case shown && !accepted:
			return nil, fault.Wrap(err, fault.Destination, fault.ReasonCertificate, "the server's host key is none of those pinned")
		case accepted && !broken(err):
			return nil, fault.Wrap(err, fault.Destination, fault.ReasonUnauthorized, "the server refuses the login")
		}
		return nil, err
	}
	s := &session{conn: conn, ssh: ssh.NewClient(sc, channels, requests), tag: l.tag, gone: make(chan struct{})}
	go func() {
		_ = s.ssh.Wait()
		close(s.gone)
	}()
	s.sftp, err = sftp.NewClient(s.ssh, sftp.UseConcurrentWrites(true))
	if err != nil {
		_ = conn.Close()
		<-s.gone
		_, full := errors.AsType[*ssh.OpenChannelError](err)
		switch {
		case full:
			return nil, fault.Wrap(err, fault.Retryable, fault.ReasonUnavailable, "the server opens no more sessions")
		case !broken(err):
			return nil, misconfigured(err, "the server offers no SFTP to this account")
		}
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return s, nil
}

// pool keeps connections between deliveries. It is safe for concurrent use.
type pool struct {
	connector           *connector
	turns               chan struct{} // one for each connection in use
	idleTime, keepalive time.Duration

	mu     sync.Mutex
	unused []*session
	closed bool
}

// take returns a connection, kept where there is one that was logged in by the
// same files and anew is not wanted. Each is given back by give.
func (p *pool) take(ctx context.Context, l *login, anew bool) (s *session, kept bool, err error) {
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	s, old := p.pick(l.tag, anew)
	for _, o := range old {
		o.close()
	}
	kept = s != nil
	if !kept {
		if s, err = p.connector.connect(ctx, l); err != nil {
			<-p.turns
			return nil, false, err
		}
	}
	s.done = make(chan struct{})
	if p.keepalive > 0 {
		go s.watch(p.keepalive, s.done)
	}
	return s, kept, nil
}

// pick takes the connection used last, and those that are of no use any more.
func (p *pool) pick(tag [32]byte, anew bool) (s *session, old []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var rest []*session
	for _, u := range p.unused {
		if anew || u.tag != tag || u.over() {
			u.idle.Stop()
			old = append(old, u)
		} else {
			rest = append(rest, u)
		}
	}
	if n := len(rest); n > 0 {
		s, rest = rest[n-1], rest[:n-1]
		s.idle.Stop()
	}
	p.unused = rest
	return s, old
}

// give returns a connection; whole says that it can serve another delivery.
func (p *pool) give(s *session, whole bool) {
	defer func() { <-p.turns }()
	close(s.done)
	p.mu.Lock()
	keep := whole && !p.closed && p.idleTime > 0 && !s.over() && !s.stalled.Load()
	if keep {
		p.unused = append(p.unused, s)
		s.idle = time.AfterFunc(p.idleTime, func() { p.expire(s) })
	}
	p.mu.Unlock()
	if !keep {
		s.close()
	}
}

func (p *pool) expire(s *session) {
	p.mu.Lock()
	var mine bool
	rest := p.unused[:0:0]
	for _, u := range p.unused {
		if u == s {
			mine = true
			continue
		}
		rest = append(rest, u)
	}
	p.unused = rest
	p.mu.Unlock()
	if mine {
		s.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	old := p.unused
	p.unused = nil
	p.mu.Unlock()
	for _, s := range old {
		s.idle.Stop()
		s.close()
	}
}
