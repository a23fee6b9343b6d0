// Package sftp puts each message into a directory of an SFTP server:
// <delivery id>.xml, and where there are attachments a folder <delivery id>/
// beside it, as the file adapter does.
//
// Everything is written under .weiche/<delivery id>/ first. The folder is moved
// into place as a whole, the message last and at once. What an attempt leaves behind
// there is found again by the next one and compared with the message's own bytes,
// block by block: what is the same is not sent again, and nothing else is
// believed, neither a length nor a name.
//
// A connection serves one delivery at a time and the next one after it. An unused
// one is closed after a while and holds one timer until then. Files of the settings
// are read at each delivery; no connection outlives a change of one.
package sftp

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/spec"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Kind describes the adapter.
func Kind() spec.Kind {
	return spec.Kind{
		Name:    "sftp",
		Summary: "Puts each message into a directory of an SFTP server.",
		Doc: `Files and names are those of ` + "`file`" + `: ` + "`<delivery id>.xml`" + ` (or ` + "`.csv`, `.pdf`" + ` after its format), and attachments in a folder ` + "`<delivery id>/`" + ` as
` + "`01-<name>`, `02-<name>`" + `. **The message appears last, by renaming: whoever sees it finds the attachments complete.** Take
first the message, then the folder. A repeat of a delivery leaves the same files; take a file away and a repeat may bring it
again, so drop repeats by delivery id. Rights are those the server gives to new files (the account's umask).

What is not complete lies in ` + "`.weiche/<delivery id>/`" + `. After an interruption the next attempt goes on there: it reads
back what lies there, compares it with the attachment, and sends from the first block (1 MB) that differs or is missing.
An account that may not read starts again instead. Left-overs older than eight days by the server's clock are removed.

What lies in its place already, as at a repeat, is read back and compared, and put right file by file where it differs; an
account that may not read sends it again.

Where the server offers ` + "`fsync@openssh.com`" + `, files and directories are synced before the delivery counts as made, as far as it
opens directories; ` + "`posix-rename@openssh.com`" + ` likewise, otherwise it is the plain rename, before which the old file is removed.

The server's host key has to be pinned, by ` + "`host_keys`" + ` or ` + "`known_hosts_file`" + `; no other is ever accepted. While a key is
being replaced, pin the old and the new one. Host certificates are not taken.

| what happens | counts as |
| --- | --- |
| everything written and renamed | delivered |
| no such directory, no permission, any other refusal of a file operation | destination at fault (` + "`storage`" + `) |
| a file cannot be written, and 4 KB of a trial file neither (disk full, quota, read-only) | destination at fault (` + "`storage`" + `) |
| a file cannot be written, but the trial file can: this message is too much | retry (` + "`storage`" + `) |
| what was written cannot be synced | destination at fault (` + "`storage`" + `) |
| another host key than those pinned | destination at fault (` + "`certificate`" + `) |
| key or password refused | destination at fault (` + "`unauthorized`" + `) |
| no connection, no such host | destination at fault (` + "`unreachable`" + `) |
| no common algorithm, no SFTP after the login, a file of the settings missing or unreadable | destination at fault (` + "`misconfigured`" + `) |
| no answer in time, or the connection has gone dead (` + "`keepalive`" + `) | retry (` + "`timeout`" + `) |
| the connection broke off, or the server takes no more connections | retry (` + "`interrupted`, `unavailable`" + `) |`,
		Fields: []spec.Field{
			{Name: "host", Type: spec.Text, Required: true, Example: "sftp.example", Doc: "The server."},
			{Name: "port", Type: spec.Number, Default: 22, Doc: "Its port."},
			{Name: "user", Type: spec.Text, Required: true, Example: "weiche", Doc: "The account."},
			{Name: "directory", Type: spec.Text, Required: true, Example: "inbox/boeblingen", Doc: "Where the files go, relative to where the login ends up, or absolute. It must exist; the router never makes it."},
			{Name: "host_keys", Type: spec.List, Example: `["SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8", "ssh-ed25519 AAAAC3Nz…"]`, Doc: "Host keys that are accepted: fingerprints, or public keys as `ssh-keyscan` prints them without the host."},
			{Name: "known_hosts_file", Type: spec.Path, Doc: "Instead of `host_keys`: a file as OpenSSH keeps it; hashed hosts and `@revoked` are understood. Read again when it changes."},
			{Name: "key_file", Type: spec.Path, Doc: "Private key (OpenSSH or PEM) to log in with. Read again when it changes."},
			{Name: "passphrase_file", Type: spec.Path, Doc: "Passphrase of the key, where it has one."},
			{Name: "password_file", Type: spec.Path, Doc: "Password to log in with; with `key_file` too where the server wants both or one of them."},
			{Name: "connections", Type: spec.Number, Default: 4, Doc: "Most connections at once; further deliveries wait for one."},
			{Name: "connect_timeout", Type: spec.Duration, Default: 10 * time.Second, Doc: "For connecting, and again for key exchange, login and the start of SFTP. The whole attempt is bounded by the destination's policy."},
			{Name: "keepalive", Type: spec.Duration, Default: 30 * time.Second, Doc: "During a transfer, a server that has said nothing for this long is asked for a sign of life, and given up when it says nothing for as long again. 0: never."},
			{Name: "idle_timeout", Type: spec.Duration, Default: 30 * time.Second, Doc: "How long an unused connection is kept. 0: not at all."},
			dial.Field(),
		},
		Check: check,
		New:   newAdapter,
	}
}

func check(v spec.Values) []spec.Complaint {
	out := dial.Check(v)
	complain := func(field, text string) { out = append(out, spec.Complaint{Field: field, Text: text}) }
	if v.Number("port") < 1 || v.Number("port") > 65535 {
		complain("port", "a port from 1 to 65535 is expected")
	}
	if v.Number("connections") < 1 || v.Number("connections") > 100 {
		complain("connections", "1 to 100 are expected")
	}
	if v.Duration("connect_timeout") == 0 {
		complain("connect_timeout", "without it a silent server would hold an attempt for as long as it lasts")
	}
	if _, err := parsePins(v.List("host_keys")); err != nil {
		complain("host_keys", err.Error())
	}
	if (len(v.List("host_keys")) > 0) == (v.Text("known_hosts_file") != "") {
		complain("host_keys", "either host_keys or known_hosts_file is expected: a server that nothing is known of gets no message")
	}
	if v.Text("key_file") == "" && v.Text("password_file") == "" {
		complain("key_file", "key_file or password_file is expected")
	}
	if v.Text("passphrase_file") != "" && v.Text("key_file") == "" {
		complain("passphrase_file", "there is no key_file it could be for")
	}
	return out
}

// Adapter writes into one directory of one server. It is safe for concurrent use,
// also by several processes.
type Adapter struct {
	dir   string
	login logins
	pool  *pool
	clock func() time.Time

	mu    sync.Mutex
	swept time.Time
}

func newAdapter(_ string, v spec.Values, deps spec.Deps) (spec.Adapter, error) {
	pins, err := parsePins(v.List("host_keys"))
	if err != nil {
		return nil, err
	}
	c := &connector{
		address: net.JoinHostPort(v.Text("host"), strconv.Itoa(v.Number("port"))), user: v.Text("user"),
		dialer:  dial.Dialer{Allowed: dial.Allowed(v), Timeout: v.Duration("connect_timeout")},
		timeout: v.Duration("connect_timeout"), family: new(atomic.Int32),
	}
	return &Adapter{
		dir: v.Text("directory"), clock: deps.Clock,
		login: logins{
			pins: pins, knownFile: deps.SecretPath(v.Text("known_hosts_file")), keyFile: deps.SecretPath(v.Text("key_file")),
			passphraseFile: deps.SecretPath(v.Text("passphrase_file")), passwordFile: deps.SecretPath(v.Text("password_file")),
		},
		pool: &pool{
			connector: c, turns: make(chan struct{}, v.Number("connections")),
			idleTime: v.Duration("idle_timeout"), keepalive: v.Duration("keepalive"),
		},
	}, nil
}

// Close closes unused connections.
func (a *Adapter) Close() error {
	a.pool.close()
	return nil
}

// Deliver implements spec.Adapter.
func (a *Adapter) Deliver(ctx context.Context, d *submission.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fault.Of(err)
	}
	l, err := wire.NewLayout(d)
	if err != nil {
		return err
	}
	kept, f := a.attempt(ctx, d, l, false)
	if f != nil && kept && f.Reason == fault.ReasonInterrupted {
		// A server may close a kept connection at any time; that costs no attempt.
		_, f = a.attempt(ctx, d, l, true)
	}
	if f != nil {
		return f
	}
	return nil
}

// attempt delivers over one connection; kept says that it was not a new one.
func (a *Adapter) attempt(ctx context.Context, d *submission.Delivery, l wire.Layout, anew bool) (kept bool, _ *fault.Error) {
	login, f := a.login.read()
	if f != nil {
		return false, f
	}
	s, kept, err := a.pool.take(ctx, login, anew)
	if err != nil {
		return false, classify(ctx, err)
	}
	s.conn.allow(budget(d))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	p := &placing{c: s.sftp, dir: a.dir, l: l, d: d}
	err = p.deliver(ctx)
	if err == nil && a.due() {
		p.sweep(a.clock().Add(-stale))
	}
	cut := !stop()
	a.pool.give(s, !cut && !lost(err))
	if err == nil {
		return kept, nil
	}
	if s.stalled.Load() && ctx.Err() == nil {
		return kept, fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "the server gave no sign of life in time")
	}
	return kept, classify(ctx, err)
}

// budget is what a server may send during one delivery, in bytes: all of it read
// back four times (before it, in its place, where it was left, and after it), and
// ample room for answers.
func budget(d *submission.Delivery) int64 {
	n := int64(len(d.Message))
	for _, f := range d.Attachments {
		n += f.Size
	}
	return 16<<20 + 5*n
}

func (a *Adapter) due() bool {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) < 24*time.Hour {
		return false
	}
	a.swept = now
	return true
}
