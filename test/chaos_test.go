package test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// Two routers on an Apache Kafka of three nodes, with a proxy in front of each,
// under load, while brokers, connections and routers fail, each in its way. What
// was acknowledged is found, in the order of its case; what came twice is
// explained one by one; the account adds up on both routers; nothing stays in
// flight and no lag is left.
//
// The short form has each fault once, the long one ten minutes of all of them at
// random; WEICHE_SEED repeats a run.
func TestFaultsOfAClusterUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes one to two minutes")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WEICHE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("WEICHE_SEED=%d", seed)
	c := newChaos(t, rand.New(rand.NewPCG(seed, seed)))
	stop := c.load(8, 25)
	c.settle(2 * time.Second)
	if soak() {
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); {
			c.strike(c.faults[c.rnd.IntN(len(c.faults))])
			c.settle(time.Duration(1+c.rnd.IntN(5)) * time.Second)
		}
	} else {
		for _, f := range c.faults {
			c.strike(f)
			c.settle(2 * time.Second)
		}
	}
	stop()
	c.ends(2 * time.Minute)
	c.explain()
	if t.Failed() {
		return
	}
	c.quorumLost()
}

// chaos is the cluster, its proxies, the three routers and the load.
type chaos struct {
	t       *testing.T
	rnd     *rand.Rand
	cluster *kafkatest.Cluster
	proxies []*toxiproxy.Proxy
	fv      *fachverfahren
	faults  []failure

	mu       sync.RWMutex // held for writing while a router is exchanged
	routers  [3]*router
	accepted map[string]bool // submissions
	refused  atomic.Int64    // posts that were not answered 202
	strikes  []string        // what happened, in order; a knock's life is its index
	struck   []time.Time     // when
}

// longStop is the fault that separates an append from its answer by seconds.
const longStop = "a router was stopped for longer than its session"

type failure struct {
	name   string
	strike func()
}

// Where Kafka's own patience would make a test long.
var impatient = []kafkatest.Option{
	kafkatest.Property("min.insync.replicas", "2"),
	kafkatest.Property("broker.session.timeout.ms", "3000"),
	kafkatest.Property("broker.heartbeat.interval.ms", "500"),
	kafkatest.Property("replica.lag.time.max.ms", "4000"),
	kafkatest.Property("unclean.leader.election.enable", "false"),
}

func newChaos(t *testing.T, rnd *rand.Rand) *chaos {
	t.Helper()
	c := &chaos{t: t, rnd: rnd, fv: startFachverfahren(t), accepted: map[string]bool{}, strikes: []string{"at peace"}, struck: []time.Time{time.Now()}}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	through := func(addr string) string {
		p := toxiproxy.NewProxy(server, addr, "127.0.0.1:0", addr)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		c.proxies = append(c.proxies, p)
		return p.Listen
	}
	c.cluster = kafkatest.Start(t, append([]kafkatest.Option{kafkatest.Nodes(3), kafkatest.Proxied("proxied", through)}, impatient...)...)
	var brokers []string
	for _, p := range c.proxies {
		brokers = append(brokers, p.Listen)
	}
	env := append([]string{"WEICHE_KAFKA_BROKERS=" + strings.Join(brokers, ","),
		"WEICHE_SEAL_DIR=" + filepath.Join(t.TempDir(), "keys"), "WEICHE_BLOBS_DIR=" + filepath.Join(t.TempDir(), "blobs")}, quickRetries...)
	for i, host := range []string{"127.0.0.1", "localhost", "LOCALHOST"} {
		r := newRouter(t, env...)
		r.useFachverfahren(c.fv, false)
		addr := strings.TrimPrefix(c.fv.URL, "http://127.0.0.1")
		// The routers are told apart by how they call the Fachverfahren.
		r.editConfig("lands", func(_, text string) string {
			text = strings.ReplaceAll(text, "127.0.0.1"+addr, host+addr)
			return fileDestination.ReplaceAllString(text, "adapter: http\n    settings: {url: \"http://"+host+addr+"/$1\", secret_file: secrets/receiver.key, allow_networks: [loopback]}")
		})
		c.routers[i] = r
	}
	c.routers[0].Start()
	for _, r := range c.routers[1:] {
		if err := os.MkdirAll(r.Data, 0o700); err != nil {
			t.Fatal(err)
		}
		copyFile(t, filepath.Join(c.routers[0].Data, "example-keys.json"), filepath.Join(r.Data, "example-keys.json"))
		r.Start()
	}
	c.faults = []failure{
		{"the leader of a partition was killed", func() { n := c.leader("weiche.submissions"); n.Kill(); c.settle(5 * time.Second); n.Restart() }},
		{"connections broke in the middle of a batch", func() {
			c.poison(4*time.Second, "upstream", "limit_data", fmt.Sprintf(`{"bytes": %d}`, 2000+c.rnd.IntN(60000)))
		}},
		{"a broker was stopped for longer than its session", func() {
			n := c.cluster.Nodes[c.rnd.IntN(3)]
			n.Suspend()
			c.settle(6 * time.Second)
			n.Resume()
		}},
		{"connections were reset", func() { c.poison(3*time.Second, "downstream", "reset_peer", `{"timeout": 50}`) }},
		{"the active controller was killed", func() { n := c.controller(); n.Kill(); c.settle(5 * time.Second); n.Restart() }},
		{"answers of the brokers were lost", func() { c.poison(4*time.Second, "downstream", "timeout", `{"timeout": 0}`) }},
		{longStop, func() {
			r := c.routers[c.rnd.IntN(len(c.routers))]
			_ = r.cmd.Process.Signal(syscall.SIGSTOP)
			c.settle(14 * time.Second)
			_ = r.cmd.Process.Signal(syscall.SIGCONT)
		}},
		{"a router was killed", func() {
			c.exchange(c.routers[c.rnd.IntN(len(c.routers))], (*router).Kill)
		}},
		{"the routers were rolled", func() {
			for _, r := range c.routers {
				c.exchange(r, (*router).Stop)
			}
		}},
	}
	return c
}

var fileDestination = regexp.MustCompile(`adapter: file\n    settings: \{directory: outbox/([a-z-]+)\}`)

// exchange ends a router and starts it again. Nobody posts to it meanwhile.
func (c *chaos) exchange(r *router, end func(*router)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end(r)
	r.Start()
}

// strike lets something fail, and counts what comes from now on to it.
func (c *chaos) strike(f failure) {
	began := time.Now()
	c.mu.Lock()
	c.strikes, c.struck = append(c.strikes, f.name), append(c.struck, began)
	n := len(c.strikes) - 1
	c.mu.Unlock()
	c.fv.Life(n)
	f.strike()
	c.t.Logf("%2d  %s (%s)", n, f.name, time.Since(began).Round(100*time.Millisecond))
}

func (c *chaos) settle(d time.Duration) { time.Sleep(d) }

// poison puts a toxic on the way to one broker or to all of them, for a while.
func (c *chaos) poison(d time.Duration, stream, kind, attributes string) {
	which := slices.Clone(c.proxies)
	if one := c.rnd.IntN(4); one < 3 {
		which = which[one : one+1]
	}
	for _, p := range which {
		toxic := fmt.Sprintf(`{"name": "fault", "type": %q, "stream": %q, "attributes": %s}`, kind, stream, attributes)
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			c.t.Fatal(err)
		}
	}
	c.settle(d)
	for _, p := range which {
		p.Toxics.ResetToxics(context.Background())
	}
}

// leader returns the node that leads a partition of a topic.
func (c *chaos) leader(topic string) *kafkatest.Node {
	c.t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	client, err := sarama.NewClient(c.cluster.Addrs(), conf)
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	b, err := client.Leader(topic, int32(c.rnd.IntN(8)))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.cluster.Nodes[b.ID()-1]
}

// controller returns the node that leads the metadata quorum.
func (c *chaos) controller() *kafkatest.Node {
	c.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.cluster.Addrs()...))
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}
	req.Topics = append(req.Topics, topic)
	res, err := req.RequestWith(c.t.Context(), client)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 || res.Topics[0].Partitions[0].LeaderID < 1 {
		c.t.Fatalf("the quorum is described as %+v", res)
	}
	return c.cluster.Nodes[res.Topics[0].Partitions[0].LeaderID-1]
}

// place is where a case of the load goes.
type place struct{ portal, region, door string }

var places = []place{
	{"service-bw", "081150045045", "/sindelfingen/gewerbe"},
	{"service-bw", "081150003003", "/boeblingen-gewerbe"},
	{"amt24", "146120000000", "/dresden-gewerbe"},
}

// load posts from so many hands, each a case of five after the other, at so many
// a second in all, and repeats what is not acknowledged under its key, at either
// router. The returned function lets every hand finish what it has begun.
func (c *chaos) load(hands, perSecond int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ticks := time.NewTicker(time.Second / time.Duration(perSecond))
	var wg sync.WaitGroup
	for hand := range hands {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.oneCase(ctx, ticks.C, fmt.Sprintf("load-%d-%d", hand, n), places[(hand+n)%len(places)])
			}
		})
	}
	return func() { cancel(); wg.Wait(); ticks.Stop() }
}

func (c *chaos) oneCase(ctx context.Context, tick <-chan time.Time, name string, p place) {
	caseID, before := uuid.NewString(), ""
	for i := range 5 {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		key := fmt.Sprintf("%s-%d", name, i)
		id := submission.NewID(p.portal, key).String()
		c.fv.Expect(id, before, nil)
		body := example(c.t, "gewerbeanmeldung", "minimal", map[string]any{"region": p.region, "caseId": caseID, "test": nil})
		if !c.post(p.portal, key, id, body) {
			return
		}
		before = id
	}
}

// post posts until the submission is acknowledged.
func (c *chaos) post(portal, key, id string, body []byte) bool {
	for try, deadline := 0, time.Now().Add(3*time.Minute); ; try++ {
		a, err := c.either(try).Post(portal, key, body)
		if err == nil && a.Status == http.StatusAccepted {
			c.mu.Lock()
			c.accepted[id] = true
			c.mu.Unlock()
			return true
		}
		c.refused.Add(1)
		if err == nil && a.Status < 500 && a.Status != http.StatusTooManyRequests {
			c.t.Errorf("%s was refused: %d %s", key, a.Status, a.Body)
			return false
		}
		if time.Now().After(deadline) {
			c.t.Errorf("%s was not accepted within three minutes: %d %s %v", key, a.Status, a.Body, err)
			return false
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// either returns a view of one of the routers that run now.
func (c *chaos) either(n int) *router {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.routers[n%len(c.routers)]
	return &router{t: r.t, Data: r.Data, Config: r.Config, Env: r.Env, Public: r.Public, Ops: r.Ops, Kafka: r.Kafka, Keys: r.Keys}
}

// ends waits until both routers say that everything is delivered and that
// nothing is left to do.
func (c *chaos) ends(within time.Duration) {
	t := c.t
	t.Helper()
	n := len(c.accepted)
	began := time.Now()
	for _, r := range c.routers {
		settled(t, r, n, within)
		before := r.account()
		r.MustCLI("status", "rebuild")
		if after := r.account(); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("before the rebuild %+v, after it %+v", before, after)
		}
		eventually(t, 30*time.Second, func() (bool, string) {
			left := map[string]float64{}
			for _, metric := range []string{"weiche_bus_lag_records", "weiche_bus_in_flight", "weiche_delivery_waiting_submissions"} {
				if v := r.sum(metric); v != 0 {
					left[metric] = v
				}
			}
			return len(left) == 0, fmt.Sprint(left)
		})
	}
	t.Logf("%d accepted, %d posts failed; all delivered, no lag %s after the last", n, c.refused.Load(), time.Since(began).Round(100*time.Millisecond))
}

// sum adds up a metric over its labels; -1 where it cannot be read.
func (r *router) sum(metric string) (total float64) {
	res, err := http.Get(r.Ops + "/metrics")
	if err != nil {
		return -1
	}
	defer res.Body.Close()
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		line := s.Text()
		if !strings.HasPrefix(line, metric+" ") && !strings.HasPrefix(line, metric+"{") {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return -1
		}
		total += v
	}
	return total
}

// explain holds what arrived against what was acknowledged, and every delivery
// that was taken more than once against the account. A repeat is explained when
//
//   - no outcome was told before it: the router died, or lost the partition,
//     between the receiver's answer and the record of it;
//   - or whoever made it told the outcome too, so that he did not know of the
//     first telling: the broker's answer to that was lost;
//   - or the other router told it: whoever repeats is an owner who does not know
//     yet that the partition has gone over.
//
// A router that repeats what it knows to be told is at fault.
func (c *chaos) explain() {
	t := c.t
	t.Helper()
	found := map[string]bool{}
	for _, k := range c.fv.Knocks() {
		if !c.accepted[k.submission] {
			t.Errorf("%s arrived and was never acknowledged", k.submission)
		}
		if k.status < 300 {
			found[k.submission] = true
		}
	}
	for id := range c.accepted {
		if !found[id] {
			t.Errorf("%s was acknowledged and is not found", id)
		}
	}
	twice := c.fv.takenTwice(t)
	told := map[string][]time.Time{}
	b := connect(t, c.cluster.Addrs())
	readAll(t, b, "weiche.events", func(rec *bus.Record) {
		if ev, err := submission.DecodeEvent(rec.Value); err == nil && ev.Type == submission.EventDelivered {
			told[ev.DeliveryID.String()] = append(told[ev.DeliveryID.String()], ev.At)
		}
	})
	why := map[string]map[string]int{}
	for id, list := range twice {
		slices.SortFunc(told[id], time.Time.Compare)
		for _, k := range list[1:] {
			if len(told[id]) == 0 {
				t.Errorf("%s was taken and is told nowhere", id)
				break
			}
			first := told[id][0]
			reason := ""
			switch {
			case first.After(k.at):
				reason = "not told before"
			case slices.ContainsFunc(told[id][1:], k.at.Before):
				reason = "told, and not known"
			case k.host != teller(list, first):
				reason = "a late former owner"
			case c.strikes[k.life] == longStop && first.Sub(c.struck[k.life]).Abs() < 2*time.Second:
				// It stood still between telling and hearing that it was told: when it
				// went on, the time for the answer was over.
				reason = "told, and frozen before the answer came"
			default:
				t.Errorf("%s was taken again by %s at %s (%s), told at %v; all that came: %+v", id, k.host, k.at, c.strikes[k.life], told[id], list)
				continue
			}
			at := c.strikes[k.life]
			if why[at] == nil {
				why[at] = map[string]int{}
			}
			why[at][reason]++
		}
	}
	t.Logf("%d of %d were taken more than once", len(twice), len(c.accepted))
	for _, at := range slices.Sorted(maps.Keys(why)) {
		t.Logf("  after %q: %v", at, why[at])
	}
}

// teller is the router that told an outcome at a time: the one that had it from
// the Fachverfahren last.
func teller(list []knock, at time.Time) (host string) {
	for _, k := range list {
		if !k.at.After(at) {
			host = k.host
		}
	}
	return host
}

// quorumLost stops two of the three brokers: nothing is acknowledged, and the
// answers are 503 that say when to come again; what lies in a portal's topic
// stays there. When the brokers are back it all goes on by itself.
func (c *chaos) quorumLost() {
	t := c.t
	t.Helper()
	c.strike(failure{"two of three brokers stopped", func() {
		// The routers sleep while the records are written, so that none of them is
		// taken before the brokers go.
		for _, r := range c.routers {
			_ = r.cmd.Process.Signal(syscall.SIGSTOP)
		}
		var topic []string
		b := connect(t, c.cluster.Addrs())
		for i := range 20 {
			key := fmt.Sprint("quorum-topic-", i)
			body := example(t, "gewerbeanmeldung", "minimal", map[string]any{"region": places[0].region, "test": nil, "caseId": nil})
			if err := b.Append(t.Context(), intakeRecord("service-bw", key, body)); err != nil {
				t.Fatal(err)
			}
			topic = append(topic, submission.NewID("service-bw", key).String())
		}
		c.cluster.Nodes[0].Kill()
		c.cluster.Nodes[1].Kill()
		for _, r := range c.routers {
			_ = r.cmd.Process.Signal(syscall.SIGCONT)
		}
		knocks := len(c.fv.Knocks())
		var wg sync.WaitGroup
		ids := make([]string, 12)
		bodies := make([][]byte, len(ids))
		for i := range ids {
			p := places[i%len(places)]
			key := fmt.Sprint("quorum-", i)
			ids[i] = submission.NewID(p.portal, key).String()
			bodies[i] = example(t, "gewerbeanmeldung", "minimal", map[string]any{"region": p.region, "test": nil, "caseId": nil})
			wg.Go(func() {
				a, err := c.either(i).Post(p.portal, key, bodies[i])
				switch {
				case err != nil:
					t.Errorf("a post was not answered: %v", err)
				case a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Content-Type") != "application/problem+json":
					t.Errorf("with one of three brokers a post is answered %d, Retry-After %q, %s %s", a.Status, a.Header.Get("Retry-After"), a.Header.Get("Content-Type"), a.Body)
				}
			})
		}
		wg.Wait()
		if n := len(c.fv.Knocks()); n != knocks {
			t.Logf("%d deliveries that were decided before went on", n-knocks)
		}
		c.cluster.Nodes[0].Restart()
		c.cluster.Nodes[1].Restart()
		for i, id := range ids {
			p := places[i%len(places)]
			c.post(p.portal, fmt.Sprint("quorum-", i), id, bodies[i])
		}
		for _, id := range topic {
			c.accepted[id] = true
		}
	}})
	c.ends(2 * time.Minute)
	c.explain()
}
