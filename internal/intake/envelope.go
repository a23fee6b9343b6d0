package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"weiche/internal/fault"
	"weiche/internal/jsonvalid"
	"weiche/internal/submission"
)

// envelopeSchema is the schema Submission of the OpenAPI document.
var envelopeSchema = sync.OnceValue(func() jsonvalid.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(OpenAPI()))
	if err == nil {
		c := jsonvalid.NewCompiler()
		if err = c.AddResource("https://weiche.example/openapi.json", doc); err == nil {
			var s *jsonschema.Schema
			if s, err = c.Compile("https://weiche.example/openapi.json#/components/schemas/Submission"); err == nil {
				return jsonvalid.New(s)
			}
		}
	}
	panic(fmt.Sprintf("intake: the schema Submission: %v", err)) // it is compiled in; a test reads it
})

// parsed is a submission whose envelope is sound.
type parsed struct {
	envelope *submission.Envelope
	form     any // data, decoded with json.Number
}

// parse scans and decodes a submission and checks its envelope. All faults of
// the envelope are told at once.
func parse(body []byte, maxDepth, maxAttachments int) (*parsed, *Problem) {
	text := string(body)
	if strings.TrimSpace(text) == "" {
		return nil, refuse(fault.ReasonMalformed, emptyBody)
	}
	if p := scan(text, maxDepth); p != nil {
		return nil, p
	}
	posted, err := submission.ReadPosted(text)
	if err != nil {
		return nil, NewProblem(fault.ReasonMalformed) // the scan read it, so this is for the fuzzer to find
	}
	if posted.Members == nil {
		return nil, refuse(fault.ReasonMalformed, malformedObject)
	}
	if list, ok := posted.Members[attachmentKey].([]any); ok && len(list) > maxAttachments {
		return nil, refuse(fault.ReasonTooMany, tooManyAttachments, maxAttachments)
	}
	if err := envelopeSchema().Validate(posted.Members); err != nil {
		p := NewProblem(fault.ReasonEnvelopeInvalid)
		p.Faults = SchemaFaults(err)
		return nil, p.tidy()
	}
	out := &parsed{envelope: posted.Envelope(), form: posted.Members["data"]}
	if p := uniqueAttachments(out.envelope.Attachments); p != nil {
		return nil, p
	}
	return out, nil
}

func uniqueAttachments(list []submission.Attachment) *Problem {
	p := NewProblem(fault.ReasonEnvelopeInvalid)
	ids, parts := map[string]bool{}, map[string]bool{}
	for i, a := range list {
		if ids[a.AttachmentID] {
			p.add(fmt.Sprintf("/attachments/%d/attachmentId", i), textSameID)
		}
		if a.Part != "" && parts[a.Part] {
			p.add(fmt.Sprintf("/attachments/%d/part", i), textSamePart)
		}
		ids[a.AttachmentID], parts[a.Part] = true, true
	}
	if len(p.Faults) > 0 {
		return p
	}
	return nil
}

// SchemaFaults turns an error of the JSON Schema validator into faults: each
// with its pointer and a sentence that names what is expected, never what was
// found. An error of another kind is one fault at the root.
func SchemaFaults(err error) []Fault {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return []Fault{{Text: Text{"cannot be checked against its schema", "lässt sich nicht gegen sein Schema prüfen"}}}
	}
	var out []Fault
	collect(v, &out)
	return out
}

func collect(v *jsonschema.ValidationError, out *[]Fault) {
	if len(*out) >= maxFaults {
		return
	}
	at := func(t Text, tail ...string) {
		var b strings.Builder
		for _, tok := range append(slices.Clip(v.InstanceLocation), tail...) {
			b.WriteByte('/')
			b.WriteString(escapePointer(tok))
		}
		*out = append(*out, Fault{b.String(), t})
	}
	num := func(en, de string, n any) Text { return Text{fmt.Sprintf(en, n), fmt.Sprintf(de, n)} }
	switch k := v.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			at(Text{"is missing", "fehlt"}, name)
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			at(Text{"is not a name that is known here", "ist kein Name, der hier bekannt ist"}, name)
		}
	case *kind.Type:
		want := strings.Join(k.Want, " / ")
		at(num("must be of type %s", "muss vom Typ %s sein", want))
	case *kind.Enum:
		at(num("must be one of %s", "muss eines von %s sein", list(k.Want)))
	case *kind.Const:
		at(num("must be %s", "muss %s sein", list([]any{k.Want})))
	case *kind.Format:
		at(num("must be a %s", "muss dem Format %s entsprechen", k.Want))
	case *kind.Pattern:
		at(num("must match the pattern %s", "muss dem Muster %s entsprechen", k.Want))
	case *kind.MinLength:
		at(num("must have at least %d characters", "muss mindestens %d Zeichen haben", k.Want))
	case *kind.MaxLength:
		at(num("must have at most %d characters", "darf höchstens %d Zeichen haben", k.Want))
	case *kind.MinItems:
		at(num("must have at least %d entries", "muss mindestens %d Einträge haben", k.Want))
	case *kind.MaxItems:
		at(num("must have at most %d entries", "darf höchstens %d Einträge haben", k.Want))
	case *kind.MinProperties:
		at(num("must have at least %d members", "muss mindestens %d Einträge haben", k.Want))
	case *kind.MaxProperties:
		at(num("must have at most %d members", "darf höchstens %d Einträge haben", k.Want))
	case *kind.UniqueItems:
		at(Text{"has the same entry twice", "hat denselben Eintrag zweimal"})
	case *kind.Minimum:
		at(num("must be at least %s", "muss mindestens %s sein", k.Want.RatString()))
	case *kind.Maximum:
		at(num("must be at most %s", "darf höchstens %s sein", k.Want.RatString()))
	case *kind.FalseSchema:
		at(Text{"is not allowed here", "ist hier nicht erlaubt"})
	case *kind.OneOf, *kind.AnyOf:
		// The branches contradict each other; telling all their faults would
		// only confuse. What the branches ask for is what helps.
		if names := alternatives(v); names != "" {
			at(num("must have exactly one of %s", "muss genau eines haben von: %s", names))
		} else {
			at(Text{"matches none of the shapes that are allowed here, or more than one", "entspricht keiner der hier erlaubten Formen, oder mehreren"})
		}
	default:
		if len(v.Causes) == 0 {
			at(Text{"does not match the schema", "entspricht nicht dem Schema"})
		}
		for _, c := range v.Causes {
			collect(c, out)
		}
	}
}

// alternatives names the members of which the branches of a oneOf require one.
func alternatives(v *jsonschema.ValidationError) string {
	if k, ok := v.ErrorKind.(*kind.OneOf); ok && len(k.Subschemas) > 0 && strings.HasSuffix(v.SchemaURL, "/schemas/Attachment") {
		return "content, part" // both are there, so no branch says what it misses
	}
	var names []string
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if r, ok := e.ErrorKind.(*kind.Required); ok && len(e.InstanceLocation) == len(v.InstanceLocation) {
			names = append(names, r.Missing...)
		}
		for _, c := range e.Causes {
			walk(c)
		}
	}
	for _, c := range v.Causes {
		walk(c)
	}
	return strings.Join(names, ", ")
}

// list writes the values a schema allows; they are the schema's, not the
// portal's.
func list(values []any) string {
	b, err := json.Marshal(values)
	if err != nil || len(b) > 300 {
		return "the values in the schema"
	}
	return strings.ReplaceAll(string(b[1:len(b)-1]), ",", ", ")
}
