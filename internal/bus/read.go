package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/failpoint"
	"weiche/internal/fault"
)

// ErrNotThere is wrapped by Fetch's error when the record was deleted, was
// never written, or is no record but a marker.
var ErrNotThere = errors.New("no record at this offset")

// ErrBeyondEnd is wrapped by Tail's and ReadTo's error when they shall begin
// behind the end of the log: the log is not the one the offset came from.
var ErrBeyondEnd = errors.New("offset beyond the end of the log")

// ErrHasMembers is wrapped by Commit's error: a group's offset can be set from
// outside only while it has no member.
var ErrHasMembers = errors.New("the group has members")

const fetchBytes = 1 << 20

// batch is what one fetch brings.
type batch struct {
	records []*Record
	next    int64 // where to go on
	end     int64 // high watermark
}

// fetch reads once, directly from the partition's leader, and waits at most
// wait for something to come. It needs no subscription, so it costs one round
// trip. sarama.ErrOffsetOutOfRange comes back as it is.
func (b *Bus) fetch(topic string, partition int32, offset int64, limit int32, wait time.Duration) (batch, error) {
	leader, err := b.meta.Leader(topic, partition)
	if err != nil {
		return batch{}, err
	}
	req := &sarama.FetchRequest{Version: 11, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: 1,
		MaxBytes: int32(max(fetchBytes, b.cfg.MaxRecordBytes+batchOverhead)), SessionEpoch: -1}
	req.AddBlock(topic, partition, offset, limit, -1)
	resp, err := leader.Fetch(req)
	if err != nil {
		_ = leader.Close()
		return batch{}, err
	}
	block := resp.GetBlock(topic, partition)
	if block == nil {
		return batch{}, sarama.ErrIncompleteResponse
	}
	if !errors.Is(block.Err, sarama.ErrNoError) {
		return batch{}, block.Err
	}
	out := batch{next: offset, end: block.HighWaterMarkOffset}
	for _, set := range block.RecordsSet {
		rb := set.RecordBatch
		if rb == nil || rb.PartialTrailingRecord {
			continue
		}
		// A compacted batch keeps its last offset even where the record is gone.
		out.next = max(out.next, rb.LastOffset()+1)
		if rb.Control {
			continue
		}
		for _, r := range rb.Records {
			at := rb.FirstOffset + r.OffsetDelta
			if at < offset {
				continue
			}
			stamp := rb.FirstTimestamp.Add(r.TimestampDelta)
			if rb.LogAppendTime {
				stamp = rb.MaxTimestamp
			}
			out.records = append(out.records, record(topic, partition, at, r.Key, r.Value, r.Headers, stamp))
		}
	}
	return out, nil
}

func record(topic string, partition int32, offset int64, key, value []byte, headers []*sarama.RecordHeader, stamp time.Time) *Record {
	r := &Record{Topic: topic, Partition: partition, Offset: offset, Key: key, Value: value, Time: stamp, Headers: make(map[string]string, len(headers))}
	for _, h := range headers {
		r.Headers[string(h.Key)] = string(h.Value)
	}
	return r
}

// ReadTo calls fn for every record with from ≤ offset < to, in order, and
// returns when it has come to `to`, also where offsets in between were deleted or
// compacted away. It waits for records that are not written yet, for at most
// Config.AppendTimeout without progress. fn's error ends it and is returned.
func (b *Bus) ReadTo(ctx context.Context, topic string, partition int32, from, to int64, fn func(*Record) error) error {
	return b.readTo(ctx, topic, partition, from, to, fetchBytes, func(_ int64, got batch) error {
		for _, r := range got.records {
			if r.Offset >= to {
				break
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// readTo calls fn for what each fetch brings, and with the offset it began at.
func (b *Bus) readTo(ctx context.Context, topic string, partition int32, from, to int64, limit int32, fn func(from int64, got batch) error) error {
	what := fmt.Sprintf("read %s/%d", topic, partition)
	next, pause := max(from, 0), time.Duration(0)
	progress := time.Now()
	for next < to {
		if err := ctx.Err(); err != nil {
			return fault.Of(err)
		}
		got, err := try(ctx, func() (batch, error) { return b.fetch(topic, partition, next, limit, 100*time.Millisecond) })
		if errors.Is(err, sarama.ErrOffsetOutOfRange) {
			oldest, err := b.oldest(ctx, topic, partition)
			if err != nil {
				return err
			}
			if oldest <= next {
				return fault.Wrap(ErrBeyondEnd, fault.Permanent, fault.ReasonUnknown, "%s: offset %d is beyond the end", what, next)
			}
			next = oldest
			continue
		}
		if err == nil && got.next > next {
			if err := fn(next, got); err != nil {
				return err
			}
			next, progress, pause = got.next, time.Now(), 0
			continue
		}
		// A fault, or nothing there yet.
		if reason := reasonOf(classify(err, what)); err != nil && ctx.Err() == nil && (reason == fault.ReasonUnknownTopic || reason == fault.ReasonNotAuthorised) {
			return classify(err, what)
		}
		if time.Since(progress) > b.cfg.AppendTimeout {
			if err != nil && ctx.Err() == nil {
				return classify(err, what)
			}
			return fault.New(fault.Retryable, fault.ReasonTimeout, "%s: nothing came from offset %d on within %s", what, next, b.cfg.AppendTimeout)
		}
		if err != nil && ctx.Err() == nil {
			pause = min(double(pause), time.Second)
			if !sleep(ctx, pause) {
				continue
			}
			_, _ = try(ctx, func() (struct{}, error) { return struct{}{}, b.meta.RefreshMetadata(topic) })
		}
	}
	return nil
}

// Fetch reads one record. The error wraps ErrNotThere when there is none; one
// that was deleted less than two seconds ago may still be found. The record may
// be somebody else's too and must not be changed.
func (b *Bus) Fetch(ctx context.Context, topic string, partition int32, offset int64) (*Record, error) {
	at := spot{topic, partition}
	t, err := b.shelf.ask(ctx, at, offset)
	if err != nil {
		return nil, err
	}
	rec := t.rec
	if !t.known {
		limit := int32(1) // one batch: a broker sends at least that whatever the limit
		if t.near {
			limit = fetchBytes
		}
		err = b.readTo(ctx, topic, partition, offset, offset+1, limit, func(from int64, got batch) error {
			b.shelf.put(at, from, got)
			if len(got.records) > 0 && got.records[0].Offset == offset {
				rec = got.records[0]
			}
			return nil
		})
		t.end(err)
	}
	if errors.Is(err, ErrBeyondEnd) || err == nil && rec == nil {
		return nil, fault.Wrap(ErrNotThere, fault.Permanent, fault.ReasonUnknown, "%s/%d has no record at offset %d", topic, partition, offset)
	}
	return rec, err
}

func (b *Bus) oldest(ctx context.Context, topic string, partition int32) (int64, error) {
	return request(ctx, b, "offsets of "+topic, func() (int64, error) {
		return b.meta.GetOffset(topic, partition, sarama.OffsetOldest)
	})
}

// Offsets returns by partition the oldest offset and the next one to be written.
func (b *Bus) Offsets(ctx context.Context, topic string) (oldest, newest []int64, err error) {
	what := "offsets of " + topic
	parts, err := request(ctx, b, what, func() ([]int32, error) { return b.meta.Partitions(topic) })
	if err != nil {
		return nil, nil, err
	}
	for _, at := range []int64{sarama.OffsetOldest, sarama.OffsetNewest} {
		got, err := request(ctx, b, what, func() ([]int64, error) {
			ask := map[int32]int64{}
			for _, p := range parts {
				ask[p] = at
			}
			res, err := b.admin.ListOffsets(map[string]map[int32]int64{topic: ask}, nil)
			if err != nil {
				return nil, err
			}
			out := make([]int64, len(parts))
			for i, p := range parts {
				r := res[topic][p]
				if r == nil {
					return nil, sarama.ErrIncompleteResponse
				}
				if r.Err != nil && !errors.Is(r.Err, sarama.ErrNoError) {
					return nil, r.Err
				}
				out[i] = r.Offset
			}
			return out, nil
		})
		if err != nil {
			return nil, nil, err
		}
		if at == sarama.OffsetOldest {
			oldest = got
		} else {
			newest = got
		}
	}
	return oldest, newest, nil
}

// OffsetsAt returns by partition the first offset whose record was written at t
// or later, by the writer's clock, and the next one to be written where none was.
func (b *Bus) OffsetsAt(ctx context.Context, topic string, t time.Time) ([]int64, error) {
	_, newest, err := b.Offsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	return request(ctx, b, "offsets of "+topic, func() ([]int64, error) {
		ask := map[int32]int64{}
		for p := range newest {
			ask[int32(p)] = t.UnixMilli() //nolint:gosec // a partition number
		}
		res, err := b.admin.ListOffsets(map[string]map[int32]int64{topic: ask}, nil)
		if err != nil {
			return nil, err
		}
		out := make([]int64, len(newest))
		for p := range out {
			switch r := res[topic][int32(p)]; { //nolint:gosec // a partition number
			case r == nil:
				return nil, sarama.ErrIncompleteResponse
			case r.Err != nil && !errors.Is(r.Err, sarama.ErrNoError):
				return nil, r.Err
			case r.Offset < 0:
				out[p] = newest[p]
			default:
				out[p] = r.Offset
			}
		}
		return out, nil
	})
}

// Committed returns by partition the group's committed offset, -1 where none is.
func (b *Bus) Committed(ctx context.Context, group, topic string) ([]int64, error) {
	return request(ctx, b, "offsets of group "+group, func() ([]int64, error) {
		parts, err := b.meta.Partitions(topic)
		if err != nil {
			return nil, err
		}
		out := make([]int64, len(parts))
		for i := range out {
			out[i] = -1
		}
		res, err := b.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: parts})
		if err == nil {
			err = res.Err
		}
		// Brokers differ in how they speak of a group nobody has made yet.
		switch {
		case errors.Is(err, sarama.ErrGroupIDNotFound):
			return out, nil
		case !errors.Is(err, sarama.ErrNoError):
			return nil, err
		}
		for i, p := range parts {
			blk := res.GetBlock(topic, p)
			if blk == nil {
				continue
			}
			if !errors.Is(blk.Err, sarama.ErrNoError) && !errors.Is(blk.Err, sarama.ErrGroupIDNotFound) {
				return nil, blk.Err
			}
			out[i] = blk.Offset
		}
		return out, nil
	})
}

// Members returns how many members a group has.
func (b *Bus) Members(ctx context.Context, group string) (int, error) {
	return request(ctx, b, "members of group "+group, func() (int, error) {
		res, err := b.admin.DescribeConsumerGroups([]string{group})
		if err != nil {
			return 0, err
		}
		if len(res) != 1 {
			return 0, sarama.ErrIncompleteResponse
		}
		if e := res[0].Err; !errors.Is(e, sarama.ErrNoError) && !errors.Is(e, sarama.ErrGroupIDNotFound) {
			return 0, e
		}
		return len(res[0].Members), nil
	})
}

// Commit sets a group's offset. The group must have no member at the time: a
// member would overwrite it, and the broker refuses it; the error wraps
// ErrHasMembers then.
func (b *Bus) Commit(ctx context.Context, group, topic string, partition int32, offset int64) error {
	_, err := request(ctx, b, "commit of group "+group, func() (struct{}, error) {
		res, err := b.admin.AlterConsumerGroupOffsets(group,
			map[string]map[int32]sarama.OffsetAndMetadata{topic: {partition: {Offset: offset, LeaderEpoch: -1}}}, nil)
		if err != nil {
			return struct{}{}, err
		}
		switch e := res.Errors[topic][partition]; e {
		case sarama.ErrNoError:
		case sarama.ErrUnknownMemberId, sarama.ErrRebalanceInProgress, sarama.ErrIllegalGeneration:
			return struct{}{}, fault.Wrap(ErrHasMembers, fault.Retryable, fault.ReasonBusy, "the offset of group %s cannot be set while it has members", group)
		default:
			return struct{}{}, e
		}
		failpoint.Hit("bus.committed")
		return struct{}{}, nil
	})
	return err
}

// DeleteBelow deletes a partition's records below offset, but never the
// partition's last record: a log that is empty keeps its end only in memory in
// the embedded broker, and would begin at 0 again after a kill. An offset below
// the oldest does nothing.
func (b *Bus) DeleteBelow(ctx context.Context, topic string, partition int32, offset int64) error {
	_, err := request(ctx, b, fmt.Sprintf("delete from %s/%d", topic, partition), func() (struct{}, error) {
		newest, err := b.meta.GetOffset(topic, partition, sarama.OffsetNewest)
		if err != nil {
			return struct{}{}, err
		}
		oldest, err := b.meta.GetOffset(topic, partition, sarama.OffsetOldest)
		if err != nil {
			return struct{}{}, err
		}
		to := min(offset, newest-1)
		if to <= oldest {
			return struct{}{}, nil
		}
		err = b.admin.DeleteRecords(topic, map[int32]int64{partition: to})
		failpoint.Hit("bus.deleted")
		return struct{}{}, err
	})
	return err
}

// reader is a consumer that the tails of a topic share: all their partitions
// travel in one long poll. One partition can be in it only once. Topics are read
// apart: the next poll waits for the slowest of those who take from the last
// one, and nobody's claims shall wait for the projection of events.
type reader struct {
	topic    string
	client   sarama.Client
	consumer sarama.Consumer
	used     map[int32]bool
}

func (r *reader) close() {
	_ = r.consumer.Close()
	_ = r.client.Close()
}

func (b *Bus) tailer(topic string, partition int32, from int64) (sarama.PartitionConsumer, func(), error) {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	var use *reader
	for _, r := range b.readers {
		if r.topic == topic && !r.used[partition] {
			use = r
			break
		}
	}
	if use == nil {
		client, err := b.cfg.connect(b.cfg.tail)
		if err != nil {
			return nil, nil, err
		}
		consumer, err := sarama.NewConsumerFromClient(client)
		if err != nil {
			_ = client.Close()
			return nil, nil, err
		}
		use = &reader{topic: topic, client: client, consumer: consumer, used: map[int32]bool{}}
		b.readers = append(b.readers, use)
	}
	pc, err := use.consumer.ConsumePartition(topic, partition, from)
	if err != nil {
		return nil, nil, err
	}
	use.used[partition] = true
	return pc, func() {
		pc.AsyncClose()
		go func() {
			for range pc.Messages() { //nolint:revive // until sarama has let go of it
			}
			b.readMu.Lock()
			defer b.readMu.Unlock()
			delete(use.used, partition)
		}()
	}, nil
}

// Tail calls fn for every record from an offset on, one after the other, as they
// are written, until ctx ends or fn fails. It returns nil when ctx (or the bus)
// ended, fn's error when fn failed. An offset below the oldest is moved to the
// oldest; one beyond the end is ErrBeyondEnd. A broker that is gone is waited
// for with growing pauses. Use it for records that are read by everyone; it
// commits nothing.
func (b *Bus) Tail(ctx context.Context, topic string, partition int32, from int64, fn func(*Record) error) error {
	if !b.enter() {
		return nil
	}
	defer b.users.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	next := max(from, 0)
	var pause time.Duration
	var beyond time.Time // since when the offset seems to be beyond the end
	for ctx.Err() == nil {
		began := next
		err := b.tailOnce(ctx, topic, partition, &next, fn)
		var stop *stopped
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &stop):
			return stop.err
		case errors.Is(err, ErrBeyondEnd): // for a moment also after a failover
			if beyond.IsZero() {
				beyond = time.Now()
			} else if time.Since(beyond) > catchUp {
				return classify(err, "tail "+topic)
			}
			sleep(ctx, 200*time.Millisecond)
			continue
		case reasonOf(classify(err, "")) == fault.ReasonUnknownTopic, reasonOf(classify(err, "")) == fault.ReasonNotAuthorised:
			return classify(err, "tail "+topic)
		}
		beyond = time.Time{}
		if pause = double(pause); next > began {
			pause = 0
		} else if err != nil {
			b.log.Warn("tail interrupted", "topic", topic, "partition", partition, "reason", reasonOf(classify(err, "")), "pause", pause.String())
		}
		sleep(ctx, pause)
	}
	return nil
}

// stopped marks an error of the caller's own function.
type stopped struct{ err error }

func (s *stopped) Error() string { return "stopped by the reader" }

func (b *Bus) tailOnce(ctx context.Context, topic string, partition int32, next *int64, fn func(*Record) error) error {
	// Not cancellable, but bounded by the client's timeouts; leaving early would
	// leave a consumer behind.
	pc, release, err := b.tailer(topic, partition, *next)
	if errors.Is(err, sarama.ErrOffsetOutOfRange) {
		var oldest int64
		if oldest, err = b.meta.GetOffset(topic, partition, sarama.OffsetOldest); err == nil {
			if oldest <= *next {
				return fault.Wrap(ErrBeyondEnd, fault.Permanent, fault.ReasonUnknown, "tail %s/%d: offset %d is beyond the end", topic, partition, *next)
			}
			*next = oldest
			pc, release, err = b.tailer(topic, partition, oldest)
		}
	}
	if err != nil {
		return err
	}
	defer release()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-pc.Messages():
			if !ok {
				return nil // out of range meanwhile, or the consumer was closed
			}
			if ctx.Err() != nil {
				return nil
			}
			if err := fn(record(m.Topic, m.Partition, m.Offset, m.Key, m.Value, m.Headers, m.Timestamp)); err != nil {
				return &stopped{err}
			}
			*next = m.Offset + 1
		}
	}
}
