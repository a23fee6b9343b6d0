package transform

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jacoelho/xsd"
	"github.com/jacoelho/xsd/xsderrors"
	"go.yaml.in/yaml/v3"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/foreignxml"
)

const manifestFile = "standard.yaml"

// Manifest is a standard's standard.yaml.
type Manifest struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	Title   string `yaml:"title,omitempty"`
	// Licence as the standard states it, or "none stated".
	Licence string `yaml:"licence"`
	// PartLicences are those that schemas shared between standards state.
	PartLicences map[string]string `yaml:"partLicences,omitempty"`
	Source       string            `yaml:"source,omitempty"`
	// Schemas are the entry schemas, relative to the folder.
	Schemas []string `yaml:"schemas"`
	// Messages; where empty, every global element of the entry schemas'
	// namespaces is one.
	Messages  []Message  `yaml:"messages,omitempty"`
	CodeLists []CodeList `yaml:"codelists,omitempty"`
	// Locations maps references that left the package to files in the folder.
	Locations map[string]string `yaml:"locations,omitempty"`
	// Files maps files to SHA-256; what stands here is checked before use.
	Files map[string]string `yaml:"files,omitempty"`
}

// Message is one message of a standard.
type Message struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
	Element   string `yaml:"element,omitempty"` // default: Name
}

// CodeList is one genericode list of a standard.
type CodeList struct {
	URI     string `yaml:"uri"`
	Version string `yaml:"version"`
	File    string `yaml:"file"`
}

// Standards are the installed ones. It is safe for concurrent use; a standard
// imported later is seen after a new OpenStandards.
type Standards struct {
	byKey map[string]*Standard
}

// Standard is one version of one standard. Its schema is compiled when it is
// first needed, once. It is safe for concurrent use.
type Standard struct {
	Manifest
	Dir string

	once    sync.Once
	engine  *xsd.Engine
	err     error
	pool    sync.Pool
	modelMu sync.Mutex
	model   *xsdModel
	msgOnce sync.Once
	msgs    []Message
}

// OpenStandards reads the manifests below the directories, each laid out as
// <name>/<version>/standard.yaml; a directory that is missing has none. A broken
// standard is reported and left out, the others stay. Schemas are not compiled
// yet.
func OpenStandards(dirs ...string) (*Standards, config.Problems) {
	s := &Standards{byKey: map[string]*Standard{}}
	var problems config.Problems
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*", manifestFile))
		if err != nil {
			problems = append(problems, config.Problem{File: dir, Text: "the directory cannot be searched for standards"})
			continue
		}
		slices.Sort(files)
		for _, file := range files {
			if strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(file))), ".") {
				continue // an import or a removal under way
			}
			std, p := openStandard(filepath.Dir(file))
			problems = append(problems, p...)
			if std == nil {
				continue
			}
			key := std.Name + "/" + std.Version
			if other := s.byKey[key]; other != nil {
				problems = append(problems, config.Problem{File: file, Text: fmt.Sprintf("%s is installed twice; %s is used", key, other.Dir), Severity: config.Warning})
				continue
			}
			s.byKey[key] = std
		}
	}
	return s, problems
}

var safeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func openStandard(dir string) (*Standard, config.Problems) {
	file := filepath.Join(dir, manifestFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, config.Problems{{File: file, Text: "it cannot be read: " + plainOSError(err)}}
	}
	std := &Standard{Dir: dir}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&std.Manifest); err != nil {
		return nil, yamlProblems(file, err)
	}
	var problems config.Problems
	fail := func(text string, args ...any) {
		problems = append(problems, config.Problem{File: file, Line: 1, Text: fmt.Sprintf(text, args...)})
	}
	if filepath.Base(dir) != std.Version || filepath.Base(filepath.Dir(dir)) != std.Name {
		fail("it says %s/%s but lies in %s/%s", std.Name, std.Version, filepath.Base(filepath.Dir(dir)), filepath.Base(dir))
	}
	if len(std.Schemas) == 0 {
		fail("schemas is empty: at least one entry schema is needed")
	}
	if std.Licence == "" {
		fail(`licence is missing; write "none stated" where the standard states none`)
	}
	var named []string
	named = append(named, std.Schemas...)
	for _, to := range std.Locations {
		named = append(named, to)
	}
	for _, c := range std.CodeLists {
		named = append(named, c.File)
	}
	for f := range std.Files {
		named = append(named, f)
	}
	slices.Sort(named)
	for _, f := range slices.Compact(named) {
		if !fs.ValidPath(f) {
			fail("the file %q leaves the standard's folder", f)
		} else if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f))); err != nil || info.IsDir() {
			fail("the file %q is missing", f)
		}
	}
	if problems.Failed() {
		return nil, problems
	}
	return std, nil
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// yamlProblems turns the YAML reader's errors into problems with lines.
func yamlProblems(file string, err error) config.Problems {
	var te *yaml.TypeError
	texts := []string{err.Error()}
	if errors.As(err, &te) {
		texts = te.Errors
	}
	var out config.Problems
	for _, t := range texts {
		p := config.Problem{File: file, Text: strings.TrimPrefix(t, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(t); m != nil {
			_, _ = fmt.Sscan(m[1], &p.Line)
			p.Text = m[2]
		}
		out = append(out, p)
	}
	return out
}

// Get returns an installed standard.
func (s *Standards) Get(name, version string) (*Standard, bool) {
	std, ok := s.byKey[name+"/"+version]
	return std, ok
}

// List returns the installed standards by name and version.
func (s *Standards) List() []*Standard {
	out := make([]*Standard, 0, len(s.byKey))
	for _, std := range s.byKey {
		out = append(out, std)
	}
	slices.SortFunc(out, func(a, b *Standard) int {
		return strings.Compare(a.Name+"/"+a.Version, b.Name+"/"+b.Version)
	})
	return out
}

// RemoveStandard deletes an installed standard from dir, as Import put it
// there. What is not installed is an error.
func RemoveStandard(dir, name, version string) error {
	if !safeName.MatchString(name) || !safeName.MatchString(version) {
		return errors.New("a standard is named by name and version")
	}
	path := filepath.Join(dir, name, version)
	if _, err := os.Stat(filepath.Join(path, manifestFile)); err != nil {
		return fmt.Errorf("%s/%s is not installed in %s", name, version, dir)
	}
	// Renamed first: a half-deleted folder must not look like a standard.
	gone, err := os.MkdirTemp(dir, ".remove-")
	if err != nil {
		return fmt.Errorf("removing %s/%s: %w", name, version, err)
	}
	if err := os.Rename(path, filepath.Join(gone, version)); err != nil {
		_ = os.Remove(gone)
		return fmt.Errorf("removing %s/%s: %w", name, version, err)
	}
	_ = os.Remove(filepath.Join(dir, name)) // only where it is empty
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("removing %s/%s: %w", name, version, err)
	}
	return nil
}

// Key returns "name/version".
func (s *Standard) Key() string { return s.Name + "/" + s.Version }

// Check reads and compiles the standard's schemas, as the first use would. The
// error names the file and what is wrong with it.
func (s *Standard) Check() error {
	if _, err := s.compiled(); err != nil {
		return err
	}
	_, err := s.schema()
	return err
}

// MessageNames returns the standard's messages; none where its schemas cannot
// be read.
func (s *Standard) MessageNames() []Message {
	s.msgOnce.Do(func() {
		s.msgs = s.Messages
		if len(s.msgs) > 0 {
			return
		}
		model, err := s.schema()
		if err != nil {
			return
		}
		s.modelMu.Lock()
		defer s.modelMu.Unlock()
		seen := map[string]bool{}
		for _, d := range model.docs {
			if slices.Contains(s.Schemas, d.name) && !seen[d.target] {
				seen[d.target] = true
				for _, e := range model.globalElements(d.target) {
					s.msgs = append(s.msgs, Message{Name: e, Namespace: d.target})
				}
			}
		}
		slices.SortFunc(s.msgs, func(a, b Message) int { return strings.Compare(a.Name, b.Name) })
	})
	return s.msgs
}

// Message returns one message by its name.
func (s *Standard) Message(name string) (Message, bool) {
	for _, m := range s.MessageNames() {
		if m.Name == name {
			if m.Element == "" {
				m.Element = m.Name
			}
			return m, true
		}
	}
	return Message{}, false
}

// schema returns the model that mappings are proven against. Proofs of one
// standard run one after another: the model builds its types as they are asked
// for.
func (s *Standard) schema() (*xsdModel, error) {
	s.modelMu.Lock()
	defer s.modelMu.Unlock()
	if s.model != nil {
		return s.model, nil
	}
	if err := s.checkFiles(); err != nil {
		return nil, err
	}
	m, err := loadModel(os.DirFS(s.Dir), s.Schemas, s.Locations)
	if err != nil {
		return nil, err
	}
	s.model = m
	return m, nil
}

func (s *Standard) checkFiles() error {
	for f, want := range s.Files {
		raw, err := os.ReadFile(filepath.Join(s.Dir, filepath.FromSlash(f)))
		if err != nil {
			return fmt.Errorf("%s: %s is missing", s.Key(), f)
		}
		sum := sha256.Sum256(raw)
		if hex.EncodeToString(sum[:]) != want {
			return fmt.Errorf("%s: %s is not the file that was installed (its SHA-256 differs)", s.Key(), f)
		}
	}
	return nil
}

// schemaLimits bound one schema file.
var schemaLimits = foreignxml.Limits{Bytes: 32 << 20, Depth: 100, Elements: 500_000, Attributes: 100}

func (s *Standard) compiled() (*xsd.Engine, error) {
	s.once.Do(func() {
		if s.err = s.checkFiles(); s.err != nil {
			return
		}
		s.engine, s.err = compileXSD(os.DirFS(s.Dir), s.Schemas, s.Locations)
		if s.err != nil {
			s.err = fmt.Errorf("%s: %w", s.Key(), s.err)
		}
	})
	return s.engine, s.err
}

// compileXSD compiles entry schemas; references are resolved inside fsys and
// nowhere else.
func compileXSD(fsys fs.FS, entries []string, locations map[string]string) (*xsd.Engine, error) {
	var missing error
	source := func(file string) (xsd.SchemaSource, error) {
		raw, err := fs.ReadFile(fsys, file)
		if err != nil {
			return xsd.SchemaSource{}, fmt.Errorf("the schema %s is missing", file)
		}
		if err := foreignxml.Check(bytes.NewReader(raw), schemaLimits); err != nil {
			return xsd.SchemaSource{}, fmt.Errorf("the schema %s: %w", file, err)
		}
		return xsd.Bytes(file, raw), nil
	}
	resolver := xsd.ResolverFunc(func(base, location string) (xsd.SchemaSource, error) {
		file, ok := resolveLocation(fsys, base, location, locations)
		if !ok {
			missing = fmt.Errorf("the schema %s refers to %s, which the standard's folder does not have", base, location)
			return xsd.SchemaSource{}, missing
		}
		src, err := source(file)
		if err != nil {
			missing = err
		}
		return src, err
	})
	sources := make([]xsd.SchemaSource, 0, len(entries))
	for _, e := range entries {
		src, err := source(e)
		if err != nil {
			return nil, err
		}
		sources = append(sources, src.WithResolver(resolver))
	}
	engine, err := xsd.CompileWithOptions(xsd.CompileOptions{}, sources...)
	if missing != nil {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("the schema does not compile: %w", err)
	}
	return engine, nil
}

const maxReportedFaults = 5

// Validate checks one message against the standard's XSD. An invalid message is
// a *fault.Error, permanent, schema-invalid, whose detail names code, line and
// path of up to five faults and never a value; a schema that does not compile is
// standard-missing. It is safe for concurrent use.
func (s *Standard) Validate(message []byte) error {
	engine, err := s.compiled()
	if err != nil {
		return fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
	}
	session, _ := s.pool.Get().(*xsd.Session)
	if session == nil {
		if session, err = engine.NewSession(xsd.ValidateOptions{MaxErrors: maxReportedFaults}); err != nil {
			return fault.Wrap(err, fault.Permanent, fault.ReasonStandardMissing, "the schema of %s cannot be used", s.Key())
		}
	}
	err = session.Validate(bytes.NewReader(message))
	s.pool.Put(session)
	if err == nil {
		return nil
	}
	var details []string
	for _, e := range xsderrors.Flatten(err) {
		var xe *xsderrors.Error
		if !errors.As(e, &xe) {
			details = append(details, "invalid")
			continue
		}
		details = append(details, fmt.Sprintf("%s at line %d column %d, %s", xe.Code(), xe.Line(), xe.Column(), clipPath(xe.Path())))
	}
	return fault.Wrap(err, fault.Permanent, fault.ReasonSchemaInvalid, "%s: %s", s.Key(), strings.Join(details, "; "))
}

// ValidateAs is Validate for a message whose root must be the named one: an XSD
// alone accepts every global element as root.
func (s *Standard) ValidateAs(message []byte, name string) error {
	if err := s.Validate(message); err != nil {
		return err
	}
	want, ok := s.Message(name)
	root, err := rootName(message)
	if err != nil || !ok || root.local != want.Element || want.Namespace != "" && root.space != want.Namespace {
		return fault.New(fault.Permanent, fault.ReasonSchemaInvalid, "%s: the root element is not the message %s", s.Key(), name)
	}
	return nil
}

func clipPath(p string) string {
	if p == "" {
		return "path unknown"
	}
	if len(p) > 300 {
		return "…" + p[len(p)-300:]
	}
	return p
}
