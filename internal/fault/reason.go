package fault

// Reason is one word out of a bounded set; it is a metric label.
type Reason string

// Reasons at the door (intake).
const (
	ReasonMalformed         Reason = "malformed"           // not JSON, not multipart, wrong shape
	ReasonTooLarge          Reason = "too-large"           // body, record or attachment over its limit
	ReasonTooDeep           Reason = "too-deep"            // nesting over the limit
	ReasonTooMany           Reason = "too-many"            // more attachments, elements or requests than allowed
	ReasonUnauthenticated   Reason = "unauthenticated"     // no credential, unknown or expired
	ReasonForbidden         Reason = "forbidden"           // service or Land is not this portal's
	ReasonUnknownService    Reason = "unknown-service"     // no such service in the process library
	ReasonLandNotServed     Reason = "land-not-served"     // no configuration for this Land
	ReasonServiceNotOffered Reason = "service-not-offered" // the Land does not offer this service
	ReasonMalformedRegion   Reason = "malformed-region"    // not an ARS of 2, 3, 5, 9 or 12 digits
	ReasonFormInvalid       Reason = "form-invalid"        // the form breaks the service's JSON Schema
	ReasonMessageRefused    Reason = "message-refused"     // no message that its standard accepts can be written from the form
	ReasonHashMismatch      Reason = "hash-mismatch"       // attachment bytes do not match the declared hash
	ReasonKeyReused         Reason = "key-reused"          // other body under the same Idempotency-Key
	ReasonKeyMissing        Reason = "key-missing"         // no Idempotency-Key
	ReasonKeyMalformed      Reason = "key-malformed"       // not 1 to 255 printable ASCII characters
	ReasonTokenMissing      Reason = "token-missing"       // no bearer token
	ReasonTokenExpired      Reason = "token-expired"       // a token that was good once
	ReasonServiceForbidden  Reason = "service-forbidden"   // the service is not this portal's
	ReasonLandForbidden     Reason = "land-forbidden"      // the Land is not this portal's
	ReasonEnvelopeInvalid   Reason = "envelope-invalid"    // what surrounds the form breaks its schema
	ReasonPartMismatch      Reason = "part-mismatch"       // file parts and attachments do not fit together
	ReasonMediaType         Reason = "media-type"          // neither JSON nor multipart/form-data
	ReasonOverloaded        Reason = "overloaded"          // more requests in hand than allowed
	ReasonNotFound          Reason = "not-found"           // no such thing, or not this portal's
	ReasonMethodNotAllowed  Reason = "method-not-allowed"  // the path knows other methods
	ReasonTooSlow           Reason = "too-slow"            // the request did not arrive in time
)

// Reasons of deciding, mapping and checking (dispatch).
const (
	ReasonNoAuthority        Reason = "no-authority"
	ReasonSeveralAuthorities Reason = "several-authorities"
	ReasonNoDestination      Reason = "no-destination"      // the authority has no destination for this submission
	ReasonNoTestDestination  Reason = "no-test-destination" // test submission, no test destination
	ReasonNoFormat           Reason = "no-format"           // the destination takes no format this service can be mapped to
	ReasonStandardMissing    Reason = "standard-missing"    // the format's standard is not installed
	ReasonMappingFailed      Reason = "mapping-failed"
	ReasonSchemaInvalid      Reason = "schema-invalid" // the message breaks its XSD
	ReasonCharacters         Reason = "characters"     // a character that the field's DIN 91379 type does not have
	ReasonNotWellFormed      Reason = "not-well-formed"
	ReasonCodeListUnknown    Reason = "code-list-unknown"     // a version that the code list does not have
	ReasonCodeListMissing    Reason = "code-list-missing"     // a code list that is not installed
	ReasonCodeUnknown        Reason = "code-unknown"          // a code that its list does not have
	ReasonAuthorityKey       Reason = "authority-key-unknown" // no key of the DVDV, by shape and prefix
	ReasonVersionNotServed   Reason = "version-not-served"    // a standard's version that is not installed
	ReasonMessageNotServed   Reason = "message-not-served"    // a message that the standard does not have
	ReasonMessageID          Reason = "message-id"            // nachrichtenUUID is none, or not this message's
	ReasonMessageIDReused    Reason = "message-id-reused"     // the same nachrichtenUUID over another message
	ReasonMessageType        Reason = "message-type"          // the code of the kind is not the message's
	ReasonTestMark           Reason = "test-mark"             // the mark of test messages where it must not be, or missing
	ReasonEmptyElement       Reason = "empty-element"
	ReasonOutOfValidity      Reason = "out-of-validity" // the standard's time has not come or is over
	ReasonUndecodable        Reason = "undecodable"     // a record nobody can read
	ReasonUndecryptable      Reason = "undecryptable"   // key gone or bytes forged
	ReasonConfigBroken       Reason = "config-broken"   // the Land's configuration is refused at the moment
)

// Reasons of delivery.
const (
	ReasonDelivered     Reason = "ok"
	ReasonTooManyDead   Reason = "too-many-dead" // most of its newest deliveries were refused for good
	ReasonHandedOver    Reason = "handed-over"   // the destination's word comes later
	ReasonRefused       Reason = "refused"       // the receiver says: not this message, ever
	ReasonUnavailable   Reason = "unavailable"   // 5xx, 429: for now
	ReasonUnreachable   Reason = "unreachable"   // connection refused, DNS, no route
	ReasonUnauthorized  Reason = "unauthorized"  // our credential is refused
	ReasonCertificate   Reason = "certificate"   // TLS trust or expiry
	ReasonGone          Reason = "gone"          // 410: the destination is switched off
	ReasonRedirected    Reason = "redirected"
	ReasonTimeout       Reason = "timeout"
	ReasonInterrupted   Reason = "interrupted"   // the transfer broke off
	ReasonStorage       Reason = "storage"       // disk full, permission, missing directory
	ReasonMisconfigured Reason = "misconfigured" // destination settings do not work
	ReasonPaused        Reason = "paused"        // the destination is paused
	ReasonBehindCase    Reason = "behind-case"   // parked behind an earlier one of its case
	ReasonGaveUp        Reason = "gave-up"       // retried for as long as the policy allows
	ReasonNoReport      Reason = "no-report"     // handed over, and the destination never said what became of it
	ReasonBlobMissing   Reason = "blob-missing"  // an attachment's bytes are gone
	ReasonBusy          Reason = "busy"          // the destination's share of work is used up
)

// Reasons of the engine.
const (
	ReasonBrokerUnavailable Reason = "broker-unavailable"
	ReasonQuorumLost        Reason = "quorum-lost"
	ReasonNotAuthorised     Reason = "not-authorised" // the broker's ACL says no
	ReasonUnknownTopic      Reason = "unknown-topic"
	ReasonOperator          Reason = "operator" // an operator decided so
	ReasonCancelled         Reason = "cancelled"
	ReasonUnknown           Reason = "unknown"
)

// Reasons returns every reason, so that metrics exist at zero and a test can
// prove that the set is bounded.
func Reasons() []Reason {
	return []Reason{
		ReasonMalformed, ReasonTooLarge, ReasonTooDeep, ReasonTooMany, ReasonUnauthenticated, ReasonForbidden,
		ReasonUnknownService, ReasonLandNotServed, ReasonServiceNotOffered, ReasonMalformedRegion, ReasonFormInvalid, ReasonMessageRefused,
		ReasonHashMismatch, ReasonKeyReused, ReasonKeyMissing, ReasonKeyMalformed, ReasonTokenMissing, ReasonTokenExpired,
		ReasonServiceForbidden, ReasonLandForbidden, ReasonEnvelopeInvalid, ReasonPartMismatch, ReasonMediaType,
		ReasonOverloaded, ReasonNotFound, ReasonMethodNotAllowed, ReasonTooSlow,
		ReasonNoAuthority, ReasonSeveralAuthorities, ReasonNoDestination, ReasonNoTestDestination, ReasonNoFormat,
		ReasonStandardMissing, ReasonMappingFailed, ReasonSchemaInvalid,
		ReasonCharacters, ReasonNotWellFormed, ReasonCodeListUnknown, ReasonCodeListMissing, ReasonCodeUnknown, ReasonAuthorityKey,
		ReasonVersionNotServed, ReasonMessageNotServed, ReasonMessageID, ReasonMessageIDReused, ReasonMessageType, ReasonTestMark,
		ReasonEmptyElement, ReasonOutOfValidity, ReasonUndecodable, ReasonUndecryptable, ReasonConfigBroken,
		ReasonDelivered, ReasonHandedOver, ReasonTooManyDead, ReasonRefused, ReasonUnavailable, ReasonUnreachable, ReasonUnauthorized, ReasonCertificate,
		ReasonGone, ReasonRedirected, ReasonTimeout, ReasonInterrupted, ReasonStorage, ReasonMisconfigured, ReasonPaused,
		ReasonBehindCase, ReasonGaveUp, ReasonNoReport, ReasonBlobMissing, ReasonBusy,
		ReasonBrokerUnavailable, ReasonQuorumLost, ReasonNotAuthorised, ReasonUnknownTopic, ReasonOperator,
		ReasonCancelled, ReasonUnknown,
	}
}
