package submission

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 asks for it; nothing rests on its strength
	"strconv"

	"github.com/google/uuid"
)

// namespace is the UUIDv5 namespace (RFC 9562, section 5.5) of every id that
// the router derives. It must never change: receivers drop duplicates by it.
var namespace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://weiche.example/ids/v1"))

// seed is what an id is derived from: the namespace, a kind, and its parts, each
// with its length, so that no two lists of parts give the same bytes.
type seed []byte

// seedBytes is room for nearly every seed, so that deriving an id allocates
// nothing: ids are derived several times for every record.
const seedBytes = 384

func (s seed) kind(k string) seed { return append(append(s, namespace[:]...), k...) }

func (s seed) part(p string) seed {
	s = strconv.AppendInt(append(s, 0), int64(len(p)), 10)
	return append(append(s, ':'), p...)
}

func (s seed) uuid(id uuid.UUID) seed { return appendUUID(append(s, 0, '3', '6', ':'), id) }

// id is uuid.NewSHA1 without its allocations.
func (s seed) id() uuid.UUID {
	sum := sha1.Sum(s) //nolint:gosec // as above
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 5<<4
	id[8] = id[8]&0x3f | 0x80 // variant of RFC 9562
	return id
}

// NewID derives the submission's id from portal and Idempotency-Key.
func NewID(portal, idempotencyKey string) uuid.UUID {
	return make(seed, 0, seedBytes).kind("submission").part(portal).part(idempotencyKey).id()
}

// NewCaseID derives the case of a submission whose portal named none.
func NewCaseID(id uuid.UUID) uuid.UUID { return make(seed, 0, seedBytes).kind("case").uuid(id).id() }

// NewDeliveryID derives the delivery's id, which is also the message's
// nachrichtenUUID: the same for every resend of the same bytes, another one for
// every raised revision.
func NewDeliveryID(id uuid.UUID, destination string, revision int) uuid.UUID {
	return make(seed, 0, seedBytes).kind("delivery").uuid(id).part(destination).part(strconv.Itoa(revision)).id()
}

// NewEventID derives an event's id from what the event is about, so that
// repeats collapse. parts tell events of one type apart (attempt number,
// redrive number, epoch).
func NewEventID(t EventType, subject uuid.UUID, parts ...string) uuid.UUID {
	s := make(seed, 0, seedBytes).kind("event").part(string(t)).uuid(subject)
	for _, p := range parts {
		s = s.part(p)
	}
	return s.id()
}
