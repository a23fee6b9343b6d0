package cli

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weiche/internal/config"
	"weiche/internal/transform/standard"
)

// The references are written from what the program says of itself.
// WEICHE_UPDATE_DOCS=1 writes them anew (`make docs`).
func TestReference(t *testing.T) {
	for page, write := range map[string]func(io.Writer){
		"commands.md":      commandsPage,
		"configuration.md": configurationPage,
		"checks.md":        checksPage,
	} {
		t.Run(page, func(t *testing.T) {
			clean(t)
			var want bytes.Buffer
			write(&want)
			file := "../../docs/reference/" + page
			if os.Getenv("WEICHE_UPDATE_DOCS") == "1" {
				if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everybody
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("docs/reference/%s is not what the program says of itself; run: make docs", page)
			}
		})
	}
}

func checksPage(w io.Writer) {
	fmt.Fprint(w, `# What is checked of a message

Before a message leaves, in `+"`router standards check`, in `router mapping test`"+` and in the reference receiver. The reason stands in
metric, event, dead letter and report alike. XBau's own word stands beside it for messages of XBau and its Kernmodul;
another standard may name its own in standard.yaml (`+"`reasons: {code-unknown: …}`"+`).

| reason | XBau | what has to be so | a warning only |
| --- | --- | --- | --- |
`)
	for _, r := range standard.Rules() {
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", r.Reason, r.XBau, r.Text, r.Warning)
	}
	fmt.Fprint(w, `
Which elements are codes follows from the schema: types with `+"`listURI` and `listVersionID`"+`, fixed there or given by the message.
Values that the schema itself lists (code type 1) are the schema's to check. The column of the list is the one the schema
names (`+"`genutzteCodeSpalte`"+`), else the list's recommended key. A list is looked for among those of the standard's own package,
those imported by themselves, and those of the other standards. A version that is not there is refused only where the
list came with the standard or by itself; of a list that only another standard brought, other versions may exist.

No finding repeats a value of the message: it names path, line and rule. A character that does not fit is named by its
code point and place.
`)
}

// Every command says what it does, and takes no argument it does not name.
func TestCommandsAreDescribed(t *testing.T) {
	clean(t)
	walk((&env{}).root(), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: one phrase without a full stop is needed, not %q", c.CommandPath(), c.Short)
		}
		if c.Args == nil {
			t.Errorf("%s takes any arguments", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: what is it for?", c.CommandPath(), f.Name)
			}
		})
	})
}

// clean takes away what would change the defaults.
func clean(t *testing.T) {
	t.Setenv("WEICHE_CONFIG", "")
}

func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if c.HasParent() {
		visit(c)
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			walk(sub, visit)
		}
	}
}

func commandsPage(w io.Writer) {
	root := (&env{}).root()
	fmt.Fprint(w, `# Commands

<!-- Generated from the commands themselves; do not edit. Anew: make docs -->

`+"`bin/router`"+` is the server and the operator's command line in one. Every command takes `+"`--help`"+`.

Exit codes: 0 done; 1 something is wrong and was said, or the answer is no (a fault in the configuration, a submission
that was refused, a decision that is none); 2 the command was not understood.

Commands on live state (`+"`trace`, `assign`, `dlq`, `destinations`, `status`"+`) find the running router by
`+"`<data>/addresses.json`"+` and call its [operators' API](operators-api.md), as the operator whose token stands in
`+"`WEICHE_OPERATOR_TOKEN`, else in `<data>/operator.token`"+`. Times are shown in the local time zone.

For every command:

`)
	flags(w, root.PersistentFlags())
	fmt.Fprint(w, "\n| command | |\n| --- | --- |\n")
	walk(root, func(c *cobra.Command) {
		if c.HasParent() && !c.HasSubCommands() || c.Name() == "destinations" || c.Name() == "status" {
			fmt.Fprintf(w, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
		}
	})
	walk(root, func(c *cobra.Command) {
		if c.HasSubCommands() && c.Name() != "destinations" && c.Name() != "status" {
			return
		}
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		fmt.Fprintf(w, "\n## %s\n\n    %s\n\n%s\n", c.CommandPath(), strings.TrimSuffix(c.UseLine(), " [flags]"), plainText(text))
		if c.Example != "" {
			fmt.Fprintf(w, "\nFor example:\n\n%s\n", indent(c.Example))
		}
		if c.HasAvailableLocalFlags() {
			fmt.Fprintln(w)
			flags(w, c.LocalFlags())
		}
	})
}

func indent(s string) string {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	for i := range lines {
		lines[i] = "    " + strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// plainText keeps Markdown from taking <data> for a tag.
func plainText(s string) string { return strings.NewReplacer("|", `\|`, "<", `\<`).Replace(s) }

func flags(w io.Writer, set *pflag.FlagSet) {
	fmt.Fprint(w, "| flag | value | default | |\n| --- | --- | --- | --- |\n")
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		def := f.DefValue
		if def == "" || def == "false" || def == "[]" || def == "0s" {
			def = ""
		} else {
			def = "`" + short(def) + "`"
		}
		kind = map[string]string{"string": "text", "int": "number", "stringArray": "text, more than once", "duration": "duration"}[kind]
		fmt.Fprintf(w, "| `--%s` | %s | %s | %s |\n", f.Name, kind, def, plainText(usage))
	})
}

func configurationPage(w io.Writer) {
	fmt.Fprint(w, `# Settings by environment

<!-- Generated from the settings themselves; do not edit. Anew: make docs -->

What belongs to one machine stands in `+"`config/router.yaml`"+`, each setting with a comment. Every single value and every
list of values can be set by an environment variable instead: its path in capitals behind `+"`WEICHE_`"+`. A flag comes
before the variable, the variable before the file, the file before the default. An empty variable sets nothing; one that
is almost a setting's is refused, so that a slip does not go unnoticed. What is a map or a list of groups (master keys,
operators) stands in the file only.

Durations are written `+"`90s`, `15m`, `168h`; sizes `512KB`, `20MB`, `2GB`"+` (powers of 1024); lists with commas between the
values. Secrets are files; their paths are relative to the configuration directory.

| variable | setting in router.yaml | value | default | |
| --- | --- | --- | --- | --- |
`)
	defaults, comments := reflect.ValueOf(config.Defaults()), comments()
	for _, o := range config.Overrides() {
		kind, value, comment := setting(defaults, o, comments)
		fmt.Fprintf(w, "| `%s` | `%s` | %s | %s | %s |\n", o.Env, o.Field, kind, value, comment)
	}
	fmt.Fprint(w, `
Defaults of `+"`kafka.partitions`, `kafka.replication_factor` and `kafka.min_insync_replicas`"+` are 8, 3 and 2, with the embedded
broker 4, 1 and 1.

Variables that are no setting of the router:

| variable | |
| --- | --- |
| `+"`WEICHE_CONFIG`"+` | the configuration directory, as `+"`--config`"+` |
| `+"`WEICHE_OPERATOR_TOKEN`"+` | the operator's token that commands use instead of `+"`<data>/operator.token`"+` |
`)
}

// setting follows a path of YAML names through the settings and says of what
// kind the value is, what it is by default, and what its comment says.
func setting(v reflect.Value, o config.Override, comments map[string]string) (kind, value, comment string) {
	for name := range strings.SplitSeq(o.Field, ".") {
		if v.Kind() == reflect.Pointer {
			v = reflect.Zero(v.Type().Elem())
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Tag.Get("yaml") == name {
				comment, v = comments[v.Type().Name()+"."+f.Name], v.Field(i)
				break
			}
		}
	}
	switch {
	case o.List:
		kind = "list"
	case v.Type() == reflect.TypeFor[config.Duration]():
		kind = "duration"
	case v.Type() == reflect.TypeFor[config.Bytes]():
		kind = "size"
	case v.Kind() == reflect.Bool:
		kind = "true or false"
	case v.CanInt(), v.CanFloat():
		kind = "number"
	default:
		kind = "text"
	}
	if !v.IsZero() {
		value = fmt.Sprint(v.Interface())
		if kind == "duration" {
			value = short(value)
		}
		value = "`" + value + "`"
	}
	return kind, value, comment
}

// short writes a duration as the configuration does.
func short(duration string) string {
	return regexp.MustCompile(`([mh])0[ms].*$`).ReplaceAllString(duration, "$1")
}

// comments are what package config says of its fields, by Type.Field.
func comments() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "../config/config.go", nil, parser.ParseComments)
	if err != nil {
		panic(err)
	}
	quoted := regexp.MustCompile(`(?i)[;.] default "[^"]+"([.;])`) // the table has a column for it
	plain := regexp.MustCompile(`(?i);? ?default "?[0-9A-Za-z.]+"?$`)
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			return false
		}
		inYAML := map[string]string{}
		for _, f := range s.Fields.List {
			if f.Tag != nil && len(f.Names) == 1 && strings.Contains(f.Tag.Value, "_") {
				inYAML[f.Names[0].Name] = reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml")
			}
		}
		for _, f := range s.Fields.List {
			for _, name := range f.Names {
				text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
				text = strings.TrimPrefix(strings.TrimPrefix(text, name.Name+" is "), name.Name+" ")
				text = plain.ReplaceAllString(quoted.ReplaceAllString(text, "$1"), "")
				for name, yaml := range inYAML {
					text = regexp.MustCompile(`\b`+name+`\b`).ReplaceAllString(text, yaml)
				}
				out[t.Name.Name+"."+name.Name] = text
			}
		}
		return false
	})
	return out
}
