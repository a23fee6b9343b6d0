package standard

import (
	"bytes"
	"encoding/xml"
	"math"
	"strings"

	"github.com/google/uuid"

	"weiche/internal/fault"
	"weiche/internal/submission"
)

const (
	xsiNamespace = "http://www.w3.org/2001/XMLSchema-instance"
	prefixList   = "urn:xoev-de:bund:bmi:bit:codeliste:dvdv.praefix"
	// maxFindings bounds the report of one message.
	maxFindings = 50
)

// pass follows one message through the graph. It is used again and again; what
// it keeps between messages is capacity.
type pass struct {
	std      *Standard
	graph    *graph
	about    About
	scan     scanner
	frames   []frame
	bindings []binding
	findings Findings
	day      string // of About.At, or what the message says of itself
	parts    int    // children of the root so far; the first is the header
	missing  map[string]bool
}

// frame is one open element.
// It is small, since one is written for every element.
type frame struct {
	shape    *shape
	list     *codeList // of a code
	from     int32     // offset of its start tag
	body     int32     // offset behind its start tag
	name     int32     // length of its name
	bindings int32     // in force before it
	role     role
	parent   bool
	dvdv     bool // of an authority: its directory is the DVDV
}

type binding struct{ prefix, space []byte }

// nameOf returns an element's name as it is written.
func (p *pass) nameOf(f *frame) []byte { return p.scan.raw[f.from+1 : f.from+1+f.name] }

func (p *pass) begin(s *Standard, g *graph, message []byte, about About) {
	p.std, p.graph, p.about = s, g, about
	p.scan = scanner{raw: message}
	p.frames, p.bindings, p.findings, p.day, p.parts = p.frames[:0], p.bindings[:0], nil, "", 0
	clear(p.missing)
	if !about.At.IsZero() {
		p.day = about.At.Format("2006-01-02")
	}
}

func (p *pass) run() error {
	if len(p.scan.raw) > math.MaxInt32 {
		return errNotFollowed
	}
	for {
		if n := len(p.frames); n > 0 {
			p.scan.open = int(p.frames[n-1].name)
		}
		if err := p.scan.next(); err != nil {
			return err
		}
		t := &p.scan.tag
		switch t.kind {
		case tagDone:
			if len(p.frames) > 0 {
				return errNotFollowed
			}
			p.validity()
			return nil
		case tagEnd:
			if len(p.frames) == 0 {
				return errNotFollowed
			}
			p.end(p.scan.raw[p.frames[len(p.frames)-1].body:t.from])
		default:
			p.start(t)
			if t.kind == tagEmpty {
				p.end(nil)
			}
		}
	}
}

// tagged are the attributes of a start tag that a rule may ask for.
type tagged struct {
	uri, version, xsiType       []byte
	hasURI, hasVersion, hasTest bool
	stdVersion                  []byte
}

func (p *pass) attributes(attrs []byte) (a tagged) {
	for {
		name, value, rest, ok := nextAttr(attrs)
		if !ok {
			return a
		}
		attrs = rest
		switch string(name) {
		case "xmlns":
			p.bindings = append(p.bindings, binding{nil, value})
		case "listURI":
			a.uri, a.hasURI = content(value), true
		case "listVersionID":
			a.version, a.hasVersion = token(content(value)), true
		case "test":
			a.hasTest = true
		case "version":
			a.stdVersion = token(content(value))
		default:
			if bytes.HasPrefix(name, []byte("xmlns:")) {
				p.bindings = append(p.bindings, binding{name[6:], value})
			} else if bytes.HasSuffix(name, []byte(":type")) {
				if string(p.space(name[:len(name)-5])) == xsiNamespace {
					a.xsiType = token(value)
				}
			}
		}
	}
}

// space returns the namespace that a prefix stands for.
func (p *pass) space(prefix []byte) []byte {
	for i := len(p.bindings) - 1; i >= 0; i-- {
		if bytes.Equal(p.bindings[i].prefix, prefix) {
			return p.bindings[i].space
		}
	}
	return nil
}

// spaceOf returns the namespace of a name as it is written.
func (p *pass) spaceOf(name []byte) []byte {
	if i := bytes.IndexByte(name, ':'); i >= 0 {
		return p.space(name[:i])
	}
	return p.space(nil)
}

func (p *pass) start(t *tag) {
	f := frame{name: int32(len(t.name)), from: int32(t.from), body: int32(t.to), bindings: int32(len(p.bindings))}
	var a tagged
	if len(t.attrs) > 0 {
		a = p.attributes(t.attrs)
	}
	if len(p.frames) == 0 {
		f.shape = p.graph.elements[xml.Name{Space: string(p.spaceOf(t.name)), Local: string(local(t.name))}]
		p.frames = append(p.frames, f)
		p.root(a)
		return
	}
	up := &p.frames[len(p.frames)-1]
	up.parent = true
	if len(p.frames) == 1 {
		p.parts++
	}
	if up.shape != nil && (up.shape.checked || up.role == roleType || up.role == roleDirectory) {
		c := up.shape.child(p, t.name)
		f.shape, f.role = c.shape, c.role
		if p.parts > 1 && c.role.ofHeader() {
			f.role = roleNone // it speaks of another message
		}
	}
	if a.xsiType != nil && f.shape != nil {
		f.shape = p.graph.types[xml.Name{Space: string(p.spaceOf(a.xsiType)), Local: string(local(a.xsiType))}]
	}
	p.frames = append(p.frames, f)
	if f.shape != nil && f.shape.code != nil && !f.shape.code.closed {
		p.code(f.shape.code, a)
	}
}

// child finds an element by its name as it is written. The message is valid, so
// the local name alone tells, but where a type has several or a wildcard.
func (s *shape) child(p *pass, name []byte) child {
	c := s.children[string(local(name))]
	if c != nil && c.same == nil && !s.open {
		return *c
	}
	return s.find(p.graph, string(p.spaceOf(name)), local(name))
}

// find finds an element by its name.
func (s *shape) find(g *graph, space string, local []byte) child {
	for c := s.children[string(local)]; c != nil; c = c.same {
		if c.space == space {
			return *c
		}
	}
	if s.open {
		return child{shape: g.elements[xml.Name{Space: space, Local: string(local)}]}
	}
	return child{}
}

// root checks what the root element says of the message.
func (p *pass) root(a tagged) {
	s, f := p.std, &p.frames[0]
	name := string(local(p.nameOf(f)))
	if f.shape == nil {
		p.add(fault.ReasonMessageNotServed, "%s has no message of this name and namespace", s.Key())
		return
	}
	if want, ok := s.Message(p.about.Message); p.about.Message != "" && (!ok || want.Element != name) {
		p.add(fault.ReasonMessageNotServed, "the root element is not the message %s", p.about.Message)
	}
	if _, ok := f.shape.attrs["version"]; ok && a.stdVersion != nil && string(a.stdVersion) != s.Version {
		p.add(fault.ReasonVersionNotServed, "the message says another version than %s", s.Version)
	}
	_, knows := f.shape.attrs["test"]
	switch {
	case p.about.Traffic == Productive && a.hasTest:
		p.add(fault.ReasonTestMark, "a productive message carries the attribute test, whose mere presence forbids productive processing")
	case p.about.Traffic == Test && knows && !a.hasTest:
		p.add(fault.ReasonTestMark, "a test message does not carry the attribute test and would be processed as a productive one")
	}
}

// code finds the list of a code, as its type fixes it or the message names it.
func (p *pass) code(r *codeRule, a tagged) {
	f := &p.frames[len(p.frames)-1]
	uri, version := []byte(r.uri), []byte(r.version)
	if a.hasURI {
		uri = a.uri
	}
	if a.hasVersion {
		version = a.version
	}
	if len(uri) == 0 {
		return // a list nobody names: the schema allows it, and there is nothing to look up
	}
	l, known := p.std.lists.get(uri, version)
	switch {
	case l != nil:
		f.list = l
	case known && len(version) > 0 && r.version == "":
		p.add(fault.ReasonCodeListUnknown, "the code list's version is none of those installed (%s)", strings.Join(p.std.lists.versions(string(uri)), ", "))
	default:
		p.unlisted(string(uri), r.uri != "")
	}
}

// unlisted says once for each list that it is not at hand. The URI is told only
// where the schema names it: what the message says is not repeated.
func (p *pass) unlisted(uri string, fixed bool) {
	if p.missing[uri] {
		return
	}
	if p.missing == nil {
		p.missing = map[string]bool{}
	}
	p.missing[uri] = true
	which := "that the message names"
	if fixed {
		which = uri
	}
	p.add(fault.ReasonCodeListMissing, "the code list %s is not installed, its codes are not checked", which).Warning = !p.about.RefuseMissingLists
}

// end leaves an element; body is what stands between its tags.
func (p *pass) end(body []byte) {
	f := &p.frames[len(p.frames)-1]
	if !f.parent {
		p.leaf(f, body)
	}
	p.bindings = p.bindings[:f.bindings]
	p.frames = p.frames[:len(p.frames)-1]
}

// leaf checks an element that has no child elements.
func (p *pass) leaf(f *frame, body []byte) {
	if len(body) == 0 || body[0] <= ' ' || body[0] == '<' || body[0] == '&' {
		if blank(content(body)) {
			p.add(fault.ReasonEmptyElement, "the element is empty").Warning = p.std.EmptyElements != Refused
			return
		}
	}
	switch f.role {
	case roleCode:
		p.value(f, token(content(body)))
	case roleKey:
		if p.up(1).dvdv {
			p.authority(token(content(body)))
		}
	case roleMessageID:
		p.messageID(token(content(body)))
	case roleCreated:
		if p.day == "" {
			p.day = day(string(token(content(body))))
		}
	}
}

// up returns the frame n above the innermost; an empty one beyond the root.
func (p *pass) up(n int) *frame {
	if i := len(p.frames) - 1 - n; i >= 0 {
		return &p.frames[i]
	}
	return &frame{}
}

// value checks a code.
func (p *pass) value(f *frame, code []byte) {
	owner := p.up(1)
	switch owner.role {
	case roleDirectory:
		if above := p.up(2); above.shape != nil && above.shape.authority {
			above.dvdv = string(code) == "DVDV"
		}
	case roleType:
		p.messageType(code)
	}
	if owner.list == nil {
		return
	}
	values, err := owner.list.load(owner.shape.code.column)
	if err != nil {
		p.add(fault.ReasonCodeListMissing, "the code list %s, version %s, cannot be used: %s", owner.list.URI, owner.list.Version, err).Warning = !p.about.RefuseMissingLists
		return
	}
	if _, ok := values[string(code)]; !ok {
		p.add(fault.ReasonCodeUnknown, "the code is not in the list %s, version %s", owner.list.URI, owner.list.Version)
	}
}

// messageType compares the code of the message's kind with the number that its
// name ends in, as XÖV messages are named.
func (p *pass) messageType(code []byte) {
	name := local(p.nameOf(&p.frames[0]))
	i := bytes.LastIndexByte(name, '.')
	if i < 0 || len(name)-i < 4 || !digits(name[i+1:]) {
		return
	}
	if !bytes.Equal(name[i+1:], code) {
		p.add(fault.ReasonMessageType, "the code of the message's kind is not that of the message %s", name)
	}
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// authority checks a key of the DVDV: that it has a prefix the DVDV knows and a
// key behind it. More is not to be seen from here.
func (p *pass) authority(raw []byte) {
	prefix, rest, ok := bytes.Cut(raw, []byte(":"))
	if !ok || len(rest) == 0 || len(prefix) == 0 || !keyShape(rest) {
		p.add(fault.ReasonAuthorityKey, "the authority's key is no DVDV key: prefix, colon, key, as in bab:08115003")
		return
	}
	l := p.std.lists.newest(prefixList)
	if l == nil {
		if _, err := submission.ParseAuthorityKey(string(raw)); err != nil {
			p.add(fault.ReasonAuthorityKey, "the authority's key is no DVDV key: prefix, colon, key, as in bab:08115003")
		}
		return
	}
	if known, err := l.load("praefix"); err == nil {
		if _, ok := known[string(prefix)]; !ok {
			p.add(fault.ReasonAuthorityKey, "the prefix of the authority's key is none of the DVDV's (list %s, version %s)", l.URI, l.Version)
		}
	}
}

func keyShape(key []byte) bool {
	for _, c := range key {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return len(key) <= 32
}

func (p *pass) messageID(raw []byte) {
	id, err := uuid.ParseBytes(raw)
	switch {
	case err != nil || len(raw) != 36:
		p.add(fault.ReasonMessageID, "nachrichtenUUID is no UUID")
	case p.about.ID != uuid.Nil && id != p.about.ID:
		p.add(fault.ReasonMessageID, "nachrichtenUUID is not the id of this message: it would be used again for another")
	}
}

// validity warns where the standard's time has not come or is over.
func (p *pass) validity() {
	s := p.std
	if p.day == "" || s.ValidFrom == "" && s.ValidUntil == "" || within(p.day, s.ValidFrom, s.ValidUntil) {
		return
	}
	f := s.finding(fault.ReasonOutOfValidity, "the message is of %s; %s is valid%s", p.day, s.Key(), span(s.ValidFrom, s.ValidUntil))
	f.Warning = true
	p.findings = append(p.findings, f)
}

func within(day, from, until string) bool {
	return (from == "" || day >= from) && (until == "" || day <= until)
}

func span(from, until string) string {
	var out string
	if from != "" {
		out += " from " + from
	}
	if until != "" {
		out += " until " + until
	}
	return out
}

// add notes a finding at the innermost open element.
func (p *pass) add(r fault.Reason, text string, args ...any) *Finding {
	f := p.std.finding(r, text, args...)
	var path strings.Builder
	for i := range p.frames {
		path.WriteByte('/')
		path.Write(local(p.nameOf(&p.frames[i])))
	}
	f.Path = clipPath(path.String())
	if n := len(p.frames); n > 0 {
		f.Line = 1 + bytes.Count(p.scan.raw[:p.frames[n-1].from], []byte("\n"))
	}
	if len(p.findings) >= maxFindings {
		p.findings = p.findings[:maxFindings-1] // the last one stands for the rest
	}
	p.findings = append(p.findings, f)
	return &p.findings[len(p.findings)-1]
}
