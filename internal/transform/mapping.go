package transform

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/transform/standard"
)

// Mapping is a proven, compiled mapping to one message of one standard. It is
// immutable and safe for concurrent use.
type Mapping struct {
	File     string
	Standard *standard.Standard
	message  string
	proof    Proof
	prog     *program
	lastSize atomic.Int64 // of the last message, to size the next buffer
}

// Message is the name of the target message: as the standard's manifest names
// it, else its root element's local name.
func (m *Mapping) Message() string { return m.message }

// Proof is what was proven of the mapping when it was loaded, and what was not.
func (m *Mapping) Proof() Proof { return m.proof }

// Settled says that no message of a form its schema accepts can break a rule.
func (m *Mapping) Settled() bool { return m.proof.Settled() }

// Rule says which rule of the mapping a fault of Apply is about, without the
// file's directory.
func (m *Mapping) Rule(f *fault.Error) string {
	return strings.TrimPrefix(f.Detail, strings.TrimSuffix(m.File, filepath.Base(m.File)))
}

// CompileMapping reads a mapping file and proves it against the form's schema
// and the standard's XSD. Every fault is reported with its line, not the first;
// the mapping is nil where there is one. Where shared is nil it can include no
// fragments.
func CompileMapping(file string, std *standard.Standard, form *FormSchema, shared *Shared) (*Mapping, config.Problems) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, config.Problems{{File: file, Text: "the mapping cannot be read: " + plainOSError(err)}}
	}
	return compileMapping(file, raw, std, form, shared)
}

func compileMapping(file string, raw []byte, std *standard.Standard, form *FormSchema, shared *Shared) (*Mapping, config.Problems) {
	root, problems := readMapping(file, raw, std, form, shared)
	if root == nil {
		return nil, problems
	}
	model, err := std.Schema()
	if err != nil {
		problems = append(problems, config.Problem{File: file, Text: "the mapping cannot be checked, the standard's schema cannot be read: " + err.Error()})
		return nil, problems
	}
	proof, ps := checkTemplate(file, root, !problems.Failed(), model, std)
	problems = append(problems, ps...)
	if problems.Failed() {
		sortProblems(problems)
		return nil, problems
	}
	local := root.tag
	if _, l, ok := strings.Cut(root.tag, ":"); ok {
		local = l
	}
	message := local
	for _, known := range std.Messages {
		if known.Element == local && (known.Namespace == "" || known.Namespace == root.name.space) {
			message = known.Name
		}
	}
	return &Mapping{File: file, Standard: std, message: message, proof: proof, prog: compileProgram(root)}, problems
}
