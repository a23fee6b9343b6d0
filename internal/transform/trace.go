package transform

import (
	"slices"
	"strconv"
	"strings"
)

// Origin says where one text of a message comes from. It carries no value.
type Origin struct {
	// Path of the element in the message, by local names with the number among
	// siblings of the same name, and /@name for an attribute.
	Path     string `json:"path"`
	Line     int    `json:"line"`               // in the mapping
	Fragment string `json:"fragment,omitempty"` // and line, where a fragment included there writes it
	// Fields are JSON pointers into the submission; none for what the portal did
	// not write.
	Fields []string `json:"fields,omitempty"`
	// From is the expression as written; "" for w:data.
	From string `json:"from,omitempty"`
	// Content says of a file that the element carries how large it is, with its
	// SHA-512 in hex.
	Content string `json:"content,omitempty"`
}

// Trace is the story of one message.
type Trace struct {
	Origins []Origin
	// Failed are the submission's fields at which the mapping gave up.
	Failed []string
}

// Trace builds the message as Apply does and tells where its texts come from. It
// is for explaining: several times slower. No file is opened for it; the message
// is the one that Outline makes.
func (m *Mapping) Trace(in Input) ([]byte, Trace, error) {
	t := &tracer{byteSink: byteSink{buf: []byte(xmlDeclaration)}}
	err := m.run(in, t)
	if err != nil {
		return nil, Trace{Origins: t.origins, Failed: t.fields}, err
	}
	return t.buf, Trace{Origins: t.origins}, nil
}

// Fields returns the submission's fields behind a place in the message: those of the
// origins at and below the path, or, where nothing is there, of what is around
// it. A path without numbers means any sibling; where several fields fit, what
// they have in common is returned. There are none where everything there is the
// mapping's own or the router's.
func (t Trace) Fields(path string) []string {
	for ; path != ""; path = path[:strings.LastIndexByte(path, '/')] {
		var out []string
		there := false
		for _, o := range t.Origins {
			if samePlace(o.Path, path) {
				there, out = true, append(out, o.Fields...)
			}
		}
		if there {
			return shared(out)
		}
	}
	return nil
}

// samePlace compares an origin's path with one of which prefixes and missing
// numbers are not looked at.
func samePlace(origin, path string) bool {
	a, b := strings.Split(origin, "/"), strings.Split(path, "/")
	if len(a) < len(b) {
		return false
	}
	for i, want := range b {
		have := a[i]
		if _, local, ok := strings.Cut(want, ":"); ok && !strings.HasPrefix(want, "{") {
			want = local
		}
		if _, local, ok := strings.Cut(want, "}"); ok {
			want = local
		}
		if !strings.Contains(want, "[") {
			have, _, _ = strings.Cut(have, "[")
		}
		if have != want {
			return false
		}
	}
	return true
}

// shared returns up to three pointers, or what more of them have in common.
func shared(pointers []string) []string {
	slices.Sort(pointers)
	pointers = slices.Compact(pointers)
	if len(pointers) <= 3 {
		return pointers
	}
	first := strings.Split(pointers[0], "/")
	for _, p := range pointers[1:] {
		parts := strings.Split(p, "/")
		n := 0
		for n < min(len(first), len(parts)) && first[n] == parts[n] {
			n++
		}
		first = first[:n]
	}
	return []string{strings.Join(first, "/")}
}

// tracer writes a message and notes where its texts come from.
type tracer struct {
	byteSink
	path    []string
	counts  []map[string]int
	marks   []int // of origins, by open element
	origins []Origin
	fields  []string // of the operation under way
	from    string
	line    mark
	data    []string // of w:data: the members on the way down
}

func (t *tracer) look(r *run, o *op) {
	e := o.expr
	t.from, t.line = "", mark{}
	if o.node != nil {
		t.line = o.node.line
	}
	if o.attr != nil {
		t.line = o.attr.line
	}
	var used []string
	if e != nil {
		used = e.used
	}
	value := o.value
	if o.code == opEnd {
		value = o.node.value
	}
	if value != nil {
		for _, p := range value.parts {
			if p.expr != nil {
				used = append(slices.Clone(used), p.expr.used...)
				t.from = strings.TrimSpace(t.from + " " + p.expr.src)
			}
		}
	}
	t.fields = r.pointers(used)
}

// pointers turns what an expression looks at into places in the submission at
// hand: what only leads to others is left out, and so is the list of files where
// the form says which of them it is.
func (r *run) pointers(used []string) []string {
	var out []string
	for _, path := range used {
		leads := slices.ContainsFunc(used, func(other string) bool {
			return strings.HasPrefix(other, path+".") || strings.HasPrefix(other, path+"[]")
		})
		if p := r.pointer(path); !leads && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if i := slices.Index(out, members["attachments"]); i >= 0 && len(out) > 1 {
		out = slices.Delete(out, i, i+1)
	}
	return out
}

// members are the places in a submission of what is called otherwise in a mapping.
var members = map[string]string{
	"form":                       "/data",
	"submission.applicationDate": "/additionalReferenceInfo/applicationDate",
	"submission.senderReference": "/additionalReferenceInfo/senderReference",
	"submission.trustLevel":      "/trustLevel",
	"attachments":                "/attachments",
	"attachments[].attachmentId": "/attachmentId",
	"attachments[].filename":     "/filename",
	"attachments[].mimeType":     "/mimeType",
	"attachments[].purpose":      "/purpose",
	"attachments[].description":  "/description",
	"attachments[].sha512":       "/hash/content",
}

// pointer numbers the lists of a path by the loops under way; behind a list of
// which none is, it ends.
func (r *run) pointer(path string) string {
	var out strings.Builder
	at := ""
	for part := range strings.SplitSeq(path, ".") {
		name := strings.TrimRight(part, "[]")
		at = strings.TrimPrefix(at+"."+name, ".")
		switch place := members[at]; {
		case place != "":
			out.WriteString(place)
		case at != "submission":
			out.WriteString("/" + pointerEscape.Replace(name))
		}
		for range strings.Count(part, "[]") {
			i := slices.IndexFunc(r.loops, func(l loop) bool {
				return l.of.isPath() && slices.Contains(l.of.shape.paths, at)
			})
			if i < 0 {
				return out.String()
			}
			out.WriteString("/" + strconv.Itoa(r.loops[i].at))
			at += "[]"
		}
	}
	return out.String()
}

func (t *tracer) start(o *op) {
	t.enter(o.node.name.local)
	t.byteSink.start(o)
}

func (t *tracer) enter(local string) {
	if len(t.counts) == 0 {
		t.counts = append(t.counts, map[string]int{})
	}
	counts := t.counts[len(t.counts)-1]
	counts[local]++
	t.path = append(t.path, local+"["+strconv.Itoa(counts[local])+"]")
	t.counts = append(t.counts, map[string]int{})
	t.marks = append(t.marks, len(t.origins))
}

func (t *tracer) leave(undo bool) {
	n := len(t.path) - 1
	if undo {
		t.origins = t.origins[:t.marks[n]]
		local, _, _ := strings.Cut(t.path[n], "[")
		t.counts[n][local]--
	}
	t.path, t.counts, t.marks = t.path[:n], t.counts[:n+1], t.marks[:n]
}

func (t *tracer) note(suffix string) {
	t.origins = append(t.origins, Origin{Path: "/" + strings.Join(t.path, "/") + suffix, Line: t.line.use(), Fragment: t.line.fragment(), Fields: t.fields, From: t.from})
}

func (t *tracer) attr(o *op, value string) error {
	t.note("/@" + o.attr.name.local)
	return t.byteSink.attr(o, value)
}

func (t *tracer) text(o *op, s string) error {
	if o != nil {
		t.note("") // the mapping's own words
	} else {
		base := t.fields
		if len(t.data) > 0 && len(base) == 1 {
			t.fields = []string{base[0] + strings.Join(t.data, "")}
		}
		t.note("")
		t.fields = base
	}
	return t.byteSink.text(o, s)
}

func (t *tracer) end(o *op, empty bool) { t.byteSink.end(o, empty); t.leave(false) }
func (t *tracer) undo()                 { t.byteSink.undo(); t.leave(true) }

func (t *tracer) dataStart(parent *node, local string, d dataItem) error {
	t.enter(local)
	t.data = append(t.data, d.pointer())
	return t.byteSink.dataStart(parent, local, d)
}

func (t *tracer) dataEnd() {
	t.data = t.data[:len(t.data)-1]
	t.byteSink.dataEnd()
	t.leave(false)
}
