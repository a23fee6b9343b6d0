package standard

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

	"go.yaml.in/yaml/v3"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/transform/xsd"
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
	// ValidFrom and ValidUntil are the first and the last day of the standard's
	// time (2026-05-01); a message of another day is warned of.
	ValidFrom  string `yaml:"validFrom,omitempty"`
	ValidUntil string `yaml:"validUntil,omitempty"`
	// Schematron are the standard's rule files. The router does not run them.
	Schematron []string `yaml:"schematron,omitempty"`
	// EmptyElements is "refused" where the standard's rules forbid an element
	// without content; else it is a warning.
	EmptyElements string `yaml:"emptyElements,omitempty"`
	// Reasons are the standard's own words for the router's reasons.
	Reasons map[fault.Reason]string `yaml:"reasons,omitempty"`
}

// Refused is a value of Manifest.EmptyElements.
const Refused = "refused"

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
	// ValidFrom and ValidUntil are what the list says of itself.
	ValidFrom  string `yaml:"validFrom,omitempty"`
	ValidUntil string `yaml:"validUntil,omitempty"`
}

// Installed are the standards at hand. It is safe for concurrent use; a standard
// imported later is seen after a new Open.
type Installed struct {
	byKey map[string]*Standard
}

// Standard is one version of one standard. Its schema is compiled when it is
// first needed, once. It is safe for concurrent use.
type Standard struct {
	Manifest
	Dir string

	once    sync.Once
	schema  *xsd.Schema
	err     error
	msgOnce sync.Once
	msgs    []Message

	lists     *listIndex
	rulesOnce sync.Once
	graph     *graph
}

// Open reads the manifests below the directories, each laid out as
// <name>/<version>/standard.yaml; a directory that is missing has none. A broken
// standard is reported and left out, the others stay. Schemas are not compiled
// yet.
func Open(dirs ...string) (*Installed, config.Problems) {
	s := &Installed{byKey: map[string]*Standard{}}
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
	s.linkLists()
	return s, problems
}

var safeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func openStandard(dir string) (*Standard, config.Problems) {
	file := filepath.Join(dir, manifestFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, config.Problems{{File: file, Text: "it cannot be read: " + osText(err)}}
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
	if len(std.Schemas) == 0 && len(std.CodeLists) == 0 {
		fail("schemas and codelists are empty: at least one entry schema is needed, or a code list")
	}
	if v := std.EmptyElements; v != "" && v != Refused {
		fail("emptyElements is %q; %q is all it may be", v, Refused)
	}
	for name, v := range map[string]string{"validFrom": std.ValidFrom, "validUntil": std.ValidUntil} {
		if v != "" && day(v) != v {
			fail("%s is no day, as in 2026-05-01", name)
		}
	}
	for r := range std.Reasons {
		if !slices.Contains(fault.Reasons(), r) {
			fail("reasons: %q is none of the router's reasons", r)
		}
	}
	if std.Licence == "" {
		fail(`licence is missing; write "none stated" where the standard states none`)
	}
	var named []string
	named = append(named, std.Schemas...)
	named = append(named, std.Schematron...)
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
func (s *Installed) Get(name, version string) (*Standard, bool) {
	std, ok := s.byKey[name+"/"+version]
	return std, ok
}

// List returns the installed standards by name and version.
func (s *Installed) List() []*Standard {
	out := make([]*Standard, 0, len(s.byKey))
	for _, std := range s.byKey {
		out = append(out, std)
	}
	slices.SortFunc(out, func(a, b *Standard) int {
		return strings.Compare(a.Name+"/"+a.Version, b.Name+"/"+b.Version)
	})
	return out
}

// Remove deletes an installed standard from dir, as Import put it
// there. What is not installed is an error.
func Remove(dir, name, version string) error {
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

// Compile compiles the standard's schemas, as the first use would. The error
// names the file and what is wrong with it.
func (s *Standard) Compile() error {
	_, err := s.Schema()
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
		schema, err := s.Schema()
		if err != nil {
			return
		}
		for _, space := range schema.Targets() {
			for _, name := range messagesOf(schema, space) {
				s.msgs = append(s.msgs, Message{Name: name, Namespace: space})
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

// messagesOf lists the elements of a namespace that can be a message.
func messagesOf(schema *xsd.Schema, space string) []string {
	var out []string
	for _, e := range schema.Elements() {
		if e.Name.Space == space && !e.Abstract {
			out = append(out, e.Name.Local)
		}
	}
	return out
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

// osText says what the operating system said, without the path.
func osText(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
