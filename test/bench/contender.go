package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	once bool // one run says enough
	// prepare makes its topics empty and its input full with records
	// submissions; without records it is set up for single ones, at a rate.
	prepare func(ctx context.Context, l *lab, records int) (*setup, error)
}

// setup is a contender that is ready to run.
type setup struct {
	job
	watch
	// work is what the harness itself does while the contender runs; it returns
	// a function that waits for its end.
	work  func(ctx context.Context, c *child) (wait func() error)
	probe probe
	// ends, where set, is called once the contender has ended.
	ends func()
}

func contenders() []contender {
	return []contender{
		plain("raw-sarama"),
		plain("bus-trivial"),
		plain("bus-trivial-watermill"),
		{name: "watermill-stock", slow: true, prepare: prepareStock},
		pipeline("pipeline-topic", false),
		pipeline("pipeline-topic-noxsd", true),
		{name: "pipeline-http", slow: true, prepare: prepareHTTP},
		{name: "intake", slow: true, prepare: prepareIntake},
		{name: "waiting", slow: true, once: true, prepare: prepareWaiting},
	}
}

// plain contenders copy the submissions as they were posted.
func plain(name string) contender {
	return contender{name: name, prepare: func(ctx context.Context, l *lab, records int) (*setup, error) {
		return l.preparePlain(ctx, name, records, plainOut)
	}}
}

func (l *lab) preparePlain(ctx context.Context, name string, records int, outs ...string) (*setup, error) {
	in := plainIn
	var topics []bus.Topic
	if records == 0 {
		in = plainIn + ".single"
		topics = append(topics, plainTopic(in, l.partitions))
	}
	for _, t := range outs {
		topics = append(topics, plainTopic(t, l.partitions))
	}
	if err := l.recreate(ctx, topics...); err != nil {
		return nil, err
	}
	count := func() (int64, error) { return l.written(outs...) }
	j := l.onBus(name)
	j.In, j.Out, j.Group = in, plainOut, fmt.Sprintf("bench-%s-%d", name, time.Now().UnixNano())
	return &setup{
		job:   j,
		watch: watch{begun: count, done: count, total: int64(records)},
		probe: probe{topics: outs, record: func(n int) (string, *sarama.ProducerMessage) {
			m := plainRecord(in, n, l.partitions, l.form(n, standardShape))
			return string(m.Headers[0].Value), m
		}},
	}, nil
}

func prepareStock(ctx context.Context, l *lab, records int) (*setup, error) {
	s, err := l.preparePlain(ctx, "watermill-stock", records, outTopics()...)
	if err != nil {
		return nil, err
	}
	s.Config = l.land.dir
	s.Data, err = l.newData()
	return s, err
}

// pipeline contenders are the whole router on a topic of accepted submissions,
// with eight topics as destinations.
func pipeline(name string, unchecked bool) contender {
	return contender{name: name, slow: true, prepare: func(ctx context.Context, l *lab, records int) (*setup, error) {
		s, err := l.prepareRouter(ctx, records)
		if err != nil {
			return nil, err
		}
		s.Unchecked = unchecked
		s.done = func() (int64, error) { return l.written(outTopics()...) }
		s.probe.topics = outTopics()
		return s, nil
	}}
}

// prepareHTTP is the pipeline with eight doors of one Fachverfahren, on loopback.
func prepareHTTP(ctx context.Context, l *lab, records int) (*setup, error) {
	s, err := l.prepareRouter(ctx, records)
	if err != nil {
		return nil, err
	}
	if s.Config, err = l.httpConfig("http", l.receiver.url); err != nil {
		return nil, err
	}
	before := l.receiver.taken.Load()
	s.done = func() (int64, error) { return l.receiver.taken.Load() - before, nil }
	s.probe.receiver = l.receiver
	return s, nil
}

// prepareIntake is the router with portals that post to it. What they post goes
// on through the pipeline behind the intake, as it does in a real router.
func prepareIntake(ctx context.Context, l *lab, records int) (*setup, error) {
	s, err := l.prepareRouter(ctx, 0)
	if err != nil {
		return nil, err
	}
	p := newPortals(manyPortals, l.land.region)
	s.watch = watch{
		begun: func() (int64, error) { return p.acks.Load(), p.err() },
		done:  func() (int64, error) { return p.acks.Load(), p.err() },
		total: int64(records),
	}
	s.work = func(ctx context.Context, c *child) func() error {
		return p.start(ctx, c.addresses, manyPortals, records)
	}
	s.probe = probe{call: p.post}
	return s, nil
}

// manyPortals post at once.
const manyPortals = 1000

// prepareWaiting is the router with destinations that do not answer: it pauses
// them, and everything waits. What counts is the memory.
func prepareWaiting(ctx context.Context, l *lab, records int) (*setup, error) {
	s, err := l.prepareRouter(ctx, records)
	if err != nil {
		return nil, err
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	url := "http://" + closed.Addr().String() + "/"
	if err := closed.Close(); err != nil {
		return nil, err
	}
	if s.Config, err = l.httpConfig("closed", url); err != nil {
		return nil, err
	}
	s.done = func() (int64, error) { return l.written(bus.TopicWaiting) }
	s.settled = func(c *child) (int64, error) { return accounted(c, "waiting") }
	return s, nil
}

func outTopics() []string {
	outs := make([]string, 8)
	for i := range outs {
		outs[i] = outTopic(i)
	}
	return outs
}

// prepareRouter empties the router's topics and those of its destinations, fills
// them from the stash, and gives it a data directory of its own.
func (l *lab) prepareRouter(ctx context.Context, records int) (*setup, error) {
	if err := l.forget(dispatch.Group, delivery.Group, delivery.WaitGroup); err != nil {
		return nil, err
	}
	topics := bus.Topics(l.busConfig(), nil)
	for _, t := range outTopics() {
		topics = append(topics, plainTopic(t, l.partitions))
	}
	if err := l.recreate(ctx, topics...); err != nil {
		return nil, err
	}
	for _, t := range []string{bus.TopicKeys, bus.TopicClaims} {
		if err := l.copyTopic(l.stash+t, t, 1<<30); err != nil {
			return nil, err
		}
	}
	s := &setup{watch: watch{
		begun:   func() (int64, error) { return l.written(bus.TopicDeliveries) },
		total:   int64(records),
		settled: func(c *child) (int64, error) { return accounted(c, "delivered") },
		parked:  func() (int64, error) { return l.written(bus.TopicWaiting) },
	}}
	if records > 0 {
		if err := l.copyTopic(l.stash+bus.TopicSubmissions, bus.TopicSubmissions, records); err != nil {
			return nil, err
		}
	} else {
		s.probe.record = l.acceptedAgain
	}
	data, err := l.newData()
	if err != nil {
		return nil, err
	}
	s.job = l.onBus("router")
	s.Config, s.Data = l.land.dir, data
	return s, takeOver(l.accepted, data)
}

// httpConfig is the standard landscape with a URL for each destination.
func (l *lab) httpConfig(name, url string) (string, error) {
	dir := filepath.Join(l.dir, "config-"+name)
	_, err := os.Stat(dir)
	if err == nil {
		return dir, nil
	}
	secret, err := l.secret()
	if err != nil {
		return "", err
	}
	p := plan{rules: l.plan.rules}
	for range l.plan.destinations {
		p.destinations = append(p.destinations, httpDestination(url, secret))
	}
	_, err = newLandscape(dir, l.repo, p)
	return dir, err
}

// secret is a file with what requests are signed with.
func (l *lab) secret() (string, error) {
	file := filepath.Join(l.dir, "receiver.secret")
	return file, os.WriteFile(file, []byte("whsec_"+strings.Repeat("YmVu", 10)+"\n"), 0o600)
}

func httpDestination(url, secret string) destination {
	return destination{"http", fmt.Sprintf("{url: %q, secret_file: %q, allow_networks: [loopback], idle_connections: 64}", url, secret)}
}

// accounted asks a router how many deliveries its account has in a state.
func accounted(c *child, state string) (int64, error) {
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
		if strings.HasPrefix(line, "weiche_status_deliveries{") && strings.Contains(line, `state="`+state+`"`) {
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
func (l *lab) run(ctx context.Context, k contender, records int, limit time.Duration, profile, label string) (s sample, err error) {
	err = l.with(ctx, k, records, func(ctx context.Context, u *setup, c *child) error {
		wait := func() error { return nil }
		work, stop := context.WithCancel(ctx)
		if u.work != nil {
			wait = u.work(work, c)
		}
		s, err = l.measure(ctx, c, u.watch, limit, func() { c.profile(profile, label) })
		c.tell("stop")
		stop()
		return errors.Join(err, wait())
	})
	return s, err
}

// with starts a contender, and ends it after fn.
func (l *lab) with(ctx context.Context, k contender, records int, fn func(context.Context, *setup, *child) error) error {
	u, err := k.prepare(ctx, l, records)
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	if u.ends != nil {
		defer u.ends()
	}
	c, err := startChild(l.dir, u.job, u.watch.beginWithin())
	if err != nil {
		return err
	}
	err = errors.Join(fn(ctx, u, c), c.stop())
	if u.Data != "" {
		err = errors.Join(err, os.RemoveAll(u.Data))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}
