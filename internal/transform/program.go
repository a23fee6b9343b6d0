package transform

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/beevik/etree"
	"github.com/expr-lang/expr/vm"
	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Bounds of one message. A mapping that would exceed one of them fails for that
// message, permanently.
const (
	maxMessageBytes = 64 << 20
	maxSteps        = 20_000_000 // of the program, so that loops in loops end
)

// Input is everything a message is made of. Nothing in it is changed.
type Input struct {
	Form       any // decoded JSON; numbers as json.Number or float64
	Envelope   *submission.Envelope
	Message    MessageInput
	Submission SubmissionInput
	Portal     PortalInput
	Authority  submission.Authority
	// Attachments have SHA-512 and size; where nil, those of the envelope count.
	Attachments []submission.Attachment
	// Open returns the plain bytes of one of them, the caller's to close. Only what
	// w:inline writes is opened; its faults come back from Apply as they are.
	Open func(submission.Attachment) (io.ReadCloser, error)
	// Outline leaves files closed: the message has a few bytes in place of each, or
	// as many where its type bounds them. It passes or breaks the same rules, and
	// is for finding that out, never for sending.
	Outline bool
}

// MessageInput identifies the message.
type MessageInput struct {
	ID        uuid.UUID // the delivery id, nachrichtenUUID
	CreatedAt time.Time
}

// SubmissionInput identifies the submission.
type SubmissionInput struct {
	ID         uuid.UUID
	CaseID     uuid.UUID
	Service    submission.Service
	Region     submission.Region
	AcceptedAt time.Time
	Test       bool
}

// PortalInput is the sender in the message's header.
type PortalInput struct {
	Key  submission.AuthorityKey
	Name string
}

func (in *Input) attachments() []submission.Attachment {
	if in.Attachments == nil && in.Envelope != nil {
		return in.Envelope.Attachments
	}
	return in.Attachments
}

// environment builds the variables of the expressions.
func (m *Mapping) environment(in Input) map[string]any {
	attachments := in.attachments()
	sub := map[string]any{
		"id": in.Submission.ID.String(), "caseId": in.Submission.CaseID.String(),
		"service": string(in.Submission.Service), "serviceURN": in.Submission.Service.URN(),
		"region": string(in.Submission.Region), "test": in.Submission.Test,
	}
	if len(in.Submission.Region) >= 2 {
		sub["land"] = string(in.Submission.Region.Land())
	}
	if !in.Submission.AcceptedAt.IsZero() {
		sub["acceptedAt"] = in.Submission.AcceptedAt.In(berlin).Format(dateTimeLayout)
	}
	if e := in.Envelope; e != nil {
		sub["trustLevel"] = e.TrustLevel
		if a := e.AdditionalReferenceInfo; a != nil {
			sub["applicationDate"] = a.ApplicationDate
			sub["senderReference"] = a.SenderReference
		}
	}
	list := make([]any, len(attachments))
	for i, a := range attachments {
		list[i] = map[string]any{
			"attachmentId": a.AttachmentID, "filename": a.Filename, "mimeType": a.MIMEType, "purpose": a.Purpose,
			"sha512": a.Hash.Content, "size": int(a.Size), "description": a.Description,
		}
	}
	return map[string]any{
		"form":       in.Form,
		"message":    map[string]any{"id": in.Message.ID.String(), "createdAt": in.Message.CreatedAt.In(berlin).Format(dateTimeLayout), "type": m.message},
		"submission": sub,
		"authority": map[string]any{
			"id": in.Authority.ID, "key": string(in.Authority.Key), "prefix": in.Authority.Key.Prefix(),
			"kennung": in.Authority.Key.Key(), "name": in.Authority.Name, "region": string(in.Authority.Region),
		},
		"portal": map[string]any{
			"key": string(in.Portal.Key), "prefix": in.Portal.Key.Prefix(), "kennung": in.Portal.Key.Key(), "name": in.Portal.Name,
		},
		"attachments": list,
	}
}

type opcode uint8

const (
	opStart  opcode = iota // an element's start tag up to its last constant attribute
	opAttr                 // an attribute with expressions in it
	opOpened               // the start tag's end
	opText                 // constant text
	opValue                // text with expressions in it
	opInline               // a file's content
	opEnd                  // the element's end, or its undoing
	opData                 // generic groups and fields
	opLet                  // a name for a value
	opUnless               // jump where the condition is false
	opJump                 //
	opFor                  // begin a loop, or jump where the list is empty
	opNext                 // next item, jump back
)

type op struct {
	code   opcode
	node   *node
	attr   *nodeAttr
	expr   *expression
	value  *template
	target int
	name   string
	index  string
	// bytes as they leave, escaped
	bytes  []byte
	bytes2 []byte
}

// program is a mapping, flattened.
type program struct {
	ops []op
}

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func compileProgram(root *node) *program {
	p := &program{}
	p.node(root)
	return p
}

func (p *program) emit(o op) int { p.ops = append(p.ops, o); return len(p.ops) - 1 }

func (p *program) node(n *node) {
	loop := -1
	if n.each != nil {
		loop = p.emit(op{code: opFor, node: n, expr: n.each, name: n.eachKey, index: n.indexKey})
	}
	for _, l := range n.lets {
		p.emit(op{code: opLet, node: n, expr: l.expr, name: l.key})
	}
	skip := -1
	if n.cond != nil && n.kind != nodeWhen {
		skip = p.emit(op{code: opUnless, node: n, expr: n.cond})
	}
	switch n.kind {
	case nodeElement:
		p.element(n)
	case nodeData:
		p.emit(op{code: opData, node: n, expr: n.data})
	case nodeChoose:
		var ends []int
		for _, w := range n.children {
			next := -1
			for _, l := range w.lets {
				p.emit(op{code: opLet, node: w, expr: l.expr, name: l.key})
			}
			if w.kind == nodeWhen {
				next = p.emit(op{code: opUnless, node: w, expr: w.cond})
			}
			for _, c := range w.children {
				p.node(c)
			}
			ends = append(ends, p.emit(op{code: opJump}))
			if next >= 0 {
				p.ops[next].target = len(p.ops)
			}
		}
		for _, e := range ends {
			p.ops[e].target = len(p.ops)
		}
	default:
		for _, c := range n.children {
			p.node(c)
		}
	}
	if skip >= 0 {
		p.ops[skip].target = len(p.ops)
	}
	if loop >= 0 {
		p.emit(op{code: opNext, node: n, target: loop + 1, name: n.eachKey, index: n.indexKey})
		p.ops[loop].target = len(p.ops)
	}
}

func (p *program) element(n *node) {
	start := []byte("<" + n.tag)
	var dynamic []*nodeAttr
	for i := range n.attrs {
		a := &n.attrs[i]
		// Attributes leave in the order they are written: once one is dynamic,
		// those behind it are written at run time too.
		if c, ok := a.value.constant(); ok && len(dynamic) == 0 {
			start = append(start, ' ')
			start = append(start, a.tag...)
			start = append(start, '=', '"')
			start, _ = appendAttr(start, c)
			start = append(start, '"')
		} else {
			dynamic = append(dynamic, a)
		}
	}
	p.emit(op{code: opStart, node: n, bytes: start, bytes2: []byte("</" + n.tag + ">"), target: len(n.attrs) - len(dynamic)})
	for _, a := range dynamic {
		p.emit(op{code: opAttr, node: n, attr: a, value: a.value, bytes: []byte(" " + a.tag + `="`)})
	}
	p.emit(op{code: opOpened, node: n})
	switch {
	case n.inline != nil:
		p.emit(op{code: opInline, node: n, expr: n.inline.expr})
	case n.value != nil:
		if c, ok := n.value.constant(); ok {
			escaped, _ := appendText(nil, c)
			p.emit(op{code: opText, node: n, bytes: escaped, name: c})
		} else {
			p.emit(op{code: opValue, node: n, value: n.value})
		}
	}
	for _, c := range n.children {
		p.node(c)
	}
	p.emit(op{code: opEnd, node: n, bytes2: []byte("</" + n.tag + ">")})
}

// sink takes what a program writes. The mark that start returns undoes the
// element and everything in it.
type sink interface {
	start(o *op)
	attr(o *op, value string) error
	opened()
	text(o *op, s string) error // o is set for constant text
	// file writes so many bytes of content, that of the i-th file, as base64.
	file(i int, a submission.Attachment, content io.Reader, size int64) error
	end(o *op, empty bool)
	undo()
	// data writes a generic element's start tag; fields are closed with text.
	dataStart(parent *node, local string, d dataItem) error
	dataEnd()
	size() int
}

// byteSink writes the message's bytes.
type byteSink struct {
	buf   []byte
	marks []int
	tags  []string // of generic elements
	files int      // bytes of base64 among buf
	rest  int      // what the rest of the message may take
}

func (s *byteSink) start(o *op) {
	s.marks = append(s.marks, len(s.buf))
	s.buf = append(s.buf, o.bytes...)
}

func (s *byteSink) attr(o *op, value string) (err error) {
	s.buf = append(s.buf, o.bytes...)
	s.buf, err = appendAttr(s.buf, value)
	s.buf = append(s.buf, '"')
	return err
}

func (s *byteSink) opened() { s.buf = append(s.buf, '>') }

func (s *byteSink) text(o *op, text string) (err error) {
	if o != nil {
		s.buf = append(s.buf, o.bytes...)
		return nil
	}
	s.buf, err = appendText(s.buf, text)
	return err
}

func (s *byteSink) end(o *op, empty bool) {
	s.marks = s.marks[:len(s.marks)-1]
	if empty {
		s.buf = append(s.buf[:len(s.buf)-1], '/', '>')
		return
	}
	s.buf = append(s.buf, o.bytes2...)
}

func (s *byteSink) undo() {
	s.buf = s.buf[:s.marks[len(s.marks)-1]]
	s.marks = s.marks[:len(s.marks)-1]
}

func (s *byteSink) dataStart(parent *node, local string, d dataItem) (err error) {
	tag := genericTag(parent, local)
	s.tags = append(s.tags, tag)
	s.buf = append(s.buf, '<')
	s.buf = append(s.buf, tag...)
	for _, a := range d.attrs() {
		s.buf = append(s.buf, ' ')
		s.buf = append(s.buf, a.name...)
		s.buf = append(s.buf, '=', '"')
		if s.buf, err = appendAttr(s.buf, a.value); err != nil {
			return err
		}
		s.buf = append(s.buf, '"')
	}
	s.buf = append(s.buf, '>')
	return nil
}

func (s *byteSink) dataEnd() {
	s.buf = append(s.buf, '<', '/')
	s.buf = append(s.buf, s.tags[len(s.tags)-1]...)
	s.buf = append(s.buf, '>')
	s.tags = s.tags[:len(s.tags)-1]
}

func (s *byteSink) size() int { return len(s.buf) }

func genericTag(parent *node, local string) string {
	if prefix, _, ok := strings.Cut(parent.tag, ":"); ok {
		return prefix + ":" + local
	}
	return local
}

// treeSink builds the message with etree.
type treeSink struct {
	doc *etree.Document
	at  *etree.Element
}

func (s *treeSink) start(o *op) {
	el := etree.NewElement(o.node.tag)
	if s.at == nil {
		s.doc.SetRoot(el)
	} else {
		s.at.AddChild(el)
	}
	for i := range o.node.attrs[:o.target] {
		c, _ := o.node.attrs[i].value.constant()
		el.CreateAttr(o.node.attrs[i].tag, c)
	}
	s.at = el
}

func (s *treeSink) attr(o *op, value string) error {
	_, err := appendAttr(nil, value)
	s.at.CreateAttr(o.attr.tag, value)
	return err
}

func (s *treeSink) opened() {}

func (s *treeSink) text(o *op, text string) error {
	_, err := appendText(nil, text)
	s.at.CreateText(text)
	return err
}

func (s *treeSink) end(*op, bool) { s.at = s.at.Parent() }

func (s *treeSink) undo() {
	parent := s.at.Parent()
	if parent != nil {
		parent.RemoveChild(s.at)
	}
	s.at = parent
}

func (s *treeSink) dataStart(parent *node, local string, d dataItem) error {
	s.at = s.at.CreateElement(genericTag(parent, local))
	for _, a := range d.attrs() {
		if _, err := appendAttr(nil, a.value); err != nil {
			return err
		}
		s.at.CreateAttr(a.name, a.value)
	}
	return nil
}

func (s *treeSink) dataEnd()  { s.at = s.at.Parent() }
func (s *treeSink) size() int { return 0 }

// appendText escapes as canonical XML does: &, <, > and carriage return.
func appendText(dst []byte, s string) ([]byte, error) {
	last := 0
	for i := 0; i < len(s); {
		c := s[i]
		var esc string
		switch {
		case c == '&':
			esc = "&amp;"
		case c == '<':
			esc = "&lt;"
		case c == '>':
			esc = "&gt;"
		case c == '\r':
			esc = "&#xD;"
		case c >= 0x20 && c < utf8.RuneSelf || c == '\t' || c == '\n':
			i++
			continue
		default:
			n, err := xmlRune(s[i:])
			if err != nil {
				return dst, err
			}
			i += n
			continue
		}
		dst = append(append(dst, s[last:i]...), esc...)
		i++
		last = i
	}
	return append(dst, s[last:]...), nil
}

// appendAttr escapes as canonical XML does: &, <, ", tab, newline and carriage
// return.
func appendAttr(dst []byte, s string) ([]byte, error) {
	last := 0
	for i := 0; i < len(s); {
		c := s[i]
		var esc string
		switch {
		case c == '&':
			esc = "&amp;"
		case c == '<':
			esc = "&lt;"
		case c == '"':
			esc = "&quot;"
		case c == '\t':
			esc = "&#x9;"
		case c == '\n':
			esc = "&#xA;"
		case c == '\r':
			esc = "&#xD;"
		case c >= 0x20 && c < utf8.RuneSelf:
			i++
			continue
		default:
			n, err := xmlRune(s[i:])
			if err != nil {
				return dst, err
			}
			i += n
			continue
		}
		dst = append(append(dst, s[last:i]...), esc...)
		i++
		last = i
	}
	return append(dst, s[last:]...), nil
}

const errNotXML = valueError("the value has a character that XML cannot carry")

// xmlRune is the length of the character s begins with, where XML 1.0 has it.
func xmlRune(s string) (int, error) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n <= 1 || r < 0x20 || r == 0xFFFE || r == 0xFFFF {
		return 0, errNotXML
	}
	return n, nil
}

// run is one execution.
type run struct {
	m     *Mapping
	env   map[string]any
	vm    vm.VM
	out   sink
	loops []loop
	open  []openElement
	files files
	trace *tracer // nil but for Trace
}

type loop struct {
	list []any
	at   int
	of   *expression
}

type openElement struct {
	content bool
}

var runs = sync.Pool{New: func() any { return &run{} }}

// Apply builds the message. It is safe for concurrent use. Errors are
// *fault.Error, permanent, mapping-failed; they name the place in the mapping
// and never a value.
func (m *Mapping) Apply(in Input) ([]byte, error) {
	room := max(4096, int(m.lastSize.Load())*5/4)
	out := &byteSink{buf: make([]byte, 0, room), marks: make([]int, 0, 16), rest: room}
	out.buf = append(out.buf, xmlDeclaration...)
	if err := m.run(in, out); err != nil {
		return nil, err
	}
	m.lastSize.Store(int64(len(out.buf) - out.files))
	return out.buf, nil
}

// ApplyTree builds the same message as Apply with etree; tests compare the two.
func (m *Mapping) ApplyTree(in Input) (*etree.Document, error) {
	doc := etree.NewDocument()
	doc.WriteSettings.CanonicalText = true
	doc.WriteSettings.CanonicalAttrVal = true
	doc.CreateProcInst("xml", `version="1.0" encoding="UTF-8"`)
	doc.CreateText("\n")
	if err := m.run(in, &treeSink{doc: doc}); err != nil {
		return nil, err
	}
	return doc, nil
}

func (m *Mapping) run(in Input, out sink) (err error) {
	r, _ := runs.Get().(*run)
	*r = run{m: m, env: m.environment(in), out: out, loops: r.loops[:0], open: r.open[:0]}
	r.trace, _ = out.(*tracer)
	r.files = files{list: in.attachments(), open: in.Open, outline: in.Outline || r.trace != nil, collect: in.Outline}
	r.vm.MemoryBudget = memoryBudget
	at := -1
	defer func() {
		// The virtual machine recovers its own panics; whatever remains must
		// cost one message, not the process.
		if p := recover(); p != nil {
			err = fault.New(fault.Permanent, fault.ReasonMappingFailed, "the mapping failed unexpectedly at %s", m.place(at))
		}
		clear(r.loops[:cap(r.loops)])
		*r = run{loops: r.loops[:0], open: r.open[:0]}
		runs.Put(r)
	}()
	err = r.execute(&at)
	if len(r.files.refused) > 0 {
		return m.failed(r.files.first, r.files.refused)
	}
	return err
}

func (m *Mapping) place(at int) string {
	if at >= 0 && at < len(m.prog.ops) && m.prog.ops[at].node != nil {
		o := m.prog.ops[at]
		line := o.node.line
		if o.attr != nil {
			line = o.attr.line
		}
		if in := line.fragment(); in != "" {
			return fmt.Sprintf("%s:%d <%s> (fragment %s)", m.File, line.use(), o.node.tag, in)
		}
		return fmt.Sprintf("%s:%d <%s>", m.File, line.line, o.node.tag)
	}
	return m.File
}

func (m *Mapping) failed(at int, err error) error {
	text := "the value cannot be written"
	var ve valueError
	var told *fault.Error // by what opens files
	switch {
	case errors.As(err, &ve):
		text = string(ve)
	case len(Refusals(err)) > 0:
		first := Refusals(err)[0]
		return fault.Wrap(err, fault.Permanent, fault.ReasonMappingFailed, "%s: %s (%s)", m.place(at), first.EN, first.Rule)
	case errors.As(err, &told):
		return told
	}
	return fault.New(fault.Permanent, fault.ReasonMappingFailed, "%s: %s", m.place(at), text)
}

func (r *run) execute(at *int) error {
	ops := r.m.prog.ops
	steps := 0
	for pc := 0; pc < len(ops); {
		o := &ops[pc]
		*at = pc
		if r.trace != nil {
			r.trace.look(r, o)
		}
		if steps++; steps > maxSteps {
			return r.m.failed(pc, valueError("the message takes more steps than allowed"))
		}
		switch o.code {
		case opStart:
			if r.out.size()+r.files.left > maxMessageBytes {
				return r.m.failed(pc, valueError("the message is larger than allowed"))
			}
			r.out.start(o)
			r.open = append(r.open, openElement{})
		case opAttr:
			s, err := r.template(o.value)
			if err != nil {
				return r.m.failed(pc, err)
			}
			if _, constant := o.value.constant(); s != "" || constant {
				if err := r.out.attr(o, s); err != nil {
					return r.m.failed(pc, err)
				}
			}
		case opOpened:
			r.out.opened()
		case opText:
			if err := r.out.text(o, o.name); err != nil {
				return r.m.failed(pc, err)
			}
			r.content()
		case opValue:
			s, err := r.template(o.value)
			if err != nil {
				return r.m.failed(pc, err)
			}
			if s != "" {
				if err := r.out.text(nil, s); err != nil {
					return r.m.failed(pc, err)
				}
				r.content()
			}
		case opInline:
			v, err := r.eval(o.expr)
			var some bool
			if err == nil {
				some, err = r.inline(pc, o, v)
			}
			if err != nil {
				return r.m.failed(pc, err)
			}
			if some {
				r.content()
			}
		case opEnd:
			content := r.open[len(r.open)-1].content
			r.open = r.open[:len(r.open)-1]
			n := o.node
			switch {
			case content:
				r.out.end(o, false)
				r.content()
			case n.required:
				return r.m.failed(pc, valueError("the value is required and is missing"))
			case n.keep || len(r.open) == 0 || n.value == nil && len(n.children) == 0:
				r.out.end(o, true)
				r.content()
			default:
				r.out.undo()
			}
		case opData:
			v, err := r.eval(o.expr)
			if err == nil {
				var some bool
				some, err = (&dataWalk{to: dataXML{r.out, o.node.inside}}).members(o.node.dataDeep, v, 0)
				if some {
					r.content()
				}
			}
			if err != nil {
				return r.m.failed(pc, err)
			}
		case opLet:
			v, err := r.eval(o.expr)
			if err != nil {
				return r.m.failed(pc, err)
			}
			r.env[o.name] = v
		case opUnless:
			v, err := r.eval(o.expr)
			if err != nil {
				return r.m.failed(pc, err)
			}
			yes, err := toBool(v)
			if err != nil {
				return r.m.failed(pc, err)
			}
			if !yes {
				pc = o.target
				continue
			}
		case opJump:
			pc = o.target
			continue
		case opFor:
			v, err := r.eval(o.expr)
			if err != nil {
				return r.m.failed(pc, err)
			}
			list, ok := v.([]any)
			if v != nil && !ok {
				return r.m.failed(pc, valueError("the value is not a list"))
			}
			if len(list) == 0 {
				pc = o.target
				continue
			}
			r.loops = append(r.loops, loop{list: list, of: o.expr})
			r.env[o.name], r.env[o.index] = list[0], 0
		case opNext:
			l := &r.loops[len(r.loops)-1]
			if l.at++; l.at < len(l.list) {
				r.env[o.name], r.env[o.index] = l.list[l.at], l.at
				pc = o.target
				continue
			}
			r.loops = r.loops[:len(r.loops)-1]
		}
		pc++
	}
	return nil
}

func (r *run) content() {
	if n := len(r.open); n > 0 {
		r.open[n-1].content = true
	}
}

// template is "" as soon as one of its expressions is empty: what would be left
// of "Flur {x}" says nothing.
func (r *run) template(t *template) (string, error) {
	if len(t.parts) == 1 && t.parts[0].expr != nil {
		v, err := r.eval(t.parts[0].expr)
		if err != nil {
			return "", err
		}
		return toText(v)
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := r.eval(p.expr)
		if err != nil {
			return "", err
		}
		s, err := toText(v)
		if err != nil || s == "" {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// eval computes what it can directly and leaves the rest to the virtual machine.
func (r *run) eval(e *expression) (any, error) {
	if e.direct != nil {
		return e.direct(r)
	}
	return r.machine(e)
}

// machine computes an expression by the virtual machine, whose own error texts
// quote values and are dropped.
func (r *run) machine(e *expression) (any, error) {
	v, err := r.vm.Run(e.prog, r.env)
	return v, plainError(err)
}
