package transform

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"weiche/internal/fault"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// inlineStandard is the test standard with elements that hold bytes.
func inlineStandard(t testing.TB) *standard.Standard {
	t.Helper()
	const end = `</xs:sequence></xs:extension></xs:complexContent></xs:complexType></xs:element>`
	const types = `<xs:simpleType name="Bytes"><xs:restriction base="xs:base64Binary"/></xs:simpleType>
	<xs:complexType name="Scan"><xs:simpleContent><xs:extension base="Bytes"><xs:attribute name="of"/></xs:extension></xs:simpleContent></xs:complexType>`
	return standardOf(t, strings.Replace(testXSD, end, `
	  <xs:element name="scan" type="Scan" minOccurs="0" maxOccurs="9"/>
	  <xs:element name="short" minOccurs="0"><xs:simpleType><xs:restriction base="xs:base64Binary"><xs:minLength value="4"/><xs:maxLength value="6"/></xs:restriction></xs:simpleType></xs:element>
	  <xs:element name="exact" minOccurs="0"><xs:simpleType><xs:restriction base="xs:base64Binary"><xs:length value="5"/></xs:restriction></xs:simpleType></xs:element>
	  <xs:element name="odd" minOccurs="0"><xs:simpleType><xs:restriction base="xs:base64Binary"><xs:pattern value="AA.*"/></xs:restriction></xs:simpleType></xs:element>
	  <xs:element name="closed" minOccurs="0"><xs:simpleType><xs:restriction base="xs:base64Binary"><xs:enumeration value="AAAA"/></xs:restriction></xs:simpleType></xs:element>
	  <xs:element name="fixed" minOccurs="0" type="xs:base64Binary" fixed="AAAA"/>
	  <xs:element name="hex" minOccurs="0" type="xs:hexBinary"/>
	  <xs:element name="free" minOccurs="0"/>
	`+end+types, 1))
}

// withFiles is a submission with such files, the first with attachmentId 1.
func withFiles(t testing.TB, form string, contents ...string) Input {
	in := input(t, form)
	in.Attachments = nil
	at := map[string]string{}
	for i, c := range contents {
		sum := sha512.Sum512([]byte(c))
		id := fmt.Sprint(i + 1)
		at[id] = c
		in.Attachments = append(in.Attachments, submission.Attachment{AttachmentID: id, Filename: "f" + id, MIMEType: "application/pdf", Size: int64(len(c)),
			Hash: submission.Hash{Type: "sha512", Content: hex.EncodeToString(sum[:])}})
	}
	in.Open = func(a submission.Attachment) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(at[a.AttachmentID])), nil
	}
	return in
}

var inlineUses = []construct{
	{"a file", `<t:scan w:inline="attachments[0]"/>`, `{}`, `<t:scan>JVBERi0=</t:scan>`},
	{"no such file", `<t:scan w:inline="attachments[7]"/>`, `{}`, ``},
	{"each file", `<t:scan w:for="a in attachments" of="{a.filename}" w:inline="a"/>`, `{}`, `<t:scan of="f1">JVBERi0=</t:scan><t:scan of="f2">/////w==</t:scan>`},
	{"the file that a field names", `<t:scan w:let="f = find(attachments, .attachmentId == form.title)" w:inline="f" w:required="true" w:max="2MB" w:types="application/pdf image/*"/>`, `{"title":"2"}`, `<t:scan>/////w==</t:scan>`},
	{"small files only", `<t:scan w:for="a in attachments" w:if="a.size &lt; 5" w:inline="a"/>`, `{}`, `<t:scan>/////w==</t:scan>`},
	{"within the type's length", `<t:short w:inline="attachments[0]"/><t:exact w:inline="attachments[0]"/>`, `{}`, `<t:short>JVBERi0=</t:short><t:exact>JVBERi0=</t:exact>`},
	{"by a fragment", `<w:include fragment="scan" f="attachments[1]"/>`, `{}`, `<t:scan>/////w==</t:scan>`},
}

// What is written is the file, and the outline of it is judged alike.
func TestInlineUses(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	shared := sharedOf(t, map[string]string{"scan": fragmentOf("f", `<t:scan w:inline="f"/>`)})
	for _, c := range inlineUses {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap(c.body)), std, form, shared)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if m.Settled() {
				t.Error("a file is not looked at per message")
			}
			in := withFiles(t, c.form, "%PDF-", "\xff\xff\xff\xff")
			got, err := m.Apply(in)
			if err != nil {
				t.Fatal(err)
			}
			if want := xmlDeclaration + envelopeStart + c.want + `</t:m.1>`; string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			tree, err := m.ApplyTree(in)
			if err != nil {
				t.Fatal(err)
			}
			if same, err := tree.WriteToBytes(); err != nil || !bytes.Equal(same, got) {
				t.Errorf("etree writes %s (%v)", same, err)
			}
			in.Outline, in.Open = true, nil
			outline, err := m.Apply(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, message := range [][]byte{got, outline} {
				if err := std.Validate(message); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestInlineMistakesAreRefusedWithTheirLine(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	for _, c := range []struct {
		name, body string
		line       int
		want       string
	}{
		{"a text", "\n<t:title w:inline=\"attachments[0]\"/>", 4, "has another type for <t:title>"},
		{"a group", `<t:person w:inline="attachments[0]"/>`, 3, "has another type for <t:person>"},
		{"hexBinary", `<t:hex w:inline="attachments[0]"/>`, 3, "it takes xs:base64Binary"},
		{"any type", `<t:free w:inline="attachments[0]"/>`, 3, "it takes xs:base64Binary"},
		{"a pattern", `<t:odd w:inline="attachments[0]"/>`, 3, "has a pattern"},
		{"an enumeration", `<t:closed w:inline="attachments[0]"/>`, 3, "values of its own"},
		{"a fixed value", `<t:fixed w:inline="attachments[0]"/>`, 3, "values of its own"},
		{"a bound below the type's", `<t:short w:inline="attachments[0]" w:max="3"/>`, 3, "no file that the standard takes"},
		{"a field's value", `<t:scan w:inline="form.title"/>`, 3, "names a file of the submission"},
		{"a file's name", `<t:scan w:inline="attachments[0].filename"/>`, 3, "names a file of the submission"},
		{"all files", `<t:scan w:inline="attachments"/>`, 3, "names a file of the submission"},
		{"misspelt", `<t:scan w:inline="atachments[0]"/>`, 3, `did you mean "attachments"?`},
		{"as a value", `<t:scan w:value="attachments[0]"/>`, 3, "not a text"},
		{"value beside it", `<t:scan w:inline="attachments[0]" w:value="form.title"/>`, 3, "both w:value and w:inline"},
		{"text beside it", `<t:scan w:inline="attachments[0]">AAAA</t:scan>`, 3, "and text"},
		{"kept when empty", `<t:scan w:inline="attachments[0]" w:keep="true"/>`, 3, "exclude each other"},
		{"on a group", `<w:group w:inline="attachments[0]"><t:scan/></w:group>`, 3, "belongs on an element"},
		{"a bound that is no size", "<t:scan w:inline=\"attachments[0]\"\n  w:max=\"much\"/>", 4, "w:max is a size"},
		{"a bound above the message's", `<t:scan w:inline="attachments[0]" w:max="7MB"/>`, 3, "at most 6MB"},
		{"a bound of nothing", `<t:title w:value="form.title" w:max="2MB"/>`, 3, "stands beside w:inline"},
		{"types of nothing", `<t:title w:value="form.title" w:types="image/png"/>`, 3, "stands beside w:inline"},
		{"no media type", `<t:scan w:inline="attachments[0]" w:types="pdf"/>`, 3, "w:types lists media types"},
		{"no media type among others", `<t:scan w:inline="attachments[0]" w:types="image/* */*"/>`, 3, "w:types lists media types"},
		{"more than once", `<t:short w:for="a in attachments" w:inline="a"/>`, 3, "may stand once"},
		{"out of order", "<t:short w:inline=\"attachments[0]\"/>\n<t:scan w:inline=\"attachments[0]\"/>", 4, "must stand before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusedAt(t, c.body, std, form, c.line, c.want)
		})
	}
}

const canary = "KANARIE"

// A file that does not fit is refused by a rule with a name at its place, by the
// outline as by the message, and a fault of the store stays what it is.
func TestAFileThatDoesNotFitIsRefused(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	for _, c := range []struct {
		name, body, rule string
		at               int
		change           func(*Input)
	}{
		{"too large", `<t:scan w:for="a in attachments" w:inline="a" w:max="8"/>`, "attachment-too-large", 1, nil},
		{"too large for the type", `<t:short w:inline="attachments[0]"/>`, "attachment-too-large", 0, nil},
		{"too small for the type", `<t:short w:inline="attachments[2]"/>`, "attachment-too-small", 2, nil},
		{"another length", `<t:exact w:inline="attachments[0]"/>`, "attachment-too-large", 0, nil},
		{"another type", `<t:scan w:inline="attachments[1]" w:types="image/png text/*"/>`, "attachment-type", 1, nil},
		{"empty", `<t:scan w:inline="attachments[0]"/>`, "attachment-empty", 0, func(in *Input) { in.Attachments[0].Size = 0 }},
		{"all together", `<t:scan w:for="a in attachments" w:inline="a"/>`, "attachments-too-large", 1, func(in *Input) { in.Attachments[1].Size = MaxInlineBytes }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := compileMapping("m.xml", []byte(wrap(c.body)), std, form, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			for _, outline := range []bool{false, true} {
				in := withFiles(t, `{}`, canary, canary+canary, "x")
				if c.change != nil {
					c.change(&in)
				}
				in.Outline = outline
				_, err := m.Apply(in)
				all := Refusals(err)
				if len(all) != 1 && c.name != "all together" || len(all) == 0 {
					t.Fatalf("outline %v: %v", outline, err)
				}
				r := all[0]
				if r.Rule != c.rule || r.Pointer() != fmt.Sprintf("/attachments/%d", c.at) || r.DE == "" || r.EN == "" {
					t.Errorf("%+v at %s", r, r.Pointer())
				}
				if f := fault.Of(err); f.Class != fault.Permanent || f.Reason != fault.ReasonMappingFailed || !strings.Contains(f.Detail, "m.xml:3 <t:") || strings.Contains(f.Detail+r.EN+r.DE, canary) {
					t.Error(f)
				}
			}
		})
	}

	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:inline="attachments[0]"/>`)), std, form, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	gone := fault.New(fault.Retryable, fault.ReasonStorage, "the disk is away")
	opened := func(r io.Reader) func(submission.Attachment) (io.ReadCloser, error) {
		return func(submission.Attachment) (io.ReadCloser, error) { return io.NopCloser(r), nil }
	}
	for _, c := range []struct {
		name   string
		open   func(submission.Attachment) (io.ReadCloser, error)
		class  fault.Class
		reason fault.Reason
	}{
		{"cannot be opened", func(submission.Attachment) (io.ReadCloser, error) { return nil, gone }, fault.Retryable, fault.ReasonStorage},
		{"breaks off", opened(io.MultiReader(strings.NewReader(canary[:3]), iotest.ErrReader(gone))), fault.Retryable, fault.ReasonStorage},
		{"an error that nobody has classed", opened(iotest.ErrReader(errors.New(canary))), fault.Retryable, fault.ReasonUnknown},
		{"a source cut off", opened(io.MultiReader(strings.NewReader(canary), iotest.ErrReader(fmt.Errorf("cut: %w", io.EOF)))), fault.Retryable, fault.ReasonUnknown},
		{"shorter than it was", opened(strings.NewReader(canary[:3])), fault.Permanent, fault.ReasonUndecryptable},
		{"longer than it was", opened(strings.NewReader(canary + "x")), fault.Permanent, fault.ReasonUndecryptable},
		{"not at hand", nil, fault.Permanent, fault.ReasonMappingFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := withFiles(t, `{}`, canary)
			in.Open = c.open
			got, err := m.Apply(in)
			if f := fault.Of(err); f == nil || f.Class != c.class || f.Reason != c.reason || strings.Contains(f.Error(), canary) || got != nil {
				t.Errorf("%v, %v", f, got)
			}
		})
	}
}

// The door tells of all files at once, each with its own rule.
func TestAnOutlineNamesEveryFileThatDoesNotFit(t *testing.T) {
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:for="a in attachments" w:inline="a" w:max="8" w:types="application/*"/>`)), inlineStandard(t), testFormSchema(t), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	in := withFiles(t, `{}`, "larger than allowed", "fits", "", "text")
	in.Attachments[3].MIMEType = "text/plain"
	in.Outline = true
	_, err := m.Apply(in)
	var got []string
	for _, r := range Refusals(err) {
		got = append(got, r.Pointer()+" "+r.Rule)
	}
	if want := []string{"/attachments/0 attachment-too-large", "/attachments/2 attachment-empty", "/attachments/3 attachment-type"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// Whatever the bytes and however they come, the element's text decodes to them.
func TestInlinedBytesDecodeToTheFile(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:for="a in attachments" w:inline="a"/>`)), std, form, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	readers := []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader}
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(chunkBytes-4, chunkBytes+4), rapid.IntRange(2*chunkBytes-2, 2*chunkBytes+2))
		var contents []string
		for range rapid.IntRange(1, 3).Draw(t, "files") {
			size := sizes.Draw(t, "size")
			seed := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "bytes")
			contents = append(contents, string(bytes.Repeat(seed, size/len(seed)+1)[:size]))
		}
		in := withFiles(nilTB{}, `{}`, contents...)
		how := rapid.SampledFrom(readers).Draw(t, "reader")
		open := in.Open
		in.Open = func(a submission.Attachment) (io.ReadCloser, error) {
			r, err := open(a)
			return io.NopCloser(how(r)), err
		}
		got, err := m.Apply(in)
		if err != nil {
			t.Fatal(err)
		}
		var read struct {
			Scans []string `xml:"scan"`
		}
		if err := xml.Unmarshal(got, &read); err != nil {
			t.Fatal(err)
		}
		for i := range read.Scans {
			plain, err := base64.StdEncoding.DecodeString(read.Scans[i])
			if err != nil {
				t.Fatal(err)
			}
			read.Scans[i] = string(plain)
		}
		if !slices.Equal(read.Scans, contents) {
			t.Fatal("other bytes")
		}
		if err := std.Validate(got); err != nil {
			t.Fatal(err)
		}
	})
}

// The door, which opens no file, comes to the verdict that dispatch comes to.
func TestAnOutlineIsJudgedAsTheMessageIs(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:for="a in attachments" w:inline="a" w:max="4KB" w:types="application/pdf"/>
<t:short w:if="len(attachments) == 1" w:inline="attachments[0]"/><t:exact w:if="len(attachments) == 2" w:inline="attachments[1]"/>`)), std, form, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	verdicts := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		var contents []string
		for range rapid.IntRange(1, 3).Draw(t, "files") {
			contents = append(contents, strings.Repeat("x", rapid.OneOf(rapid.IntRange(0, 8), rapid.IntRange(4095, 4097)).Draw(t, "size")))
		}
		in := withFiles(nilTB{}, `{}`, contents...)
		if rapid.IntRange(0, 9).Draw(t, "media type") == 0 {
			in.Attachments[0].MIMEType = "image/png"
		}
		judge := func(in Input) string {
			message, err := m.Apply(in)
			if all := Refusals(err); len(all) > 0 {
				return all[0].Rule + " " + all[0].Pointer()
			}
			if err == nil {
				err = std.Validate(message)
			}
			if err != nil {
				t.Fatal(err)
			}
			return "accepted"
		}
		outline := in
		outline.Outline, outline.Open = true, nil
		whole := judge(in)
		if door := judge(outline); door != whole {
			t.Fatalf("the door says %q, dispatch %q", door, whole)
		}
		verdicts[strings.Fields(whole)[0]]++
	})
	for _, v := range []string{"accepted", "attachment-empty", "attachment-type", "attachment-too-large"} {
		if verdicts[v] == 0 {
			t.Errorf("never %s: %v", v, verdicts)
		}
	}
}

// nilTB is for helpers that fail only where the test itself is wrong.
type nilTB struct{ testing.TB }

func (nilTB) Helper() {}

// The story of a message has a file's size and hash, and opens none.
func TestTheStoryOfAMessageHasNoContent(t *testing.T) {
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:for="a in attachments" w:inline="a"/>`)), inlineStandard(t), testFormSchema(t), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	in := withFiles(t, `{}`, canary, canary+"!")
	in.Open = func(submission.Attachment) (io.ReadCloser, error) { t.Error("opened"); return nil, io.EOF }
	xml, trace, err := m.Trace(in)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(xml, []byte(base64.StdEncoding.EncodeToString([]byte(canary))[:8])) {
		t.Error("the content stands in it")
	}
	var found []Origin
	for _, o := range trace.Origins {
		if o.Content != "" {
			found = append(found, o)
		}
	}
	if len(found) != 2 || found[1].Content != fmt.Sprintf("8 bytes, sha512 %s", in.Attachments[1].Hash.Content) ||
		!slices.Equal(found[1].Fields, []string{"/attachments/1"}) || found[1].Path != "/m.1[1]/scan[2]" || found[1].Line != 3 {
		t.Errorf("%+v", found)
	}
	if fields := trace.Fields("/t:m.1/t:scan[2]"); !slices.Equal(fields, []string{"/attachments/1"}) {
		t.Error(fields)
	}
}

// What the proof leaves open of a file says its bounds.
func TestTheProofNamesTheBoundsOfAFile(t *testing.T) {
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:for="a in attachments" w:inline="a" w:max="2MB" w:types="application/pdf image/*"/>`)), inlineStandard(t), testFormSchema(t), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Open{Line: 3, Rule: "<t:scan> is a file of 1 to 2097152 bytes, application/pdf or image/*", Reason: "files are no part of the form"}
	if !slices.Contains(m.Proof().Open, want) {
		t.Errorf("%+v", m.Proof().Open)
	}
}

func FuzzInline(f *testing.F) {
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:inline="attachments[0]"/>`)), inlineStandard(f), testFormSchema(f), nil)
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Add([]byte("a"))
	f.Add([]byte("\x00\xff<&>]]>"))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := m.Apply(withFiles(t, `{}`, string(content)))
		if len(content) == 0 {
			if err == nil {
				t.Error("an empty file is let in")
			}
			return
		}
		want := xmlDeclaration + envelopeStart + `<t:scan>` + base64.StdEncoding.EncodeToString(content) + `</t:scan></t:m.1>`
		if err != nil || string(got) != want {
			t.Errorf("%s, %v", got, err)
		}
	})
}

// A file of 5 MB: encoding it alone, mapping, checking, and the door's rehearsal.
func BenchmarkInline(b *testing.B) {
	std := inlineStandard(b)
	m, problems := compileMapping("m.xml", []byte(wrap(`<t:scan w:inline="attachments[0]"/>`)), std, testFormSchema(b), nil)
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	content := make([]byte, 5<<20)
	for i := range content {
		content[i] = byte(i * 7)
	}
	in := withFiles(b, `{}`, string(content))
	message, err := m.Apply(in)
	if err != nil {
		b.Fatal(err)
	}
	outline := in
	outline.Outline = true
	apply := func(in Input) func() error {
		return func() error { _, err := m.Apply(in); return err }
	}
	check := func() error {
		found, err := std.Check(message, standard.About{Message: "m.1"})
		return errors.Join(err, found.Err("t/1"))
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"encode", func() error { base64.StdEncoding.AppendEncode(nil, content); return nil }},
		{"map", apply(in)}, {"outline", apply(outline)}, {"check", check},
	} {
		b.Run(step.name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				if err := step.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Where a file could stand and does not, the coverage says so.
func TestCoverageNamesAPlaceForAFile(t *testing.T) {
	std, form := inlineStandard(t), testFormSchema(t)
	for body, want := range map[string]bool{`<t:title w:value="form.title"/>`: true, `<t:scan w:inline="attachments[0]"/>`: false} {
		m, problems := compileMapping("m.xml", []byte(wrap(body)), std, form, nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		named := slices.ContainsFunc(m.Coverage(form), func(g Gap) bool {
			return g.Element == "scan" && g.Path == "/m.1" && slices.Equal(g.Fields, []string{"attachments"})
		})
		if named != want {
			t.Errorf("%s: %+v", body, m.Coverage(form))
		}
	}
}
