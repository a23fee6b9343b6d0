package bus_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"weiche/internal/bus"
	"weiche/internal/fault"
)

// moody is a broker whose answers to produce requests a test decides: what mood
// returns for a partition is answered, and nothing of that request is written;
// nil for all of them lets the request through.
func moody(t *testing.T, mood func(partition int32) *kerr.Error) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := r.(*kmsg.ProduceRequest)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		refused := false
		for _, t := range req.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition = p.Partition
				if e := mood(p.Partition); e != nil {
					rp.ErrorCode, refused = e.Code, true
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		if !refused {
			return nil, nil, false
		}
		for i := range resp.Topics { // all or nothing
			for j := range resp.Topics[i].Partitions {
				if rp := &resp.Topics[i].Partitions[j]; rp.ErrorCode == 0 {
					rp.ErrorCode = kerr.NotLeaderForPartition.Code
				}
			}
		}
		return resp, nil, true
	})
	return c
}

// Errors nobody can interpret, again and again, under eight callers: everything
// acknowledged is there once, and each key's records are in order.
func TestProducerIsMadeAnewAfterErrorsNobodyCanInterpret(t *testing.T) {
	moods := []*kerr.Error{kerr.UnknownServerError, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID}
	var asked atomic.Int64
	c := moody(t, func(int32) *kerr.Error {
		if n := asked.Add(1); n%9 == 0 {
			return moods[n/9%int64(len(moods))]
		}
		return nil
	})
	b := open(t, config(c.ListenAddrs()))
	tp := topic(t, b, 4)
	const callers, each = 8, 60
	var failures atomic.Int64
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := range each {
				for began := time.Now(); ; failures.Add(1) {
					err := b.Append(t.Context(), record(tp, fmt.Sprint(w), fmt.Sprint(i)))
					if err == nil {
						break
					}
					if f := fault.Of(err); f.Class != fault.Retryable || time.Since(began) > patience {
						t.Errorf("caller %d: %v", w, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if failures.Load() == 0 {
		t.Fatal("no error came through, so nothing was tried")
	}
	got := map[string][]string{}
	for _, r := range everything(t, b, tp) {
		got[string(r.Key)] = append(got[string(r.Key)], string(r.Value))
	}
	var want []string
	for i := range each {
		want = append(want, fmt.Sprint(i))
	}
	for w := range callers {
		if v := got[fmt.Sprint(w)]; !slices.Equal(v, want) {
			t.Errorf("key %d: %v", w, v)
		}
	}
}

func everything(t *testing.T, b *bus.Bus, topic string) []*bus.Record {
	t.Helper()
	_, newest, err := b.Offsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var out []*bus.Record
	for p, end := range newest {
		if err := b.ReadTo(t.Context(), topic, int32(p), 0, end, func(r *bus.Record) error {
			out = append(out, r)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// One call's error ends the producer, but not what others have in it: a record
// that sarama is repeating at that moment still arrives.
func TestOneErrorFailsNoOtherCall(t *testing.T) {
	var repeats atomic.Int64
	repeating := make(chan struct{})
	c := moody(t, func(p int32) *kerr.Error {
		switch n := repeats.Load(); {
		case p == 0:
			return kerr.UnknownServerError
		case n == 4: // some 700 ms later
			return nil
		default:
			if repeats.Add(1) == 1 {
				close(repeating)
			}
			return kerr.NotLeaderForPartition
		}
	})
	b := open(t, config(c.ListenAddrs()))
	tp := topic(t, b, 2)
	other := make(chan error, 1)
	go func() { other <- b.Append(t.Context(), &bus.Record{Topic: tp, Partition: 1, Value: []byte("other")}) }()
	<-repeating
	wantReason(t, b.Append(t.Context(), &bus.Record{Topic: tp, Partition: 0, Value: []byte("refused")}), fault.ReasonUnknown)
	if err := <-other; err != nil {
		t.Fatalf("the other call failed: %v", err)
	}
	if n := len(everything(t, b, tp)); n != 1 {
		t.Fatalf("%d records, want the other's", n)
	}
}

// Producers that were made anew leave nothing behind.
func TestRenewedProducersAreClosedToTheEnd(t *testing.T) {
	var refuse atomic.Bool
	c := moody(t, func(int32) *kerr.Error {
		if refuse.Load() {
			return kerr.UnknownServerError
		}
		return nil
	})
	b := open(t, config(c.ListenAddrs()))
	tp := topic(t, b, 1)
	appendAll(t, b, record(tp, "k", "first"))
	before := runtime.NumGoroutine()
	refuse.Store(true)
	for range 12 {
		wantReason(t, b.Append(t.Context(), record(tp, "k", "refused")), fault.ReasonUnknown)
	}
	refuse.Store(false)
	appendAll(t, b, record(tp, "k", "last"))
	for began := time.Now(); runtime.NumGoroutine() > before+12; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// What a broker may answer, and what Append makes of it.
func TestAppendReasons(t *testing.T) {
	var mood atomic.Pointer[kerr.Error]
	c := moody(t, func(int32) *kerr.Error { return mood.Load() })
	cfg := config(c.ListenAddrs())
	cfg.AppendTimeout = 2 * time.Second
	b := open(t, cfg)
	tp := topic(t, b, 1)
	for _, test := range []struct {
		answer *kerr.Error
		class  fault.Class
		reason fault.Reason
	}{
		{kerr.MessageTooLarge, fault.Permanent, fault.ReasonTooLarge},
		{kerr.UnknownTopicOrPartition, fault.Destination, fault.ReasonUnknownTopic},
		{kerr.TopicAuthorizationFailed, fault.Destination, fault.ReasonNotAuthorised},
		{kerr.ClusterAuthorizationFailed, fault.Destination, fault.ReasonNotAuthorised},
		{kerr.NotEnoughReplicas, fault.Retryable, fault.ReasonQuorumLost},
		{kerr.NotEnoughReplicasAfterAppend, fault.Retryable, fault.ReasonQuorumLost},
		{kerr.NotLeaderForPartition, fault.Retryable, fault.ReasonBrokerUnavailable},
		{kerr.UnknownServerError, fault.Retryable, fault.ReasonUnknown},
		{kerr.OutOfOrderSequenceNumber, fault.Retryable, fault.ReasonUnknown},
	} {
		t.Run(test.answer.Message, func(t *testing.T) {
			mood.Store(test.answer)
			err := b.Append(t.Context(), record(tp, "k", "v"))
			wantReason(t, err, test.reason)
			if c := fault.Of(err).Class; c != test.class {
				t.Fatalf("class %s, want %s", c, test.class)
			}
			mood.Store(nil)
			appendAll(t, b, record(tp, "k", "v")) // and it is over with it
		})
	}
}

// An administrator adds partitions while we append. A case stays where it was in
// a topic of ours; in a topic of somebody else's the key follows the cluster.
func TestPartitionsAddedWhileAppending(t *testing.T) {
	var moved atomic.Int64 // requests still to be told that the leader moved: sarama then reads its metadata anew
	c := moody(t, func(int32) *kerr.Error {
		if moved.Add(-1) >= 0 {
			return kerr.NotLeaderForPartition
		}
		return nil
	})
	b := open(t, config(c.ListenAddrs()))
	ours := topic(t, b, 3)
	admin, err := sarama.NewClusterAdmin(c.ListenAddrs(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	const theirs = "theirs"
	if err := admin.CreateTopic(theirs, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	write := func(topic string, round, partitions int) {
		t.Helper()
		for i := range 40 {
			r := record(topic, fmt.Sprint("case", i), fmt.Sprint(round))
			appendAll(t, b, r)
			if want := b.PartitionOf(r.Key, partitions); r.Partition != want {
				t.Fatalf("%s, round %d: key %s went to partition %d, want %d", topic, round, r.Key, r.Partition, want)
			}
		}
	}
	write(ours, 1, 3)
	write(theirs, 1, 3)
	for _, tp := range []string{ours, theirs} {
		if err := admin.CreatePartitions(tp, 8, nil, false); err != nil {
			t.Fatal(err)
		}
		for p := range int32(3) { // every lane learns of them
			moved.Store(1)
			appendAll(t, b, &bus.Record{Topic: tp, Partition: p, Value: []byte("refresh")})
		}
	}
	write(ours, 2, 3)
	write(theirs, 2, 8)
	err = b.Append(context.Background(), &bus.Record{Topic: ours, Partition: 5, Value: []byte("beyond")})
	wantReason(t, err, fault.ReasonUnknownTopic)
}

// Claims and events are compressed, what is sealed is not: it would only cost.
func TestWhatIsCompressed(t *testing.T) {
	codecs := map[string]int16{}
	var mu sync.Mutex
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		for _, t := range r.(*kmsg.ProduceRequest).Topics {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(t.Partitions[0].Records); err == nil {
				mu.Lock()
				codecs[t.Topic] = batch.Attributes & 7
				mu.Unlock()
			}
		}
		return nil, nil, false
	})
	b := open(t, config(c.ListenAddrs()))
	if err := b.EnsureTopics(t.Context(), bus.Topics(config(c.ListenAddrs()), nil)); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("the same again ", 100)
	for _, tp := range []string{bus.TopicClaims, bus.TopicEvents, bus.TopicSubmissions, bus.TopicDeliveries} {
		r := record(tp, "k", text)
		appendAll(t, b, r)
		got, err := b.Fetch(t.Context(), tp, r.Partition, r.Offset)
		if err != nil || string(got.Value) != text {
			t.Fatalf("%s: %v", tp, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	const snappy = 2
	for tp, want := range map[string]int16{bus.TopicClaims: snappy, bus.TopicEvents: snappy, bus.TopicSubmissions: 0, bus.TopicDeliveries: 0} {
		if codecs[tp] != want {
			t.Errorf("%s: codec %d, want %d", tp, codecs[tp], want)
		}
	}
}
