package submission

import (
	"strconv"

	"github.com/google/uuid"
)

// namespace is the UUIDv5 namespace (RFC 9562, section 5.5) of every id that
// the router derives. It must never change: receivers drop duplicates by it.
var namespace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://weiche.example/ids/v1"))

func derive(kind string, parts ...string) uuid.UUID {
	b := []byte(kind)
	for _, p := range parts {
		b = append(b, 0)
		b = strconv.AppendInt(b, int64(len(p)), 10)
		b = append(b, ':')
		b = append(b, p...)
	}
	return uuid.NewSHA1(namespace, b)
}

// NewID derives the submission's id from portal and Idempotency-Key.
func NewID(portal, idempotencyKey string) uuid.UUID {
	return derive("submission", portal, idempotencyKey)
}

// NewCaseID derives the case of a submission whose portal named none.
func NewCaseID(id uuid.UUID) uuid.UUID { return derive("case", id.String()) }

// NewDeliveryID derives the delivery's id, which is also the message's
// nachrichtenUUID: the same for every resend of the same bytes, another one for
// every raised revision.
func NewDeliveryID(id uuid.UUID, destination string, revision int) uuid.UUID {
	return derive("delivery", id.String(), destination, strconv.Itoa(revision))
}

// NewEventID derives an event's id from what the event is about, so that
// repeats collapse. parts tell events of one type apart (attempt number,
// redrive number, epoch).
func NewEventID(t EventType, subject uuid.UUID, parts ...string) uuid.UUID {
	return derive("event", append([]string{string(t), subject.String()}, parts...)...)
}
