package adapters

import (
	"fmt"
	"io"
	"strings"
)

// WriteReference writes the reference page of all kinds, docs/reference/adapters.md.
func WriteReference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Adapters

<!-- Generated from the kinds' own descriptions; do not edit. Anew: make docs -->

An adapter hands messages to a destination, that is, to one Fachverfahren. A destination names its adapter and the
adapter's settings:

    destinations:
      - id: boeblingen-bauaufsicht
        adapter: file
        settings: {directory: outbox/boeblingen-bauaufsicht}
        formats: [xbau/2.6/baugenehmigung.antrag.0200]

Settings are checked when the configuration is loaded; every fault names file, line and column. Durations are written
` + "`90s`, `15m`, `168h`; sizes `512KB`, `20MB`" + `. Every adapter delivers at least once, and under one delivery id over all
repeats: receivers drop repeats by it. What goes wrong is the message's fault (dead letter), the destination's (it is
paused and probed; nothing is counted) or nobody's (retried later).
`)
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| setting | type | default | meaning |\n| --- | --- | --- | --- |\n", k.Name, k.Summary)
		for _, f := range k.Fields {
			def := f.DefaultText()
			switch {
			case f.Required:
				def = "required"
			case def != "":
				def = "`" + def + "`"
			}
			doc := f.Doc
			if f.Example != "" {
				doc += " Example: `" + f.Example + "`."
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, def, strings.ReplaceAll(doc, "|", `\|`))
		}
		fmt.Fprintf(&b, "\n%s\n", k.Doc)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
