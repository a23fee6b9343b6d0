package xta

import (
	"strings"

	"weiche/internal/fault"
)

// token is what is on record of a delivery: the message id that the peer gave,
// and whether the peer is known to have the message.
type token struct {
	id  string
	has bool
}

const (
	tokenMade = "xta made " // the id was given; whether the message went out is not known
	tokenHas  = "xta sent " // the peer has said that it has the message
)

func (t token) String() string {
	if t.has {
		return tokenHas + t.id
	}
	return tokenMade + t.id
}

func parseToken(s string) (token, *fault.Error) {
	for _, t := range []token{{has: false}, {has: true}} {
		if id, ok := strings.CutPrefix(s, t.String()); ok && usableID(id) {
			t.id = id
			return t, nil
		}
	}
	return token{}, fault.New(fault.Permanent, fault.ReasonUndecodable,
		"what is on record of the handing over is not this adapter's; whether the destination has the message is not known")
}

// maxID bounds a message id, in bytes: it stands in events.
const maxID = 256

// usableID says whether a peer's message id may be kept: a URI (xs:anyURI in the
// WSDL) of visible ASCII.
func usableID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}
