package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"weiche/internal/catalog"
	"weiche/internal/config"
	"weiche/internal/dispatch"
	"weiche/internal/jsonvalid"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
	"weiche/internal/xmljudge"
)

const sharedDir = "../../../shared/"

// judged are the standards that the shipped services write: where each comes
// from, and the schema that libxml2 reads.
var judged = []struct {
	key, source, schema string
	with                []string
}{
	{"xbau/2.6", "standards/xbau/2.6", sharedDir + "standards/xbau/2.6/xbau-all.xsd", []string{"codelists/xbau-2.6"}},
	{"xbau-kernmodul/1.3.0", "", sharedDir + "standards/xbau/2.6/xbauk-all.xsd", nil}, // comes with XBau 2.6
	{"xbau/2.5", "standards/xbau/2.5", sharedDir + "standards/xbau/2.5/xbau.xsd", []string{"codelists/xbau-2.6"}},
	{"xbeteiligung/1.2", "standards/xbeteiligung/1.2", sharedDir + "standards/xbeteiligung/1.2/xbeteiligung.xsd", nil},
	{"xdomea/3.0.0", "standards/xdomea/3.0.0", sharedDir + "standards/xdomea/3.0.0/xdomea.xsd", []string{"standards/xdomea/xoev", "codelists/xdomea-3.0.0"}},
	{"xdomea/3.1.0", "standards/xdomea/3.1.0", sharedDir + "standards/xdomea/3.1.0/xdomea.xsd", []string{"standards/xdomea/xoev", "codelists/xdomea-3.0.0"}},
	{"xjustiz/3.6.2", "standards/xjustiz/3.6.2", sharedDir + "standards/xjustiz/3.6.2/xjustiz_0005_nachrichten_3_2.xsd", []string{"standards/catalog", "standards/xbau/2.6"}},
	{"antrag/1.0", "", "../../config/standards/antrag/1.0/antrag.xsd", nil},
}

var shippedOnce struct {
	sync.Once
	lib *Library
	err error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "standards-")
	if err != nil {
		panic(err)
	}
	standardsDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var standardsDir string

// shippedLibrary is what ships with the official standards beside it, offered by
// one Land. It is read once, as proving the mappings takes seconds.
func shippedLibrary(t testing.TB) *Library {
	t.Helper()
	if _, err := os.Stat(sharedDir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the official standards are not at hand")
	}
	shippedOnce.Do(func() { shippedOnce.lib, shippedOnce.err = loadShipped("../../config/services") })
	if shippedOnce.err != nil {
		t.Fatal(shippedOnce.err)
	}
	return shippedOnce.lib
}

func loadShipped(services string) (*Library, error) {
	for _, s := range judged {
		if _, err := os.Stat(filepath.Join(standardsDir, s.key)); s.source == "" || err == nil {
			continue
		}
		var with []string
		for _, w := range s.with {
			with = append(with, sharedDir+w)
		}
		if _, err := standard.Import(context.Background(), sharedDir+s.source, standardsDir, with); err != nil {
			return nil, err
		}
	}
	std, _ := standard.Open("../../config/standards", standardsDir)
	cat, problems := catalog.Load(services, std, nil)
	if problems.Failed() {
		return nil, problems
	}
	land := &config.Land{Key: "08"}
	for _, p := range cat.Processes() {
		land.Services = append(land.Services, config.Offer{Service: p.Service})
	}
	return &Library{Catalog: cat, Standards: std, Config: &config.Config{Lands: map[submission.Land]*config.Land{land.Key: land}}}, nil
}

// perService is how many forms of each service are drawn: with WEICHE_SOAK=1
// more than 20,000 in all.
func perService() int {
	if os.Getenv("WEICHE_SOAK") == "1" {
		return 2600
	}
	return 60
}

// Whatever is drawn from a form's schema is refused at the door, by a rule with
// a name, or becomes a message that libxml2 accepts. Nothing else happens, and
// nineteen of twenty are accepted.
func TestGeneratedFormsAreRefusedAtTheDoorOrValid(t *testing.T) {
	lib := shippedLibrary(t)
	seed := rand.IntN(1 << 30)
	if s := os.Getenv("WEICHE_SEED"); s != "" {
		var err error
		if seed, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("WEICHE_SEED=%d", seed)
	all, accepted := 0, 0
	for _, p := range lib.Catalog.Processes() {
		t.Run(p.ID, func(t *testing.T) {
			r := newRound(t, lib, p)
			n := perService()
			for i := range n {
				r.try(t, seed+i)
				if len(r.waiting) >= 500 || i == n-1 {
					r.judge(t)
				}
				if t.Failed() {
					return // one form is enough to look for
				}
			}
			all, accepted = all+r.drawn, accepted+r.accepted
			t.Logf("%d of %d accepted, and %d that were disturbed; %d messages valid; refused: %v", r.accepted, r.drawn, r.wild, r.valid, r.refused)
			if r.accepted*100 < r.drawn*95 {
				t.Errorf("%d of %d accepted, 95 of 100 are wanted; for instance: %s", r.accepted, r.drawn, r.instance)
			}
		})
	}
	t.Logf("%d of %d accepted", accepted, all)
}

// round tries the forms of one service.
type round struct {
	lib      *Library
	process  *catalog.Process
	sample   dispatch.Job
	schema   *jsonschema.Schema
	check    *jsonvalid.Checker
	draw     *rapid.Generator[drawn]
	dir      string
	waiting  map[string]written // by file, until libxml2 has judged
	drawn    int                // as the schema wants
	accepted int                // of them
	wild     int                // accepted although disturbed
	valid    int
	refused  map[string]int
	instance string // one refusal
}

// drawn is a form, as its schema wants it or with something wild in it.
type drawn struct {
	form      any
	disturbed bool
	lost      bool // disturbed by a file that did not come with it
	around    around
}

// around is what a portal writes beside the form, none of it in the form's schema.
type around struct {
	reference, date, trust, name, mediaType, purpose, description string
}

var (
	plain = around{name: "plan.pdf", mediaType: "application/pdf", purpose: "attachment"}
	words = rapid.SampledFrom([]string{"AZ 4711/26", "Иванов", " x ", "a  b", "a\tb", "a\nb", "😀", "C̈", "ẞ", "Ω", "<&>\"'", "%00", strings.Repeat("ä", 255)})
)

func drawAround(t *rapid.T) around {
	return around{
		reference:   words.Draw(t, "reference"),
		date:        rapid.SampledFrom([]string{"", "2026-11-22", "0001-01-01", "9999-12-31"}).Draw(t, "date"),
		trust:       rapid.SampledFrom([]string{"", "STORK-QAA-Level-1", "STORK-QAA-Level-4"}).Draw(t, "trust level"),
		name:        words.Filter(func(s string) bool { return !strings.ContainsAny(s, "/\t\n") }).Draw(t, "name"),
		mediaType:   rapid.SampledFrom([]string{"application/pdf", "image/heic", "chemical/x-pdb", "text/plain", "a/b", "application/vnd.oasis.opendocument.text"}).Draw(t, "media type"),
		purpose:     rapid.SampledFrom([]string{"form", "attachment", "report", "data"}).Draw(t, "purpose"),
		description: words.Draw(t, "description"),
	}
}

type written struct {
	format submission.Format
	form   json.RawMessage
}

func newRound(t *testing.T, lib *Library, p *catalog.Process) *round {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(p.Schema.Raw, &doc); err != nil {
		t.Fatal(err)
	}
	in, _, err := p.ExampleInput(p.Examples[0])
	if err != nil {
		t.Fatal(err)
	}
	schema := compiled(t, p.Schema.Raw)
	f := &forms{doc: doc, strs: map[string]*rapid.Generator[string]{}}
	return &round{
		lib: lib, process: p, dir: t.TempDir(), waiting: map[string]written{}, refused: map[string]int{},
		draw: rapid.Custom(func(t *rapid.T) drawn {
			d := drawn{form: f.draw(t, doc, 0), disturbed: rapid.Uint64Range(0, 9).Draw(t, "disturbed") == 9, around: plain}
			switch {
			case d.disturbed && rapid.Bool().Draw(t, "around"):
				d.around = drawAround(t)
			case d.disturbed:
				if d.lost = rapid.Bool().Draw(t, "lost"); !d.lost {
					d.form = disturb(t, d.form)
				}
			}
			return d
		}),
		sample: dispatch.Job{
			Meta:     submission.Meta{ID: uuid.New(), CaseID: uuid.New(), Service: p.Service, Region: in.Submission.Region, Land: "08", AcceptedAt: time.Now()},
			Envelope: in.Envelope, Authority: in.Authority, Portal: submission.Authority{Key: in.Portal.Key, Name: in.Portal.Name},
			MessageID: uuid.New(), CreatedAt: time.Now(),
			Open: func(a submission.Attachment) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(strings.Repeat("%", int(a.Size)))), nil
			},
		},
		schema: schema, check: jsonvalid.Compile(schema),
	}
}

// compiled is a form's schema as the judge of forms has it.
func compiled(t *testing.T, raw []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonvalid.NewCompiler()
	if err := c.AddResource("weiche:///form.json", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("weiche:///form.json")
}

func (r *round) refuse(rule, text string, d drawn, form []byte) {
	if d.disturbed {
		rule += " (disturbed)"
	} else {
		r.instance = fmt.Sprintf("%s %s %.300s", rule, text, form)
	}
	r.refused[rule]++
}

// try brings one form to the door, and where it is let in makes its messages.
func (r *round) try(t *testing.T, seed int) {
	t.Helper()
	example := r.draw.Example(seed)
	if !example.disturbed {
		r.drawn++
	}
	raw, err := json.Marshal(example.form)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var data any
	if err := d.Decode(&data); err != nil {
		t.Fatal(err)
	}
	// The short way to a verdict is the judge's, and there is one for what ships.
	if valid := r.schema.Validate(data) == nil; r.check.Valid(data) != valid {
		t.Errorf("valid: %t, the short way says otherwise\nform: %s", valid, raw)
	}
	if faults := (form{r.process}).Check(data); len(faults) > 0 {
		if f := faults[0]; f.Text.EN == "" || f.Text.DE == "" {
			t.Errorf("a refusal without a reason: %+v\nform: %s", f, raw)
		}
		r.refuse("form-invalid", faults[0].Pointer+" "+faults[0].Text.EN, example, raw)
		return
	}
	env := *r.sample.Envelope
	env.Data, env.Attachments, env.TrustLevel = raw, files(data, example.around), example.around.trust
	env.AdditionalReferenceInfo = &submission.AdditionalReferenceInfo{SenderReference: example.around.reference, ApplicationDate: example.around.date}
	if n := len(env.Attachments); example.lost && n > 0 {
		env.Attachments = env.Attachments[:n-1]
	}
	messages := map[submission.Format][]byte{}
	for _, format := range r.process.Formats {
		j := r.sample
		j.Envelope, j.Format = &env, format
		if faults := r.lib.rehearse(j); len(faults) > 0 {
			f := faults[0]
			rule, named := strings.CutPrefix(f.Text.EN, "Rule ")
			if !named || f.Text.DE == "" || !strings.HasPrefix(f.Pointer, "/") {
				t.Errorf("a refusal that names no rule or no field: %+v\nform: %s", f, raw)
			}
			rule, _, _ = strings.Cut(rule, " ")
			r.refuse(rule, f.Text.EN, example, raw)
			return
		}
		if messages[format], err = r.lib.Message(j); err != nil {
			t.Errorf("%s: let in at the door, and then: %v\nform: %s", format, err, raw)
			return
		}
	}
	if example.disturbed {
		r.wild++
	} else {
		r.accepted++
	}
	for format, xml := range messages {
		file := filepath.Join(r.dir, fmt.Sprintf("%d-%s_%s.xml", seed, format.Standard, format.Version))
		if err := os.WriteFile(file, xml, 0o600); err != nil {
			t.Fatal(err)
		}
		r.waiting[file] = written{format, raw}
	}
}

// judge asks libxml2 about all messages that wait, and forgets them.
func (r *round) judge(t *testing.T) {
	t.Helper()
	for _, s := range judged {
		var all []string
		for file, w := range r.waiting {
			if w.format.Standard+"/"+w.format.Version == s.key {
				all = append(all, file)
			}
		}
		if len(all) == 0 {
			continue
		}
		said := xmljudge.XmllintAll(t, s.schema, sharedDir+"standards/catalog/catalog.xml", all)
		for _, file := range all {
			if said[file] != "" {
				t.Errorf("%s: libxml2 refuses what was accepted: %s\nform: %s", s.key, said[file], r.waiting[file].form)
			} else {
				r.valid++
			}
			_ = os.Remove(file)
			delete(r.waiting, file)
		}
	}
	for file, w := range r.waiting {
		t.Errorf("nobody judged %s, a message of %s", file, w.format)
	}
	clear(r.waiting)
}

// files are those that a form names, sent with it, and one more where what is
// around the form is unusual.
func files(form any, as around) []submission.Attachment {
	out := []submission.Attachment{}
	group, _ := form.(map[string]any)
	all, _ := group["anlagen"].([]any)
	if as != plain {
		all = append([]any{map[string]any{"attachmentId": "beside"}}, all...)
	}
	for _, x := range all {
		named, _ := x.(map[string]any)
		id, _ := named["attachmentId"].(string)
		out = append(out, submission.Attachment{
			AttachmentID: id, Filename: as.name, MIMEType: as.mediaType, Purpose: as.purpose, Description: as.description,
			Hash: submission.Hash{Type: "sha512", Content: strings.Repeat("0a", 64)}, Size: 12,
		})
	}
	return out
}
