package intake

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// ProblemBase begins the type URI of every problem; the reason word follows.
// Type URIs never change their meaning (RFC 9457, section 3.1.1).
const ProblemBase = "https://weiche.example/problems/"

// maxFaults bounds how many faults of one submission are told at once.
const maxFaults = 200

// Language is a language that problems are told in.
type Language uint8

// The languages. English is the one nobody has to ask for.
const (
	English Language = iota
	German
)

// Tag returns the language's BCP 47 tag.
func (l Language) Tag() string {
	if l == German {
		return "de"
	}
	return "en"
}

// Text is one sentence in every language.
type Text struct{ EN, DE string }

// In returns the sentence in a language.
func (t Text) In(l Language) string {
	if l == German && t.DE != "" {
		return t.DE
	}
	return t.EN
}

// detail is a Text with verbs for fmt.
type detail Text

// Fault is one thing that is wrong in what was posted. It names the place and
// says what is expected there; it never repeats the value.
type Fault struct {
	Pointer string // JSON pointer (RFC 6901) into the submission
	Text    Text
}

// Problem is a refusal. It is what a portal is told: an HTTP door renders it as
// RFC 9457 says, the Kafka door writes its reason beside the dead letter. It
// carries no payload. Err, the cause, is for the log's class only.
type Problem struct {
	Reason     fault.Reason
	Faults     []Fault
	RetryAfter time.Duration // zero: trying again changes nothing
	Allow      string        // methods, of method-not-allowed
	Err        error
	// Meta is what was known of the submission when it was refused: the zero
	// fields were not.
	Meta submission.Meta

	detail detail
	args   []any
}

// Error returns the reason and the English sentence.
func (p *Problem) Error() string { return string(p.Reason) + ": " + p.Detail(English) }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Cause says in the log's words what went wrong inside the router: a fault's own
// text, which is free of payload, or the kinds of the errors wrapped in each
// other. It is empty where the submission is at fault.
func (p *Problem) Cause() string {
	if p.Err == nil || !p.Temporary() {
		return ""
	}
	var f *fault.Error
	if errors.As(p.Err, &f) {
		return f.Error()
	}
	var kinds []string
	for err := p.Err; err != nil && len(kinds) < 5; err = errors.Unwrap(err) {
		kinds = append(kinds, fmt.Sprintf("%T", err))
	}
	return strings.Join(kinds, " < ")
}

// Status is the HTTP status of the refusal.
func (p *Problem) Status() int { return kindOf(p.Reason).status }

// Type is the problem's type URI.
func (p *Problem) Type() string { return ProblemBase + string(kindOf(p.Reason).reason) }

// Title names the type in a few words.
func (p *Problem) Title(l Language) string { return kindOf(p.Reason).title.In(l) }

// Detail is a sentence that a portal's developer can act on.
func (p *Problem) Detail(l Language) string {
	d := p.detail
	if d == (detail{}) {
		d = kindOf(p.Reason).detail
	}
	format := Text(d).In(l)
	if len(p.args) == 0 {
		return format
	}
	return fmt.Sprintf(format, p.args...)
}

// Temporary says whether the same submission may be accepted later without
// being changed: the fault is the router's.
func (p *Problem) Temporary() bool { return p.Status() >= http.StatusInternalServerError }

// Document is a problem document (RFC 9457) with the extension errors.
type Document struct {
	Type   string          `json:"type"`
	Title  string          `json:"title"`
	Status int             `json:"status"`
	Detail string          `json:"detail"`
	Errors []DocumentError `json:"errors,omitempty"`
}

// DocumentError is one fault of a Document.
type DocumentError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Document renders the problem.
func (p *Problem) Document(l Language) Document {
	d := Document{Type: p.Type(), Title: p.Title(l), Status: p.Status(), Detail: p.Detail(l)}
	for _, f := range p.Faults {
		d.Errors = append(d.Errors, DocumentError{Pointer: f.Pointer, Detail: f.Text.In(l)})
	}
	return d
}

// NewProblem makes a refusal with the reason's own sentence.
func NewProblem(r fault.Reason) *Problem {
	return &Problem{Reason: r, RetryAfter: kindOf(r).retryAfter}
}

func refuse(r fault.Reason, d detail, args ...any) *Problem {
	p := NewProblem(r)
	p.detail, p.args = d, args
	return p
}

func (p *Problem) add(pointer string, t Text) {
	if len(p.Faults) < maxFaults {
		p.Faults = append(p.Faults, Fault{Pointer: pointer, Text: t})
	}
}

func (p *Problem) at(pointer string, t Text) *Problem {
	p.add(pointer, t)
	return p
}

// tidy orders the faults by place and drops those told twice.
func (p *Problem) tidy() *Problem {
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
	p.Faults = slices.Compact(p.Faults)
	return p
}

// ProblemOf returns err as a problem. Faults of broker, storage and keys become
// refusals with Retry-After; what nobody has classed is "unknown".
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	f := fault.Of(err)
	r := fault.ReasonUnknown
	switch f.Reason {
	case fault.ReasonTooLarge:
		r = fault.ReasonTooLarge
	case fault.ReasonStorage, fault.ReasonBlobMissing:
		r = fault.ReasonStorage
	case fault.ReasonBrokerUnavailable, fault.ReasonQuorumLost, fault.ReasonNotAuthorised, fault.ReasonUnknownTopic,
		fault.ReasonUnavailable, fault.ReasonUnreachable, fault.ReasonTimeout, fault.ReasonInterrupted, fault.ReasonCancelled:
		r = fault.ReasonBrokerUnavailable
	}
	p = NewProblem(r)
	p.Err = err
	if f.RetryAfter > 0 {
		p.RetryAfter = f.RetryAfter
	}
	return p
}

// problemKind is one type of problem.
type problemKind struct {
	reason     fault.Reason
	status     int
	retryAfter time.Duration
	title      Text
	detail     detail
}

// kinds is every type of problem the doors answer with.
var kinds = []problemKind{
	{fault.ReasonMalformed, 400, 0,
		Text{"Malformed submission", "Unlesbare Einreichung"},
		detail{"The body cannot be read as JSON or as multipart/form-data.", "Der Inhalt ist weder als JSON noch als multipart/form-data lesbar."}},
	{fault.ReasonTooLarge, 413, 0,
		Text{"Too large", "Zu groß"},
		detail{"The submission, or something in it, is larger than allowed.", "Die Einreichung oder ein Teil davon ist größer als erlaubt."}},
	{fault.ReasonTooDeep, 400, 0,
		Text{"Nested too deeply", "Zu tief verschachtelt"},
		detail{"The JSON is nested deeper than allowed.", "Das JSON ist tiefer verschachtelt als erlaubt."}},
	{fault.ReasonTooMany, 413, 0,
		Text{"Too many elements", "Zu viele Elemente"},
		detail{"The submission has more values or attachments than allowed.", "Die Einreichung hat mehr Werte oder Anlagen als erlaubt."}},
	{fault.ReasonUnauthenticated, 401, 0,
		Text{"Not authenticated", "Nicht angemeldet"},
		detail{"The bearer token is not one this router knows. Send the API key of your portal, or a token of the issuer configured for it, as \"Authorization: Bearer …\".",
			"Das Bearer-Token ist diesem Router nicht bekannt. Senden Sie den API-Schlüssel Ihres Portals oder ein Token des dafür eingerichteten Ausstellers als „Authorization: Bearer …“."}},
	{fault.ReasonTokenMissing, 401, 0,
		Text{"No token", "Kein Token"},
		detail{"The request has no bearer token. Send \"Authorization: Bearer …\" with the API key or access token of your portal.",
			"Der Anfrage fehlt das Bearer-Token. Senden Sie „Authorization: Bearer …“ mit dem API-Schlüssel oder Zugriffstoken Ihres Portals."}},
	{fault.ReasonTokenExpired, 401, 0,
		Text{"Token expired", "Token abgelaufen"},
		detail{"The access token has expired. Fetch a new one from its issuer and send the request again.",
			"Das Zugriffstoken ist abgelaufen. Holen Sie beim Aussteller ein neues und senden Sie die Anfrage erneut."}},
	{fault.ReasonServiceForbidden, 403, 0,
		Text{"Service not allowed for this portal", "Leistung für dieses Portal nicht freigegeben"},
		detail{"This portal is not configured to send submissions for this service. Ask the router's operator to add it.",
			"Dieses Portal ist für diese Leistung nicht eingerichtet. Bitten Sie den Betreiber des Routers, sie freizugeben."}},
	{fault.ReasonLandForbidden, 403, 0,
		Text{"Land not allowed for this portal", "Land für dieses Portal nicht freigegeben"},
		detail{"This portal is not configured to send submissions for the Land that the region lies in. Ask the router's operator to add it.",
			"Dieses Portal ist für das Land, in dem die Region liegt, nicht eingerichtet. Bitten Sie den Betreiber des Routers, es freizugeben."}},
	{fault.ReasonUnknownService, 422, 0,
		Text{"Unknown service", "Unbekannte Leistung"},
		detail{"No process of the library serves this service. Check the LeiKa key in publicService.identifier.",
			"Kein Prozess der Bibliothek bedient diese Leistung. Prüfen Sie den LeiKa-Schlüssel in publicService.identifier."}},
	{fault.ReasonLandNotServed, 422, 0,
		Text{"Land not served", "Land nicht angeschlossen"},
		detail{"This router serves no authorities in the Land that the region lies in. Check the first two digits of the region.",
			"Dieser Router bedient keine Behörden in dem Land, in dem die Region liegt. Prüfen Sie die ersten zwei Ziffern der Region."}},
	{fault.ReasonServiceNotOffered, 422, 0,
		Text{"Service not offered", "Leistung nicht angeboten"},
		detail{"The Land that the region lies in does not offer this service through this router.",
			"Das Land, in dem die Region liegt, bietet diese Leistung über diesen Router nicht an."}},
	{fault.ReasonMalformedRegion, 422, 0,
		Text{"Malformed region", "Ungültige Region"},
		detail{"The region is not an Amtlicher Regionalschlüssel: 2, 3, 5, 9 or 12 digits are expected, beginning with a Land from 01 to 16, with DE before them or without.",
			"Die Region ist kein Amtlicher Regionalschlüssel: Erwartet werden 2, 3, 5, 9 oder 12 Ziffern, beginnend mit einem Land von 01 bis 16, mit oder ohne DE davor."}},
	{fault.ReasonEnvelopeInvalid, 422, 0,
		Text{"Invalid submission", "Ungültige Einreichung"},
		detail{"The submission does not match the schema Submission in /openapi.json; each fault is listed under errors.",
			"Die Einreichung entspricht nicht dem Schema Submission in /openapi.json; jeder Fehler steht unter errors."}},
	{fault.ReasonFormInvalid, 422, 0,
		Text{"Invalid form data", "Ungültige Formulardaten"},
		detail{"The form data does not match the JSON Schema of the service; each fault is listed under errors.",
			"Die Formulardaten entsprechen nicht dem JSON-Schema der Leistung; jeder Fehler steht unter errors."}},
	{fault.ReasonMessageRefused, 422, 0,
		Text{"No valid message", "Keine gültige Nachricht"},
		detail{"The message to the responsible authority that this submission would become breaks a rule of its standard; each rule is listed under errors.",
			"Die Nachricht an die zuständige Behörde, die aus dieser Einreichung entstünde, verletzt eine Regel ihres Standards; jede Regel steht unter errors."}},
	{fault.ReasonHashMismatch, 422, 0,
		Text{"Hash mismatch", "Prüfsumme falsch"},
		detail{"The bytes of an attachment do not have the SHA-512 that its hash declares. Hash the plain bytes of the file, before base64.",
			"Die Bytes einer Anlage haben nicht die SHA-512-Prüfsumme, die ihr hash angibt. Bilden Sie sie über die Datei selbst, vor base64."}},
	{fault.ReasonPartMismatch, 422, 0,
		Text{"Parts and attachments differ", "Dateiteile und Anlagen passen nicht zusammen"},
		detail{"Every attachment that names a part needs exactly one file part of that name, and every file part an attachment.",
			"Jede Anlage, die einen Teil nennt, braucht genau einen Dateiteil dieses Namens, und jeder Dateiteil eine Anlage."}},
	{fault.ReasonKeyMissing, 400, 0,
		Text{"No Idempotency-Key", "Kein Idempotency-Key"},
		detail{"Send an Idempotency-Key: one value for each submission, the same again when you repeat it.",
			"Senden Sie einen Idempotency-Key: einen Wert je Einreichung, denselben wieder, wenn Sie sie wiederholen."}},
	{fault.ReasonKeyMalformed, 400, 0,
		Text{"Malformed Idempotency-Key", "Ungültiger Idempotency-Key"},
		detail{"The Idempotency-Key must be one value of 1 to 255 printable ASCII characters, a UUID for example.",
			"Der Idempotency-Key muss ein einzelner Wert aus 1 bis 255 druckbaren ASCII-Zeichen sein, etwa eine UUID."}},
	{fault.ReasonKeyReused, 422, 0,
		Text{"Idempotency-Key reused", "Idempotency-Key schon verwendet"},
		detail{"Another submission was posted under this Idempotency-Key before. Repeat a submission byte for byte, or use a new key.",
			"Unter diesem Idempotency-Key wurde schon eine andere Einreichung gesendet. Wiederholen Sie eine Einreichung Byte für Byte, oder verwenden Sie einen neuen Schlüssel."}},
	{fault.ReasonMediaType, 415, 0,
		Text{"Unsupported media type", "Medientyp nicht unterstützt"},
		detail{"Send the submission as application/json, or as multipart/form-data with a part \"submission\" of type application/json, without a Content-Encoding.",
			"Senden Sie die Einreichung als application/json oder als multipart/form-data mit einem Teil „submission“ vom Typ application/json, ohne Content-Encoding."}},
	{fault.ReasonNotFound, 404, 0,
		Text{"Not found", "Nicht gefunden"},
		detail{"There is nothing here that this portal posted. What paths there are stands in /openapi.json.",
			"Hier gibt es nichts, was dieses Portal eingereicht hat. Welche Pfade es gibt, steht in /openapi.json."}},
	{fault.ReasonMethodNotAllowed, 405, 0,
		Text{"Method not allowed", "Methode nicht erlaubt"},
		detail{"The path does not know this method; see Allow, and /openapi.json.", "Der Pfad kennt diese Methode nicht; siehe Allow und /openapi.json."}},
	{fault.ReasonTooSlow, 408, 0,
		Text{"Too slow", "Zu langsam"},
		detail{"The request did not arrive completely within the time allowed. Send it again.",
			"Die Anfrage kam nicht in der erlaubten Zeit vollständig an. Senden Sie sie erneut."}},
	{fault.ReasonOverloaded, 503, 2 * time.Second,
		Text{"Too many requests", "Zu viele Anfragen"},
		detail{"The router has as many requests in hand as it may have. Repeat this one, with the same Idempotency-Key, after the time in Retry-After.",
			"Der Router bearbeitet schon so viele Anfragen, wie er darf. Wiederholen Sie diese mit demselben Idempotency-Key nach der Zeit in Retry-After."}},
	{fault.ReasonConfigBroken, 503, time.Minute,
		Text{"Land not available", "Land nicht verfügbar"},
		detail{"The configuration of the Land that the region lies in is being mended. Repeat the submission, with the same Idempotency-Key, after the time in Retry-After.",
			"Die Konfiguration des Landes, in dem die Region liegt, wird gerade berichtigt. Wiederholen Sie die Einreichung mit demselben Idempotency-Key nach der Zeit in Retry-After."}},
	{fault.ReasonStandardMissing, 503, time.Hour,
		Text{"Standard not installed", "Standard nicht installiert"},
		detail{"The standard that messages of this service are written in is not installed on this router. Its operator has to import it; repeat the submission later.",
			"Der Standard, in dem Nachrichten dieser Leistung geschrieben werden, ist auf diesem Router nicht installiert. Der Betreiber muss ihn einspielen; wiederholen Sie die Einreichung später."}},
	{fault.ReasonBrokerUnavailable, 503, 5 * time.Second,
		Text{"Not available", "Nicht verfügbar"},
		detail{"The submission could not be stored durably and may or may not have been kept. Repeat it, with the same Idempotency-Key, after the time in Retry-After.",
			"Die Einreichung konnte nicht dauerhaft gespeichert werden; ob sie angekommen ist, steht nicht fest. Wiederholen Sie sie mit demselben Idempotency-Key nach der Zeit in Retry-After."}},
	{fault.ReasonStorage, 503, 10 * time.Second,
		Text{"Not available", "Nicht verfügbar"},
		detail{"The router could not store the attachments. Repeat the submission, with the same Idempotency-Key, after the time in Retry-After.",
			"Der Router konnte die Anlagen nicht speichern. Wiederholen Sie die Einreichung mit demselben Idempotency-Key nach der Zeit in Retry-After."}},
	{fault.ReasonUnknown, 500, 10 * time.Second,
		Text{"Internal fault", "Interner Fehler"},
		detail{"The router failed. Repeat the submission, with the same Idempotency-Key, after the time in Retry-After.",
			"Im Router ist ein Fehler aufgetreten. Wiederholen Sie die Einreichung mit demselben Idempotency-Key nach der Zeit in Retry-After."}},
}

func kindOf(r fault.Reason) problemKind {
	for _, k := range kinds {
		if k.reason == r {
			return k
		}
	}
	return kinds[len(kinds)-1]
}

// Reasons returns the reason of every refusal, in a stable order.
func Reasons() []fault.Reason {
	out := make([]fault.Reason, len(kinds))
	for i, k := range kinds {
		out[i] = k.reason
	}
	return out
}

// Sentences that say more than the type's own.
var (
	malformedUTF8      = detail{"The body is not valid UTF-8.", "Der Inhalt ist kein gültiges UTF-8."}
	malformedEnd       = detail{"The JSON ends too early, at byte %d.", "Das JSON endet zu früh, bei Byte %d."}
	malformedSyntax    = detail{"The JSON has a syntax error at byte %d.", "Das JSON hat einen Syntaxfehler bei Byte %d."}
	malformedTail      = detail{"There is something behind the JSON document, at byte %d.", "Hinter dem JSON-Dokument steht noch etwas, bei Byte %d."}
	malformedSurrogate = detail{"A string has half a surrogate pair, at byte %d.", "Eine Zeichenkette enthält ein halbes Surrogatpaar, bei Byte %d."}
	malformedCharacter = detail{"A string has a control character that no XML message can carry, at byte %d.", "Eine Zeichenkette enthält ein Steuerzeichen, das keine XML-Nachricht tragen kann, bei Byte %d."}
	malformedTwice     = detail{"An object has two members of the same name.", "Ein Objekt hat zwei Einträge desselben Namens."}
	malformedObject    = detail{"The submission must be a JSON object.", "Die Einreichung muss ein JSON-Objekt sein."}
	malformedMultipart = detail{"The multipart body cannot be read: its structure is broken or it ends too early.", "Der multipart-Inhalt ist nicht lesbar: Seine Gliederung ist gestört oder er endet zu früh."}
	firstPart          = detail{"The first part of the body must be named \"submission\" and hold the JSON.", "Der erste Teil des Inhalts muss „submission“ heißen und das JSON enthalten."}
	emptyBody          = detail{"The body is empty; a JSON object is expected.", "Der Inhalt ist leer; erwartet wird ein JSON-Objekt."}
	issuerUnreachable  = detail{"The keys of the token's issuer cannot be fetched at the moment. Repeat the request after the time in Retry-After.", "Die Schlüssel des Token-Ausstellers sind gerade nicht abrufbar. Wiederholen Sie die Anfrage nach der Zeit in Retry-After."}
	stateUnavailable   = detail{"The state of the submission cannot be told at the moment. Ask again after the time in Retry-After.", "Der Stand der Einreichung ist gerade nicht abrufbar. Fragen Sie nach der Zeit in Retry-After erneut."}
	tooDeep            = detail{"The JSON is nested deeper than %d levels.", "Das JSON ist tiefer als %d Ebenen verschachtelt."}
	tooManyValues      = detail{"The JSON has more than %d values.", "Das JSON hat mehr als %d Werte."}
	tooManyAttachments = detail{"The submission has more than %d attachments.", "Die Einreichung hat mehr als %d Anlagen."}
	tooLongString      = detail{"A string or name is longer than %d bytes.", "Eine Zeichenkette oder ein Name ist länger als %d Bytes."}
	tooBigNumber       = detail{"A number has more than %d characters or an exponent over %d.", "Eine Zahl hat mehr als %d Zeichen oder einen Exponenten über %d."}
	tooLargeBody       = detail{"The body is larger than %d bytes. Send files as parts of multipart/form-data.", "Der Inhalt ist größer als %d Bytes. Senden Sie Dateien als Teile von multipart/form-data."}
	tooLargePart       = detail{"The part \"submission\" is larger than %d bytes. Send files as parts of their own.", "Der Teil „submission“ ist größer als %d Bytes. Senden Sie Dateien als eigene Teile."}
	tooLargeRecord     = detail{"The record is larger than %d bytes. Post large submissions over HTTP.", "Der Datensatz ist größer als %d Bytes. Senden Sie große Einreichungen über HTTP."}
	tooLargeFile       = detail{"An attachment is larger than %d bytes.", "Eine Anlage ist größer als %d Bytes."}
	tooLargeSum        = detail{"The submission as a whole is larger than %d bytes.", "Die Einreichung ist insgesamt größer als %d Bytes."}
	unknownPart        = detail{"File part %d of the body is named by no attachment, or its name came before.", "Dateiteil %d des Inhalts wird von keiner Anlage genannt, oder sein Name kam schon vor."}
	missingPart        = detail{"An attachment names a part that the body does not have.", "Eine Anlage nennt einen Teil, den der Inhalt nicht hat."}
	partWithoutBody    = detail{"An attachment names a part, but this body has no parts. Put the file into content, or send multipart/form-data.", "Eine Anlage nennt einen Teil, dieser Inhalt hat aber keine Teile. Senden Sie die Datei in content oder als multipart/form-data."}

	textTooDeep      = Text{"is nested too deeply", "ist zu tief verschachtelt"}
	textTooLong      = Text{"is too long a string", "ist eine zu lange Zeichenkette"}
	textTwice        = Text{"stands twice in its object", "steht zweimal in seinem Objekt"}
	textBigNumber    = Text{"is too long a number, or its exponent too large", "ist eine zu lange Zahl, oder ihr Exponent ist zu groß"}
	textSyntax       = Text{"is not valid JSON here or shortly after", "ist hier oder kurz danach kein gültiges JSON"}
	textCharacter    = Text{"has a control character", "enthält ein Steuerzeichen"}
	textService      = Text{"must be a LeiKa key: 14 digits beginning with 99, bare or behind urn:de:fim:leika:leistung:", "muss ein LeiKa-Schlüssel sein: 14 Ziffern, beginnend mit 99, allein oder hinter urn:de:fim:leika:leistung:"}
	textUnknown      = Text{"names a service that no process of the library serves", "nennt eine Leistung, die kein Prozess der Bibliothek bedient"}
	textServiceRight = Text{"names a service that this portal may not send", "nennt eine Leistung, die dieses Portal nicht senden darf"}
	textNotOffered   = Text{"names a service that the Land of the region does not offer", "nennt eine Leistung, die das Land der Region nicht anbietet"}
	textRegion       = Text{"must be an ARS of 2, 3, 5, 9 or 12 digits, with DE before it or without", "muss ein ARS mit 2, 3, 5, 9 oder 12 Ziffern sein, mit oder ohne DE davor"}
	textNotServed    = Text{"lies in a Land that this router does not serve", "liegt in einem Land, das dieser Router nicht bedient"}
	textLandRight    = Text{"lies in a Land that this portal may not send for", "liegt in einem Land, für das dieses Portal nicht senden darf"}
	textHash         = Text{"is not the SHA-512 of the attachment's bytes", "ist nicht die SHA-512-Prüfsumme der Anlage"}
	textBase64       = Text{"is not base64 (RFC 4648, section 4)", "ist kein base64 (RFC 4648, Abschnitt 4)"}
	textSameID       = Text{"is the id of another attachment too", "ist auch die Kennung einer anderen Anlage"}
	textSamePart     = Text{"is named by another attachment too", "wird auch von einer anderen Anlage genannt"}
	textNoPart       = Text{"names a part that the body does not have", "nennt einen Teil, den der Inhalt nicht hat"}
	textFileTooLarge = Text{"is too large", "ist zu groß"}
)

// TooLargeBody refuses a JSON body.
func TooLargeBody(limit int64) *Problem {
	return refuse(fault.ReasonTooLarge, tooLargeBody, limit)
}

// TooLargePart refuses a part "submission".
func TooLargePart(limit int64) *Problem {
	return refuse(fault.ReasonTooLarge, tooLargePart, limit)
}

// TooLargeSum refuses a submission as a whole.
func TooLargeSum(limit int64) *Problem { return refuse(fault.ReasonTooLarge, tooLargeSum, limit) }

// TooLargeRecord refuses a record of an intake topic.
func TooLargeRecord(limit int64) *Problem {
	return refuse(fault.ReasonTooLarge, tooLargeRecord, limit)
}

// MalformedMultipart refuses a multipart body that cannot be taken apart.
func MalformedMultipart() *Problem { return refuse(fault.ReasonMalformed, malformedMultipart) }

// FirstPart refuses a multipart body that does not begin with the submission.
func FirstPart() *Problem { return refuse(fault.ReasonMalformed, firstPart) }

// StateUnavailable says that a submission's state cannot be told at the moment.
func StateUnavailable() *Problem {
	return refuse(fault.ReasonBrokerUnavailable, stateUnavailable)
}
