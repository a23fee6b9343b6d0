package smtp

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	mail "github.com/wneessen/go-mail/smtp"

	"weiche/internal/adapters/credential"
	"weiche/internal/fault"
)

const loginAuto = "auto"

// ways are the mechanisms the router knows, in the order in which auto takes
// them; XOAUTH2 wants a token instead of a password, so auto leaves it out.
var ways = []struct {
	setting, mechanism string
	auto               bool
	auth               func(user, password, host string, plainText bool) mail.Auth
}{
	{"scram-sha-256", "SCRAM-SHA-256", true, func(user, password, _ string, _ bool) mail.Auth {
		return guarded{mail.ScramSHA256Auth(user, password)}
	}},
	{"scram-sha-1", "SCRAM-SHA-1", true, func(user, password, _ string, _ bool) mail.Auth {
		return guarded{mail.ScramSHA1Auth(user, password)}
	}},
	{"plain", "PLAIN", true, func(user, password, host string, plainText bool) mail.Auth {
		return mail.PlainAuth("", user, password, host, plainText)
	}},
	{"login", "LOGIN", true, mail.LoginAuth},
	{"xoauth2", "XOAUTH2", false, func(user, token, _ string, _ bool) mail.Auth { return mail.XOAuth2Auth(user, token) }},
}

// logins are the values of the setting.
func logins() []string {
	out := []string{loginAuto}
	for _, w := range ways {
		out = append(out, w.setting)
	}
	return out
}

func (s *session) login(context.Context) error {
	s.at = stepLogin
	if s.a.username == "" {
		return nil
	}
	password, err := readPassword(s.a.passwordFile)
	if err != nil {
		return fault.Wrap(err, fault.Destination, fault.ReasonMisconfigured, "password_file is missing or does not hold one password")
	}
	_, list := s.c.Extension("AUTH")
	offered := strings.Fields(strings.ToUpper(list))
	plainText := s.a.tls == tlsNone // allowed by name, see check
	for _, w := range ways {
		if (s.a.login == w.setting || s.a.login == loginAuto && w.auto) && slices.Contains(offered, w.mechanism) {
			return s.c.Auth(w.auth(s.a.username, password, s.a.host, plainText))
		}
	}
	return fault.New(fault.Destination, fault.ReasonUnauthorized, "the server offers no login that the settings allow")
}

// maxIterations bounds the work a server may ask of SCRAM: a second or so, which
// no context can interrupt. Servers ask for 4,096 to some 100,000 (RFC 7677).
const maxIterations = 2_000_000

// guarded is SCRAM with a server that may not be the right one.
type guarded struct{ mail.Auth }

// Next implements smtp.Auth.
func (g guarded) Next(fromServer []byte, more bool) ([]byte, error) {
	for _, field := range bytes.Split(fromServer, []byte(",")) {
		if n, ok := bytes.CutPrefix(field, []byte("i=")); ok && more {
			if i, err := strconv.Atoi(string(n)); err != nil || i < 1 || i > maxIterations {
				return nil, fault.New(fault.Destination, fault.ReasonUnauthorized, "the server asks for more work at login than is sound")
			}
		}
	}
	answer, err := g.Auth.Next(fromServer, more)
	if err != nil {
		return nil, fault.Wrap(err, fault.Destination, fault.ReasonUnauthorized, "the server does not prove at login that it knows the password")
	}
	return answer, nil
}

func readPassword(path string) (string, error) {
	b, err := credential.Read(path, maxFile)
	p := strings.TrimRight(string(b), "\r\n")
	if err != nil || p == "" || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("holds no password")
	}
	return p, nil
}
