package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/bus"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
)

// contender is one row of the table.
type contender struct {
	name string
	slow bool // takes -slow-records
	// prepare makes its topics empty, its input full with records submissions,
	// and says how it is watched.
	prepare func(ctx context.Context, l *lab, records int) (job, watch, error)
}

// plain contenders copy or map the submissions as they were posted.
func plain(name string, slow bool) contender {
	return contender{name: name, slow: slow, prepare: func(ctx context.Context, l *lab, records int) (job, watch, error) {
		in := plainIn
		if records == 0 {
			in = plainIn + ".latency"
			if err := l.recreate(ctx, plainTopic(in, partitions)); err != nil {
				return job{}, watch{}, err
			}
		}
		if err := l.recreate(ctx, plainTopic(plainOut, partitions)); err != nil {
			return job{}, watch{}, err
		}
		count := func() (int64, error) { return l.written(plainOut) }
		j := job{Contender: name, Brokers: l.brokers, In: in, Out: plainOut, Group: fmt.Sprintf("bench-%s-%d", name, time.Now().UnixNano())}
		return j, watch{begun: count, done: count, total: int64(records)}, nil
	}}
}

// pipeline contenders are the whole router on a topic of accepted submissions.
func pipeline(name string, change func(*job)) contender {
	return contender{name: name, slow: true, prepare: func(ctx context.Context, l *lab, records int) (job, watch, error) {
		outs := make([]string, 8)
		topics := bus.Topics(busConfig(l.brokers), nil)
		for i := range outs {
			outs[i] = outTopic(i)
			topics = append(topics, plainTopic(outs[i], partitions))
		}
		j, err := l.prepareRouter(ctx, topics, records)
		if change != nil {
			change(&j)
		}
		w := watch{
			begun: func() (int64, error) { return l.written(bus.TopicDeliveries) },
			done:  func() (int64, error) { return l.written(outs...) },
			total: int64(records),
		}
		return j, w, err
	}}
}

// prepareRouter empties the router's topics and fills them from the stash, with
// a data directory of its own.
func (l *lab) prepareRouter(ctx context.Context, topics []bus.Topic, records int) (job, error) {
	if err := l.forget(dispatch.Group, delivery.Group, delivery.WaitGroup); err != nil {
		return job{}, err
	}
	if err := l.recreate(ctx, topics...); err != nil {
		return job{}, err
	}
	for _, t := range []string{bus.TopicKeys, bus.TopicClaims} {
		if err := l.copyTopic(stash+t, t, 1<<30); err != nil {
			return job{}, err
		}
	}
	if records > 0 {
		if err := l.copyTopic(stash+bus.TopicSubmissions, bus.TopicSubmissions, records); err != nil {
			return job{}, err
		}
	}
	data, err := l.sub("data-")
	if err != nil {
		return job{}, err
	}
	if err := l.link(data); err != nil {
		return job{}, err
	}
	err = copyKeys(filepath.Join(l.dir, "filled", "keys"), filepath.Join(data, "keys"))
	return job{Contender: "router", Brokers: l.brokers, Config: filepath.Join(l.dir, "config"), Data: data}, err
}

// copyKeys copies key files, which nobody else may read.
func copyKeys(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// stock fills what the contenders read: the plain submissions, and those that an
// intake has accepted.
//
// It prints how long each took.
func (l *lab) stock(ctx context.Context, plainRecords, accepted int) error {
	land, err := newLandscape(filepath.Join(l.dir, "config"), l.repo, standardPlan())
	if err != nil {
		return err
	}
	if err := installStandards(ctx, l.repo, l.dir); err != nil {
		return err
	}
	began := time.Now()
	if err := l.fillPlain(ctx, plainIn, plainRecords, func(n int) []byte { return formOf(n, land.region(n)) }); err != nil {
		return err
	}
	fmt.Printf("%d submissions written in %s\n", plainRecords, time.Since(began).Round(time.Second))
	began = time.Now()
	err = l.fillAccepted(ctx, accepted)
	fmt.Printf("%d submissions accepted in %s\n", accepted, time.Since(began).Round(time.Second))
	return err
}

func (l *lab) fillPlain(ctx context.Context, topic string, records int, form func(n int) []byte) error {
	if err := l.recreate(ctx, plainTopic(topic, partitions)); err != nil {
		return err
	}
	s, err := l.newSender()
	if err != nil {
		return err
	}
	for n := range records {
		s.send(plainRecord(topic, n, form(n)))
	}
	return s.close()
}

func plainRecord(topic string, n int, value []byte) *sarama.ProducerMessage {
	id := fmt.Sprintf("%08d", n)
	return &sarama.ProducerMessage{Topic: topic, Partition: int32(n % partitions), Key: sarama.StringEncoder(id), Value: sarama.ByteEncoder(value),
		Headers: []sarama.RecordHeader{{Key: []byte("ce_id"), Value: []byte(id)}, {Key: []byte(idHeader), Value: []byte(id)}}}
}

// fillAccepted lets an intake accept submissions and puts what it wrote aside.
func (l *lab) fillAccepted(ctx context.Context, records int) error {
	topics := bus.Topics(busConfig(l.brokers), nil)
	for _, t := range topics {
		t.Name = stash + t.Name
		topics = append(topics, t)
	}
	if err := l.recreate(ctx, topics...); err != nil {
		return err
	}
	data := filepath.Join(l.dir, "filled")
	if err := l.link(data); err != nil {
		return err
	}
	c, err := startChild(l.dir, job{Contender: "fill", Brokers: l.brokers, Config: filepath.Join(l.dir, "config"), Data: data,
		Posts: []post{{Count: records}}}, time.Hour)
	if err != nil {
		return err
	}
	if err := c.stop(); err != nil {
		return err
	}
	for _, t := range []string{bus.TopicKeys, bus.TopicClaims, bus.TopicSubmissions} {
		if err := l.copyTopic(t, stash+t, 1<<30); err != nil {
			return err
		}
	}
	n, err := l.written(stash + bus.TopicSubmissions)
	if err == nil && n != int64(records) {
		err = fmt.Errorf("%d submissions were accepted, %d are in the log", records, n)
	}
	return err
}

// delivered asks a router how many deliveries it accounts as delivered.
func delivered(c *child) (int64, error) {
	res, err := http.Get(c.Ops + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "weiche_status_deliveries{") && strings.Contains(line, `state="delivered"`) {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v); err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return int64(sum), nil
}

// run measures a contender once.
func (l *lab) run(ctx context.Context, k contender, records int, limit time.Duration, profile, label string) (sample, error) {
	j, w, err := k.prepare(ctx, l, records)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", k.name, err)
	}
	c, err := startChild(l.dir, j, beginWithin)
	if err != nil {
		return sample{}, err
	}
	if c.Ops != "" && w.settled == nil {
		w.settled = func() (bool, error) { n, err := delivered(c); return n >= w.total, err }
	}
	s, err := l.measure(ctx, c, w, limit, func() { c.profile(profile, label) })
	err = errors.Join(err, c.stop())
	if j.Data != "" {
		err = errors.Join(err, os.RemoveAll(j.Data))
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", k.name, err)
	}
	return s, nil
}
