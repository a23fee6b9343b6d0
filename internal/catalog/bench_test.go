package catalog_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/beevik/etree"
	"golang.org/x/sys/unix"

	"weiche/internal/catalog"
	"weiche/internal/submission"
	"weiche/internal/transform"
	"weiche/internal/transform/standard"
	"weiche/internal/xmljudge"
)

// benchmarked are the messages that benchmarks map and check.
var benchmarked = []struct {
	name    string
	service submission.Service
	format  submission.Format
	schema  string // that libxml2 reads
}{
	{"permit", "99012008001000", submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"}, "standards/xbau/2.6/xbau-all.xsd"},
	{"application", "99012002012000", submission.Format{Standard: "xbau-kernmodul", Version: "1.3.0", Message: "universellerAntrag.antrag.1200"}, "standards/xbau/2.6/xbauk-all.xsd"},
}

// job is one message to map and check.
type job struct {
	m       *transform.Mapping
	in      transform.Input
	process *catalog.Process
	xml     []byte
	schema  string
}

func jobs(b *testing.B) map[string]job {
	b.Helper()
	installed := b.TempDir()
	if _, err := standard.Import(b.Context(), shared(b, "standards/xbau/2.6"), installed, nil); err != nil {
		b.Fatal(err)
	}
	std, _ := standard.Open("../../config/standards", installed)
	c, problems := catalog.Load("../../config/services", std, nil)
	out := map[string]job{}
	for _, s := range benchmarked {
		p, ok := c.Service(s.service)
		if !ok || p.Mappings[s.format] == nil {
			b.Fatal(s.name, problems)
		}
		j := job{m: p.Mappings[s.format], process: p, schema: shared(b, s.schema)}
		var violations []catalog.Violation
		var err error
		if j.in, violations, err = p.ExampleInput(p.Examples[len(p.Examples)-1]); err != nil || len(violations) > 0 {
			b.Fatal(err, violations)
		}
		if j.xml, err = j.m.Apply(j.in); err != nil {
			b.Fatal(err)
		}
		if err := j.m.Standard.Validate(j.xml); err != nil {
			b.Fatal(err)
		}
		out[s.name] = j
	}
	return out
}

func (j *job) form(b *testing.B) {
	if v := j.process.ValidateForm(j.in.Form); v != nil {
		b.Fatal(v)
	}
}

func (j *job) apply(b *testing.B) {
	if _, err := j.m.Apply(j.in); err != nil {
		b.Fatal(err)
	}
}

func (j *job) check(b *testing.B) {
	if err := j.m.Standard.Validate(j.xml); err != nil {
		b.Fatal(err)
	}
}

func (j *job) both(b *testing.B) {
	xml, err := j.m.Apply(j.in)
	if err == nil {
		err = j.m.Standard.Validate(xml)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// tree maps through etree.
func (j *job) tree(b *testing.B) {
	tree, err := j.m.ApplyTree(j.in)
	if err == nil {
		_, err = tree.WriteToBytes()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// again builds the message's tree by etree and writes it, with nothing left to
// map: the least that a program can take which uses etree.
func again(b *testing.B, message *etree.Document) {
	doc := etree.NewDocument()
	doc.CreateProcInst("xml", `version="1.0" encoding="UTF-8"`)
	rebuild(doc.CreateElement(message.Root().FullTag()), message.Root())
	if _, err := doc.WriteToBytes(); err != nil {
		b.Fatal(err)
	}
}

func rebuild(to, from *etree.Element) {
	for _, a := range from.Attr {
		to.CreateAttr(a.FullKey(), a.Value)
	}
	for _, c := range from.Child {
		switch c := c.(type) {
		case *etree.Element:
			rebuild(to.CreateElement(c.FullTag()), c)
		case *etree.CharData:
			to.CreateText(c.Data)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	for name, j := range jobs(b) {
		for _, step := range []struct {
			name string
			do   func(*testing.B)
		}{{"form", j.form}, {"map", j.apply}, {"check", j.check}, {"both", j.both}, {"etree", j.tree}} {
			b.Run(name+"/"+step.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					step.do(b)
				}
			})
		}
	}
}

// BenchmarkCores maps and checks on all cores: with -cpu 1,2 it shows how that
// scales. On a machine that does other things too, the CPU time of one message
// says it: what two goroutines wait for, or write to one cache line, shows there.
func BenchmarkCores(b *testing.B) {
	j := jobs(b)["permit"]
	b.ResetTimer()
	start := processTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			j.both(b)
		}
	})
	b.ReportMetric(float64((processTime()-start).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkAgainst takes turns with etree and libxml2, in rounds of 50 messages
// each. All figures are microseconds of CPU time for a message, garbage collection
// included: what else runs on the machine has little part in them. least is mapping
// and checking as a share of building the tree with etree (without any mapping) and
// validating it by libxml2's streaming validator; mapped is the same as a share of
// mapping through etree and validating by libxml2's tree.
func BenchmarkAgainst(b *testing.B) {
	const round = 50
	for name, j := range jobs(b) {
		b.Run(name, func(b *testing.B) {
			judge := xmljudge.StartLibxml2(b, j.schema, shared(b, "standards/catalog/catalog.xml"))
			message := etree.NewDocument()
			if err := message.ReadFromBytes(j.xml); err != nil {
				b.Fatal(err)
			}
			var ours, checking, mapped, built, streamed, parsed time.Duration
			for b.Loop() {
				ours += cpu(round, func() { j.both(b) })
				checking += cpu(round, func() { j.check(b) })
				mapped += cpu(round, func() { j.tree(b) })
				built += cpu(round, func() { again(b, message) })
				streamed += judge.Time(b, j.xml, false, round)
				parsed += judge.Time(b, j.xml, true, round)
			}
			each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*round) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(each(ours), "map+check-µs")
			b.ReportMetric(each(checking), "check-µs")
			b.ReportMetric(each(mapped), "etree-mapped-µs")
			b.ReportMetric(each(built), "etree-built-µs")
			b.ReportMetric(each(streamed), "libxml2-stream-µs")
			b.ReportMetric(each(parsed), "libxml2-tree-µs")
			b.ReportMetric(each(ours)/(each(built)+each(streamed)), "least")
			b.ReportMetric(each(ours)/(each(mapped)+each(parsed)), "mapped")
			b.Logf("form %d bytes, message %d bytes", len(j.in.Envelope.Data), len(j.xml))
		})
	}
}

// cpu is the CPU time of this process for n calls, and the collections they cause.
func cpu(n int, do func()) time.Duration {
	runtime.GC()
	start := processTime()
	for range n {
		do()
	}
	return processTime() - start
}

func processTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // it has no error on Linux
	return time.Duration(t.Nano())
}
