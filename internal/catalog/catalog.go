package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"weiche/internal/config"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/document"
	"weiche/internal/transform/standard"
)

const (
	processFile = "process.yaml"
	// fragmentsFolder holds what the processes' mappings share.
	fragmentsFolder = "fragments"
)

// Catalog is the process library. It is read-only after Load and safe for
// concurrent use.
type Catalog struct {
	byService map[submission.Service]*Process
	byID      map[string]*Process
}

// Name is a process's name in the languages it has.
type Name struct {
	DE string `yaml:"de"`
	EN string `yaml:"en"`
}

// Process is one entry of the library.
type Process struct {
	ID      string
	Dir     string
	Name    Name
	Service submission.Service
	Version string
	Home    submission.Land // the Land that built it
	Schema  *transform.FormSchema
	// Formats in the order of process.yaml. Each is in Mappings or in Missing.
	Formats  []submission.Format
	Mappings map[submission.Format]*transform.Mapping
	// Missing names, per format, the standard that is not installed.
	Missing  map[submission.Format]string
	Examples []Example

	form *formValidator
}

// Example is one form with what must become of it.
type Example struct {
	Name      string
	File      string // the envelope as a portal posts it
	Expected  map[submission.Format]string
	Authority submission.Authority
	Portal    transform.PortalInput
}

type processYAML struct {
	ID       string      `yaml:"id"`
	Service  string      `yaml:"service"`
	Name     Name        `yaml:"name"`
	Version  string      `yaml:"version"`
	Home     string      `yaml:"home"`
	Form     string      `yaml:"form"`
	Formats  yaml.Node   `yaml:"formats"`
	Examples []yaml.Node `yaml:"examples"`
}

type exampleYAML struct {
	Name       string            `yaml:"name"`
	Submission string            `yaml:"submission"`
	Expected   map[string]string `yaml:"expected"`
	Authority  *partyYAML        `yaml:"authority"`
	Portal     *partyYAML        `yaml:"portal"`
}

type partyYAML struct {
	ID   string `yaml:"id"`
	Key  string `yaml:"key"`
	Name string `yaml:"name"`
}

// Load reads every folder below dir (config/services), apart from fragments, which
// holds parts that mappings share; register is what they look authorities up in.
// Problems name file and line; a process with an error is left out, the others
// stay. A standard that is not installed is a warning.
func Load(dir string, std *standard.Installed, register []submission.Authority) (*Catalog, config.Problems) {
	c := &Catalog{byService: map[submission.Service]*Process{}, byID: map[string]*Process{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, config.Problems{{File: dir, Text: "the process library cannot be read: " + osText(err)}}
	}
	var problems config.Problems
	shared := transform.OpenShared(filepath.Join(dir, fragmentsFolder), register)
	var mappings []string
	for _, l := range loadAll(dir, entries, std, shared) {
		problems = append(problems, l.problems...)
		mappings = append(mappings, l.mappings...)
		p := l.process
		if p == nil {
			continue
		}
		if other := c.byService[p.Service]; other != nil {
			problems = append(problems, config.Problem{
				File: filepath.Join(p.Dir, processFile), Line: 1,
				Text: fmt.Sprintf("the service %s is already the process %q's", p.Service, other.ID),
			})
			continue
		}
		c.byService[p.Service], c.byID[p.ID] = p, p
	}
	return c, append(problems, c.unused(shared, mappings)...)
}

// unused warns of files that mappings may share and none does; what an example
// expects is no table.
func (c *Catalog) unused(shared *transform.Shared, mappings []string) config.Problems {
	expected := map[string]bool{}
	for _, p := range c.byID {
		for _, e := range p.Examples {
			for _, file := range e.Expected {
				expected[file] = true
			}
		}
	}
	return slices.DeleteFunc(shared.Unused(mappings), func(p config.Problem) bool { return expected[p.File] })
}

// loaded is what came of one folder.
type loaded struct {
	process  *Process
	mappings []string // their files, whatever became of them
	problems config.Problems
}

// loadAll reads the folders on all processors, as proving a large mapping takes
// half a second and more. What comes of them stands in the folders' order.
func loadAll(dir string, entries []os.DirEntry, std *standard.Installed, shared *transform.Shared) []loaded {
	all := make([]loaded, len(entries))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || e.Name() == fragmentsFolder {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			all[i] = loadProcess(filepath.Join(dir, e.Name()), std, shared)
			<-slots
		})
	}
	wg.Wait()
	return all
}

// Service returns the process of a service.
func (c *Catalog) Service(s submission.Service) (*Process, bool) {
	p, ok := c.byService[s]
	return p, ok
}

// Process returns a process by its id.
func (c *Catalog) Process(id string) (*Process, bool) {
	p, ok := c.byID[id]
	return p, ok
}

// Processes returns every process by id.
func (c *Catalog) Processes() []*Process {
	out := make([]*Process, 0, len(c.byID))
	for _, p := range c.byID {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Process) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Mappable says whether the process has a working mapping to the format. Every
// process can be turned into the built-in ones.
func (p *Process) Mappable(f submission.Format) bool { return f.BuiltIn() || p.Mappings[f] != nil }

// Document writes a submission in a built-in format. The error is a *fault.Error,
// permanent, and names no value.
func (p *Process) Document(f submission.Format, in transform.Input) ([]byte, error) {
	d, err := document.New(p.Name.DE, p.Schema, in)
	if err != nil {
		return nil, err
	}
	return d.Write(f)
}

// Mappable says whether the service can be mapped to the format.
func (c *Catalog) Mappable(s submission.Service, f submission.Format) bool {
	p, ok := c.byService[s]
	return ok && p.Mappable(f)
}

var (
	processID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	yamlLine  = regexp.MustCompile(`line (\d+): (.*)`)
)

type loader struct {
	file     string
	mappings []string
	dir      string
	problems config.Problems
}

func (l *loader) fail(line int, text string, args ...any) {
	l.problems = append(l.problems, config.Problem{File: l.file, Line: line, Text: fmt.Sprintf(text, args...)})
}

func (l *loader) yaml(err error) {
	texts := []string{err.Error()}
	var te *yaml.TypeError
	if errors.As(err, &te) {
		texts = te.Errors
	}
	for _, t := range texts {
		line := 0
		t = strings.TrimPrefix(t, "yaml: ")
		if m := yamlLine.FindStringSubmatch(t); m != nil {
			line, _ = strconv.Atoi(m[1])
			t = m[2]
		}
		l.fail(line, "%s", t)
	}
}

// path resolves a file named in process.yaml, inside the process's folder.
func (l *loader) path(line int, what, name string) (string, bool) {
	if name == "" {
		l.fail(line, "%s is missing", what)
		return "", false
	}
	if !filepath.IsLocal(name) {
		l.fail(line, "%s %q leaves the process's folder", what, name)
		return "", false
	}
	return filepath.Join(l.dir, filepath.FromSlash(name)), true
}

func loadProcess(dir string, std *standard.Installed, shared *transform.Shared) loaded {
	l := &loader{file: filepath.Join(dir, processFile), dir: dir}
	raw, err := os.ReadFile(l.file)
	if err != nil {
		l.fail(0, "it cannot be read: %s", osText(err))
		return l.refused()
	}
	lines := keyLines(raw)
	var y processYAML
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&y); err != nil {
		if errors.Is(err, io.EOF) {
			l.fail(1, "it is empty")
		} else {
			l.yaml(err)
		}
		return l.refused()
	}
	p := &Process{
		ID: y.ID, Dir: dir, Name: y.Name, Version: y.Version,
		Mappings: map[submission.Format]*transform.Mapping{}, Missing: map[submission.Format]string{},
	}
	if !processID.MatchString(y.ID) || y.ID != filepath.Base(dir) {
		l.fail(lines["id"], "id is %q; it is the folder's name, %q, in small letters, digits and hyphens", y.ID, filepath.Base(dir))
	}
	if p.Service, err = submission.ParseService(y.Service); err != nil {
		l.fail(lines["service"], "service: %v", err)
	}
	if p.Home, err = submission.ParseLand(y.Home); err != nil {
		l.fail(lines["home"], "home: %v", err)
	}
	if y.Name.DE == "" || y.Name.EN == "" {
		l.fail(lines["name"], "name needs de and en")
	}
	if y.Version == "" {
		l.fail(lines["version"], "version is missing")
	}
	if file, ok := l.path(lines["form"], "form", y.Form); ok {
		var ps config.Problems
		p.Schema, ps = transform.LoadFormSchema(file)
		l.problems = append(l.problems, ps...)
		if p.Schema != nil {
			if p.form, err = compileForm(p.Schema); err != nil {
				l.problems = append(l.problems, config.Problem{File: file, Text: "the form schema does not compile: " + err.Error()})
			}
		}
	}
	l.formats(p, &y, lines["formats"], std, shared)
	for i := range y.Examples {
		l.example(p, &y.Examples[i])
	}
	if l.problems.Failed() {
		return l.refused()
	}
	return loaded{p, l.mappings, l.problems}
}

func (l *loader) refused() loaded { return loaded{mappings: l.mappings, problems: l.problems} }

func (l *loader) formats(p *Process, y *processYAML, line int, std *standard.Installed, shared *transform.Shared) {
	if y.Formats.Kind != yaml.MappingNode || len(y.Formats.Content) == 0 {
		l.fail(line, "formats needs at least one entry, format: mapping file")
		return
	}
	for i := 0; i+1 < len(y.Formats.Content); i += 2 {
		key, value := y.Formats.Content[i], y.Formats.Content[i+1]
		f, err := submission.ParseFormat(key.Value)
		if err != nil {
			l.fail(key.Line, "formats: %v", err)
			continue
		}
		if slices.Contains(p.Formats, f) {
			l.fail(key.Line, "the format %s stands twice", f)
			continue
		}
		if f.BuiltIn() {
			l.fail(key.Line, "the format %s needs no mapping: every service can be turned into it", f)
			continue
		}
		p.Formats = append(p.Formats, f)
		file, ok := l.path(value.Line, "mapping", value.Value)
		if !ok {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			l.fail(value.Line, "the mapping %q cannot be read: %s", value.Value, osText(err))
			continue
		}
		l.mappings = append(l.mappings, file)
		s, installed := std.Get(f.Standard, f.Version)
		if !installed {
			p.Missing[f] = f.Standard + "/" + f.Version
			l.problems = append(l.problems, config.Problem{
				File: l.file, Line: key.Line, Severity: config.Warning,
				Text: fmt.Sprintf("the standard %s/%s is not installed: submissions of %s are not mapped to %s until it is (router standards import DIR|ZIP)", f.Standard, f.Version, p.ID, f),
			})
			continue
		}
		if p.Schema == nil {
			continue
		}
		m, ps := transform.CompileMapping(file, s, p.Schema, shared)
		l.problems = append(l.problems, ps...)
		if m == nil {
			continue
		}
		if m.Message() != f.Message {
			l.fail(key.Line, "the format's message is %s, but %s writes %s", f.Message, value.Value, m.Message())
			continue
		}
		p.Mappings[f] = m
	}
}

func (l *loader) example(p *Process, n *yaml.Node) {
	var y exampleYAML
	raw, err := yaml.Marshal(n)
	if err == nil {
		d := yaml.NewDecoder(bytes.NewReader(raw))
		d.KnownFields(true)
		err = d.Decode(&y)
	}
	if err != nil {
		l.fail(n.Line, "example: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	e := Example{
		Name: y.Name, Expected: map[submission.Format]string{},
		Authority: submission.Authority{ID: "example", Key: "bab:08115003", Name: "Stadt Böblingen, Baurechtsamt"},
		Portal:    transform.PortalInput{Key: "bap:080000000001", Name: "service-bw"},
	}
	if y.Name == "" {
		l.fail(n.Line, "an example needs a name")
	}
	var ok bool
	if e.File, ok = l.path(n.Line, "submission", y.Submission); ok {
		if _, err := os.Stat(e.File); err != nil {
			l.fail(n.Line, "the example %q cannot be read: %s", y.Submission, osText(err))
		}
	}
	for format, file := range y.Expected {
		f, err := submission.ParseFormat(format)
		if err != nil || f != submission.FormatCSV && !slices.Contains(p.Formats, f) {
			l.fail(n.Line, "expected: %q is neither one of the process's formats nor %s", format, submission.FormatCSV)
			continue
		}
		if path, ok := l.path(n.Line, "expected", file); ok {
			e.Expected[f] = path
		}
	}
	party := func(what string, y *partyYAML, key *submission.AuthorityKey, name *string) {
		if y == nil {
			return
		}
		k, err := submission.ParseAuthorityKey(y.Key)
		if err != nil {
			l.fail(n.Line, "%s: %v", what, err)
		}
		*key, *name = k, y.Name
	}
	party("authority", y.Authority, &e.Authority.Key, &e.Authority.Name)
	if y.Authority != nil && y.Authority.ID != "" {
		e.Authority.ID = y.Authority.ID
	}
	party("portal", y.Portal, &e.Portal.Key, &e.Portal.Name)
	p.Examples = append(p.Examples, e)
}

// keyLines maps the top-level keys of a YAML document to their lines.
func keyLines(raw []byte) map[string]int {
	lines := map[string]int{}
	var doc yaml.Node
	if yaml.Unmarshal(raw, &doc) != nil || len(doc.Content) == 0 {
		return lines
	}
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		lines[top.Content[i].Value] = top.Content[i].Line
	}
	return lines
}

// osText says what the operating system said, without the path.
func osText(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
