package xsd

import (
	"os"
	"testing"
)

// BenchmarkParts says what of a validation reading alone takes, reading and
// structure, and all: what could be saved of a message whose structure, or whose
// values too, a mapping's proof has shown. The texts of the second are not
// collected and not checked.
func BenchmarkParts(b *testing.B) {
	s := compileOfficial(b, "xbau/2.6")
	doc, err := os.ReadFile("../../../config/services/baugenehmigung/expected/rich.xbau_2.6_baugenehmigung.antrag.0200.xml")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		var scan scanner
		for b.Loop() {
			scan.begin(doc, s.names, Options{}.withDefaults())
			scan.start()
			for t := scan.next(); t != tokenEnd; t = scan.next() {
				if t == tokenFault {
					b.Fatal(scan.fault)
				}
			}
		}
	})
	b.Run("structure", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		v := newValidator(s)
		for b.Loop() {
			v.scan.begin(doc, s.names, Options{}.withDefaults())
			v.frames, v.limit = v.frames[:0], 10
			v.scan.start()
			for t := v.scan.next(); t != tokenEnd; t = v.scan.next() {
				switch t {
				case tokenOpen:
					v.open()
				case tokenClose:
					if f := &v.frames[len(v.frames)-1]; f.typ.Kind.HasText() {
						v.frames = v.frames[:len(v.frames)-1]
					} else {
						v.close()
					}
				}
			}
			if len(v.problems) > 0 {
				b.Fatal(v.problems)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			if errs := s.Validate(doc, Options{}); errs != nil {
				b.Fatal(errs)
			}
		}
	})
}
