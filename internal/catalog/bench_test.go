package catalog_test

import (
	"testing"

	"weiche/internal/catalog"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/standard"
)

// benchmarked is the rich building permit, mapped to XBau.
func benchmarked(b *testing.B) (*transform.Mapping, transform.Input, *catalog.Process, []byte) {
	b.Helper()
	installed := b.TempDir()
	if _, err := standard.Import(b.Context(), shared(b, "standards/xbau/2.6"), installed, nil); err != nil {
		b.Fatal(err)
	}
	std, _ := standard.Open("../../config/standards", installed)
	c, problems := catalog.Load("../../config/services", std)
	p, ok := c.Service("99012008001000")
	if !ok {
		b.Fatal(problems)
	}
	m := p.Mappings[submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"}]
	if m == nil {
		b.Fatal("no mapping to XBau")
	}
	in, violations, err := p.ExampleInput(p.Examples[len(p.Examples)-1])
	if err != nil || len(violations) > 0 {
		b.Fatal(err, violations)
	}
	xml, err := m.Apply(in)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Standard.Validate(xml); err != nil {
		b.Fatal(err)
	}
	return m, in, p, xml
}

func BenchmarkBuildingPermit(b *testing.B) {
	m, in, p, xml := benchmarked(b)
	b.Logf("form %d bytes, message %d bytes", len(in.Envelope.Data), len(xml))
	b.Run("form", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v := p.ValidateForm(in.Form); v != nil {
				b.Fatal(v)
			}
		}
	})
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Apply(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("etree", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tree, err := m.ApplyTree(in)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tree.WriteToBytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(xml)))
		for b.Loop() {
			if err := m.Standard.Validate(xml); err != nil {
				b.Fatal(err)
			}
		}
	})
}
