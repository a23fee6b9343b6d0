package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/bus"
	"weiche/internal/kafkatest"
)

// load is records as the pipeline writes them: over 8 topics of 8 partitions, 4
// to 6 KB of sealed payload, a dozen headers, a case's id as key.
type load struct {
	topics  []string
	payload []byte
	keys    [][]byte
	headers map[string]string
	list    []sarama.RecordHeader // the same, as sarama takes them
}

func newLoad() *load {
	l := &load{payload: make([]byte, 1<<20), headers: map[string]string{}}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(l.payload)
	for i := range 8 {
		l.topics = append(l.topics, fmt.Sprintf("load.%d", i))
	}
	for i := range 4096 {
		l.keys = append(l.keys, fmt.Appendf(nil, "%08x-0000-4000-8000-%012x", i*2654435761, i))
	}
	for i := range 12 {
		k, v := fmt.Sprintf("ce_header%d", i), fmt.Sprintf("value-%d-0123456789abcdef", i)
		l.headers[k] = v
		l.list = append(l.list, sarama.RecordHeader{Key: []byte(k), Value: []byte(v)})
	}
	return l
}

func (l *load) topic(i int) string { return l.topics[i%len(l.topics)] }
func (l *load) key(i int) []byte   { return l.keys[i*31%len(l.keys)] }

func (l *load) value(i int) []byte {
	n := 4<<10 + i%2048
	at := i * 7919 % (len(l.payload) - n)
	return l.payload[at : at+n]
}

// bare sends n records through a sarama producer, window of them in flight.
func (l *load) bare(p sarama.AsyncProducer, n, window int) error {
	room, done := make(chan struct{}, window), make(chan error, 1)
	go func() {
		var failed error
		for range n {
			select {
			case <-p.Successes():
			case e := <-p.Errors():
				failed = e
			}
			<-room
		}
		done <- failed
	}()
	for i := range n {
		room <- struct{}{}
		p.Input() <- &sarama.ProducerMessage{Topic: l.topic(i), Key: sarama.ByteEncoder(l.key(i)), Value: sarama.ByteEncoder(l.value(i)), Headers: l.list}
	}
	return <-done
}

// appends sends n records through Append, slice of them in each call.
func (l *load) appends(b *bus.Bus, n, callers, slice int) error {
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c * slice; i < n && errs[c] == nil; i += callers * slice {
				recs := make([]*bus.Record, 0, slice)
				for j := i; j < min(i+slice, n); j++ {
					recs = append(recs, &bus.Record{Topic: l.topic(j), Partition: bus.AnyPartition, Key: l.key(j), Value: l.value(j), Headers: l.headers})
				}
				errs[c] = b.Append(context.Background(), recs...)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// loaded starts a Kafka fit to measure with, and what writes to it.
func loaded(b *testing.B) (*load, *bus.Bus, sarama.AsyncProducer) {
	if testing.Short() {
		b.Skip("starts Apache Kafka")
	}
	// What is older than ten seconds goes, or the disk fills.
	c := kafkatest.Start(b, kafkatest.JVM("-Xmx1g"), kafkatest.Property("log.retention.check.interval.ms", "5000"), kafkatest.Property("log.segment.delete.delay.ms", "1000"))
	ours, l := open(b, config(c.Addrs())), newLoad()
	var topics []bus.Topic
	for _, name := range l.topics {
		topics = append(topics, bus.Topic{Name: name, Partitions: 8, RetentionMS: 10_000, MaxMessageBytes: 17 << 20, SegmentBytes: 32 << 20})
	}
	if err := ours.EnsureTopics(b.Context(), topics); err != nil {
		b.Fatal(err)
	}
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	conf.Net.MaxOpenRequests = 1
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Idempotent = true
	conf.Producer.Return.Successes = true
	p, err := sarama.NewAsyncProducer(c.Addrs(), conf)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return l, ours, p
}

func spent() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func middle[T ~float64 | ~int64](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// What Append adds to a bare sarama producer, with as many records in flight:
// cpu/bare and rate/bare are medians of rounds that alternate. An iteration is a
// round of 10,000 records through each.
func BenchmarkAppendOfBare(b *testing.B) {
	l, ours, bare := loaded(b)
	const n = 10_000
	for _, shape := range []struct{ callers, slice int }{{32, 1}, {256, 1}, {2000, 1}, {1, 100}, {20, 100}} {
		b.Run(fmt.Sprintf("%dx%d", shape.callers, shape.slice), func(b *testing.B) {
			var cpu, rate []float64
			for b.Loop() {
				c0, t0 := spent(), time.Now()
				if err := l.bare(bare, n, shape.callers*shape.slice); err != nil {
					b.Fatal(err)
				}
				c1, t1 := spent(), time.Now()
				if err := l.appends(ours, n, shape.callers, shape.slice); err != nil {
					b.Fatal(err)
				}
				c2, t2 := spent(), time.Now()
				cpu = append(cpu, float64(c2-c1)/float64(c1-c0))
				rate = append(rate, t1.Sub(t0).Seconds()/t2.Sub(t1).Seconds())
			}
			b.ReportMetric(middle(cpu), "cpu/bare")
			b.ReportMetric(middle(rate), "rate/bare")
		})
	}
}

// What a small append waits for while twenty callers write slices of 100.
func BenchmarkAppendBesideBulk(b *testing.B) {
	l, ours, _ := loaded(b)
	const n = 20_000
	var took []time.Duration
	for b.Loop() {
		bulk := make(chan error, 1)
		go func() { bulk <- l.appends(ours, n, 20, 100) }()
		var mu sync.Mutex
		var wg sync.WaitGroup
		tick := time.NewTicker(5 * time.Millisecond)
		for i, on := 0, true; on; i++ {
			select {
			case err := <-bulk:
				if on = false; err != nil {
					b.Fatal(err)
				}
			case <-tick.C:
				wg.Go(func() {
					t0 := time.Now()
					if err := l.appends(ours, 1, 1, 1); err != nil {
						b.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					took = append(took, time.Since(t0))
				})
			}
		}
		tick.Stop()
		wg.Wait()
	}
	slices.Sort(took)
	for name, at := range map[string]int{"p50-ms": len(took) / 2, "p99-ms": len(took) * 99 / 100} {
		b.ReportMetric(float64(took[at].Microseconds())/1000, name)
	}
}
