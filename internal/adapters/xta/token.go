package xta

import (
	"strconv"
	"strings"
	"time"

	"weiche/internal/fault"
)

// token is what is on record of a delivery: the message id that the peer gave,
// and whether the peer is known to have the message, since when.
type token struct {
	id    string
	has   bool
	since time.Time // zero where a router of before this was recorded wrote it
}

const (
	tokenMade = "xta made " // the id was given; whether the message went out is not known
	tokenHas  = "xta sent " // the peer has said that it has the message; seconds since 1970 and the id follow
)

func (t token) String() string {
	if t.has {
		return tokenHas + strconv.FormatInt(t.since.Unix(), 10) + " " + t.id
	}
	return tokenMade + t.id
}

func parseToken(s string) (token, *fault.Error) {
	if id, ok := strings.CutPrefix(s, tokenMade); ok && usableID(id) {
		return token{id: id}, nil
	}
	if rest, ok := strings.CutPrefix(s, tokenHas); ok {
		since, id, timed := strings.Cut(rest, " ")
		if !timed && usableID(rest) {
			return token{id: rest, has: true}, nil
		}
		if n, err := strconv.ParseInt(since, 10, 64); err == nil && usableID(id) {
			return token{id: id, has: true, since: time.Unix(n, 0)}, nil
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
