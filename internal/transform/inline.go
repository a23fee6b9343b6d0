package transform

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform/xsd"
)

// MaxInlineBytes bounds the plain bytes of all files that one message carries. As
// base64 they are 8 MB; with the files themselves beside it, which every
// destination is given, that fits into the 15 MB of a Kafka destination and,
// encoded once more, into the 25 MB of a mail, as they are set by default.
const MaxInlineBytes = 6 << 20

// inlining is w:inline: a file of the submission whose bytes the element carries.
type inlining struct {
	expr  *expression
	types []string // media types, or "image/*"; none: any
	// least and most bound one file in bytes: what w:max and the standard say.
	least, most int64
	sized       bool // the standard bounds the length
	typed       bool // the element's type was found to take it
}

// Refusal is why a file of the submission has no place in a message. Its words
// name bounds and rules, nothing of the file but its size.
type Refusal struct {
	Attachment int    // its number in the submission, from 0
	Rule       string // attachment-too-large, attachment-too-small, attachment-empty, attachment-type, attachments-too-large
	EN, DE     string // with what to do
}

// Error returns the English words.
func (r *Refusal) Error() string { return r.EN }

// refusals are all that an outline came to.
type refusals []*Refusal

func (r refusals) Error() string { return r[0].EN }

// Refusals are those that an error of Apply stands for: of an outline all, of a
// message that is to be sent the first.
func Refusals(err error) []*Refusal {
	var all refusals
	var one *Refusal
	switch {
	case errors.As(err, &all):
		return all
	case errors.As(err, &one):
		return []*Refusal{one}
	}
	return nil
}

// Pointer is the file's place in the submission.
func (r *Refusal) Pointer() string { return attachmentPointer(r.Attachment) }

func attachmentPointer(i int) string { return fmt.Sprintf("/attachments/%d", i) }

// words says what the element takes.
func (in *inlining) words() string {
	out := fmt.Sprintf("a file of %d to %d bytes", in.least, in.most)
	if len(in.types) > 0 {
		out += ", " + strings.Join(in.types, " or ")
	}
	return out
}

// takes says whether a media type is one of those allowed; parameters of it do
// not count.
func (in *inlining) takes(media string) bool {
	media, _, _ = strings.Cut(media, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return len(in.types) == 0 || slices.ContainsFunc(in.types, func(t string) bool {
		if kind, all := strings.CutSuffix(t, "*"); all {
			return strings.HasPrefix(media, kind)
		}
		return media == t
	})
}

// refuses says what speaks against a file; so far has been carried already.
func (in *inlining) refuses(i int, a submission.Attachment, soFar int64) *Refusal {
	switch {
	case a.Size == 0:
		return &Refusal{i, "attachment-empty", "the file is empty, and the message carries its content; send the file again",
			"Die Datei ist leer, die Nachricht nimmt aber ihren Inhalt auf. Bitte die Datei erneut senden."}
	case !in.takes(a.MIMEType):
		all := strings.Join(in.types, ", ")
		return &Refusal{i, "attachment-type", "the message carries files of other media types; send the file as " + all,
			"Die Nachricht nimmt Dateien dieses Typs nicht auf. Bitte die Datei in einem dieser Typen senden: " + all + "."}
	case a.Size > in.most:
		return &Refusal{i, "attachment-too-large", fmt.Sprintf("the file has %d bytes, and the message carries files of up to %d; send a smaller one", a.Size, in.most),
			fmt.Sprintf("Die Datei hat %d Byte; die Nachricht nimmt Dateien bis %d Byte auf. Bitte eine kleinere Datei senden.", a.Size, in.most)}
	case a.Size < in.least:
		return &Refusal{i, "attachment-too-small", fmt.Sprintf("the file has %d bytes, and the message carries files of %d or more; send a larger one", a.Size, in.least),
			fmt.Sprintf("Die Datei hat %d Byte; die Nachricht nimmt Dateien ab %d Byte auf. Bitte eine größere Datei senden.", a.Size, in.least)}
	case soFar+a.Size > MaxInlineBytes:
		return &Refusal{i, "attachments-too-large", fmt.Sprintf("with this file the message would carry more than %d bytes of files; send fewer or smaller ones", MaxInlineBytes),
			fmt.Sprintf("Mit dieser Datei nähme die Nachricht mehr als %d Byte an Dateien auf. Bitte weniger oder kleinere Dateien senden.", MaxInlineBytes)}
	}
	return nil
}

// inline reads w:inline with w:max and w:types.
func (r *reader) inline(n *node, take func(string) (string, string, bool), lineOf func(string) int, in *scope) {
	src, key, ok := take("inline")
	limit, limitKey, limited := take("max")
	types, typesKey, typed := take("types")
	if !ok {
		for _, k := range []struct {
			key   string
			given bool
		}{{limitKey, limited}, {typesKey, typed}} {
			if k.given {
				r.problem(lineOf(k.key), "%s stands beside w:inline", k.key)
			}
		}
		return
	}
	if n.kind != nodeElement {
		r.problem(lineOf(key), "w:inline belongs on an element of the target")
		return
	}
	e := r.expression(src, lineOf(key), in)
	if e == nil {
		return
	}
	if e.shape.kind != kindGroup || !slices.Contains(e.shape.paths, "attachments[]") {
		r.problem(lineOf(key), `w:inline names a file of the submission, as in "find(attachments, .attachmentId == p.attachmentId)"; %q is none`, src)
		return
	}
	n.inline = &inlining{expr: e, least: 1, most: MaxInlineBytes}
	n.value = &template{line: r.mark(lineOf(key)), parts: []templatePart{{expr: e}}}
	if limited {
		b, err := config.ParseBytes(limit)
		switch {
		case err != nil || b <= 0:
			r.problem(lineOf(limitKey), "w:max is a size, as in 2MB or 500KB")
		case int64(b) > MaxInlineBytes:
			r.problem(lineOf(limitKey), "w:max is at most %dMB, which is what one message may carry of files", MaxInlineBytes>>20)
		default:
			n.inline.most = int64(b)
		}
	}
	if typed {
		n.inline.types = strings.Fields(strings.ToLower(types))
		if len(n.inline.types) == 0 || slices.ContainsFunc(n.inline.types, func(t string) bool { return !mediaType(t) }) {
			r.problem(lineOf(typesKey), `w:types lists media types, as in "application/pdf image/*"`)
		}
	}
	if n.keep {
		r.problem(lineOf(key), "w:inline and w:keep exclude each other")
	}
}

func mediaType(s string) bool {
	kind, name, ok := strings.Cut(s, "/")
	return ok && kind != "" && name != "" && !strings.Contains(kind, "*") && (name == "*" || !strings.Contains(name, "*")) && !strings.ContainsAny(name, "/;,")
}

// inline proves that the element's type takes any file's bytes, apart from their
// number, which is found out for each.
func (c *prover) inline(n *node, decl *xsd.Element, t *xsd.Type) {
	in, s := n.inline, t.Simple
	line := n.value.line
	in.typed = true
	switch {
	case !takesFiles(t):
		c.problem(line, "w:inline writes base64, and the standard has another type for <%s>: it takes xs:base64Binary and what is derived from it", n.tag)
		return
	case decl.Fixed != nil || s.Enumeration != nil:
		c.problem(line, "<%s> has values of its own in the standard, so that no file fits", n.tag)
		return
	case len(s.Patterns) > 0:
		c.problem(line, "<%s> has a pattern in the standard, which nobody can know of a file", n.tag)
		return
	}
	for _, bound := range []struct{ least, most int }{{s.MinLength, s.MaxLength}, {s.Length, s.Length}} {
		in.sized = in.sized || bound.least >= 0 || bound.most >= 0
		in.least = max(in.least, int64(bound.least))
		if bound.most >= 0 {
			in.most = min(in.most, int64(bound.most))
		}
	}
	if in.least > in.most {
		c.problem(line, "<%s>: w:max leaves no file that the standard takes, which wants %d bytes or more", n.tag, in.least)
	}
}

// untyped finds files where the standard says nothing of the type.
func (c *prover) untyped(n *node) {
	if n.inline != nil && !n.inline.typed {
		c.problem(n.value.line, "w:inline needs an element of type xs:base64Binary, and the standard says nothing of <%s>", n.tag)
	}
	for _, k := range n.children {
		c.untyped(k)
	}
}

// files are those of a submission, for one run.
type files struct {
	list    []submission.Attachment
	open    func(submission.Attachment) (io.ReadCloser, error)
	outline bool
	collect bool // refusals, instead of ending with the first
	refused refusals
	first   int   // where the first of them was met
	carried int64 // plain bytes so far
	left    int   // bytes of the message that an outline leaves out
}

// inline writes a file's content; some is false where there is none.
func (r *run) inline(at int, o *op, v any) (some bool, err error) {
	if isEmpty(v) {
		return false, nil
	}
	i := r.attachment(v)
	if i < 0 {
		return false, valueError("the value is no file of the submission")
	}
	a := r.files.list[i]
	if refusal := o.node.inline.refuses(i, a, r.files.carried); refusal != nil {
		if !r.files.collect {
			return false, refusal
		}
		if len(r.files.refused) == 0 {
			r.files.first = at
		}
		if !slices.ContainsFunc(r.files.refused, func(told *Refusal) bool { return *told == *refusal }) { // a loop may come again and again
			r.files.refused = append(r.files.refused, refusal)
		}
		return true, nil
	}
	encoded := base64.StdEncoding.EncodedLen(int(a.Size))
	if r.out.size()+r.files.left+encoded > maxMessageBytes {
		return false, errDataSize
	}
	r.files.carried += a.Size
	if r.files.outline {
		size := a.Size
		if !o.node.inline.sized {
			size = min(size, 3)
			r.files.left += encoded - base64.StdEncoding.EncodedLen(int(size))
		}
		return true, r.out.file(i, a, io.LimitReader(zeros{}, size), size)
	}
	if r.files.open == nil {
		return false, valueError("the file's content is not at hand")
	}
	content, err := r.files.open(a)
	if err != nil {
		return false, fault.Of(err)
	}
	defer func() { _ = content.Close() }()
	if err := r.out.file(i, a, content, a.Size); err != nil {
		return false, fault.Of(err)
	}
	return true, nil
}

// attachment is the number of a file among those of the submission, -1 where it
// is none.
func (r *run) attachment(v any) int {
	group, _ := v.(map[string]any)
	id, _ := group["attachmentId"].(string)
	return slices.IndexFunc(r.files.list, func(a submission.Attachment) bool { return a.AttachmentID == id })
}

// zeros stand for the content of a file that is not opened.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// chunkBytes is read at a time: a multiple of three, so that no padding comes in
// between.
const chunkBytes = 48 << 10

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// encode calls write with the pieces of a file of so many bytes, each but the
// last of a length that three divides. It reads to the end, where the vault judges.
func encode(content io.Reader, size int64, write func(piece []byte)) error {
	chunk, _ := chunks.Get().(*[chunkBytes]byte)
	defer func() {
		clear(chunk[:])
		chunks.Put(chunk)
	}()
	var read int64
	for {
		n, end, err := fill(chunk[:], content)
		if err != nil {
			return err
		}
		if read += int64(n); read > size || end && read < size {
			return errOtherSize()
		}
		if write(chunk[:n]); end {
			return nil
		}
	}
}

// fill reads until there is no room or nothing more.
func fill(p []byte, r io.Reader) (n int, end bool, err error) {
	for n < len(p) {
		more, err := r.Read(p[n:])
		n += more
		if err == io.EOF { // itself: an error that wraps it is a source cut off
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func errOtherSize() error {
	return fault.New(fault.Permanent, fault.ReasonUndecryptable, "a file has another size than its record says")
}

func (s *byteSink) file(_ int, _ submission.Attachment, content io.Reader, size int64) error {
	encoded := base64.StdEncoding.EncodedLen(int(size))
	s.files += encoded
	// Room for what follows, too: a message with a file in it is not to be copied
	// for its last elements.
	s.buf = slices.Grow(s.buf, encoded+s.rest)
	return encode(content, size, func(piece []byte) { s.buf = base64.StdEncoding.AppendEncode(s.buf, piece) })
}

func (s *treeSink) file(_ int, _ submission.Attachment, content io.Reader, size int64) error {
	var text []byte
	err := encode(content, size, func(piece []byte) { text = base64.StdEncoding.AppendEncode(text, piece) })
	s.at.CreateText(string(text))
	return err
}

func (t *tracer) file(i int, a submission.Attachment, content io.Reader, size int64) error {
	t.fields = []string{attachmentPointer(i)}
	t.note("")
	t.origins[len(t.origins)-1].Content = fmt.Sprintf("%d bytes, sha512 %s", a.Size, a.Hash.Content)
	return t.byteSink.file(i, a, content, size)
}
