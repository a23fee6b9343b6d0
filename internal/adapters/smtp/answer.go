package smtp

import (
	"context"
	"errors"
	"net"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
)

// step is a step of the conversation; what an answer means depends on it.
type step string

const (
	stepGreeting  step = "greeting" // and EHLO
	stepTLS       step = "TLS"
	stepLogin     step = "login"
	stepSender    step = "sender"
	stepRecipient step = "recipient"
	stepData      step = "DATA"
	stepTransfer  step = "transfer" // of the message's lines; nothing is answered
	stepMessage   step = "message"  // after the final dot
)

// classify says who is at fault when a step went wrong.
func classify(ctx context.Context, at step, err error) error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if src, ok := errors.AsType[*wire.SourceError](err); ok {
		return src.Fault()
	}
	if a, ok := errors.AsType[*textproto.Error](err); ok {
		return answer(at, a)
	}
	if f := dial.Fault(err); f != nil {
		return f
	}
	if at == stepTLS && dial.TLSFault(err) {
		return fault.Wrap(err, fault.Destination, fault.ReasonCertificate, "the TLS handshake failed: certificate, trust or version")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer in time")
	}
	if at == stepMessage {
		return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "the connection broke off after the message was sent and before an answer came")
	}
	return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "the connection broke off before the message was sent")
}

// enhanced is the code of RFC 3463 with which an answer's text may begin.
var enhanced = regexp.MustCompile(`^[45]\.(\d{1,3}\.\d{1,3})\b`)

// answer classes a reply by its code, the enhanced code where the server gives
// one, and the step. Of the server's text nothing else is looked at.
func answer(at step, a *textproto.Error) error {
	detail := ""
	if m := enhanced.FindStringSubmatch(a.Msg); m != nil {
		detail = m[1]
	}
	told := strconv.Itoa(a.Code)
	if detail != "" {
		told += " " + told[:1] + "." + detail
	}
	v := judge(at, a.Code, detail)
	return fault.Wrap(a, v.class, v.reason, "the server %s: %s at %s", v.what, told, at)
}

type verdict struct {
	class  fault.Class
	reason fault.Reason
	what   string
}

var (
	later        = verdict{fault.Retryable, fault.ReasonUnavailable, "cannot take it now"}
	strange      = verdict{fault.Retryable, fault.ReasonUnknown, "answered"}
	tooLarge     = verdict{fault.Permanent, fault.ReasonTooLarge, "takes no message of this size"}
	refused      = verdict{fault.Permanent, fault.ReasonRefused, "refuses the message"}
	full         = verdict{fault.Destination, fault.ReasonStorage, "has no space in the mailbox"}
	switchedOff  = verdict{fault.Destination, fault.ReasonGone, "says that host or mailbox take no mail"}
	unauthorized = verdict{fault.Destination, fault.ReasonUnauthorized, "refuses the router"}
	wrongAddress = verdict{fault.Destination, fault.ReasonMisconfigured, "does not take sender or recipient"}
	wrongServer  = verdict{fault.Destination, fault.ReasonMisconfigured, "does not speak as it should"}
)

// judge asks who would have to change something for the next attempt to succeed.
// detail is subject and detail of the enhanced code ("1.1" of 5.1.1), or "".
func judge(at step, code int, detail string) verdict {
	switch {
	case code == 432 && at == stepLogin: // a password has to be changed, RFC 4954 section 6
		return unauthorized
	case code >= 400 && code < 500:
		return later
	case code < 500 || code > 599:
		return strange
	case code == 521 || code == 556: // RFC 7504
		return switchedOff
	case code == 530 || code == 534 || code == 535 || code == 538: // RFC 4954 section 6
		return unauthorized
	}
	if v, ok := byDetail[detail]; ok {
		return v
	}
	subject, _, _ := strings.Cut(detail, ".")
	switch at {
	case stepGreeting:
		if code == 550 || code == 554 {
			return unauthorized
		}
		return wrongServer
	case stepTLS:
		return wrongServer
	case stepLogin:
		return unauthorized
	case stepSender, stepRecipient:
		switch {
		case subject == "7": // security and policy: no relaying, no access
			return unauthorized
		case code == 552 && at == stepSender: // answers SIZE, RFC 1870 section 6.1
			return tooLarge
		case code == 552:
			return full
		}
	case stepMessage:
		switch {
		case code == 552:
			return tooLarge
		case subject != "1": // of addresses, RFC 3463 section 3.2
			return refused
		}
	}
	// Sender and recipients are the same for every message of this destination.
	return wrongAddress
}

// Details that say more than the code, RFC 3463 and RFC 7372.
var byDetail = map[string]verdict{
	"2.1": switchedOff, // mailbox disabled
	"2.2": full,
	"3.1": full, // mail system full
	"2.3": tooLarge, "3.4": tooLarge,
	"7.8": unauthorized, "7.9": unauthorized, "7.14": unauthorized,
	// What SPF, DKIM, DMARC and reverse DNS say of the sender, not of a message.
	"7.20": unauthorized, "7.21": unauthorized, "7.22": unauthorized, "7.23": unauthorized, "7.24": unauthorized,
	"7.25": unauthorized, "7.26": unauthorized, "7.27": unauthorized,
}
