package bus_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/subscriber"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/fault"
	"weiche/internal/kafkatest"
)

const (
	restartCommand = "restart-service" // os.Args[1] of the suite's restart command
	brokerDirEnv   = "BUS_TEST_BROKER_DIR"
)

// TestMain lets the test binary be the embedded broker's process, and the
// command by which watermill's suite restarts a broker.
func TestMain(m *testing.M) {
	switch dir := os.Getenv(brokerDirEnv); {
	case len(os.Args) > 2 && os.Args[1] == restartCommand:
		exit(askForRestart(os.Args[2]))
	case dir != "":
		exit(serveEmbedded(dir))
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveEmbedded runs until its standard input ends: the parent asks so for an
// orderly stop, and a parent that is gone leaves no broker behind.
func serveEmbedded(dir string) error {
	b, err := embedded.Start(dir, embedded.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fmt.Println(b.Addrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin)
	return b.Close()
}

// brokerProcess is an embedded broker in a process of its own. It comes back at
// the same address, from the port its directory remembers.
type brokerProcess struct {
	t    testing.TB
	dir  string
	addr string
	cmd  *exec.Cmd
	in   io.Closer
}

func startBrokerProcess(t testing.TB) *brokerProcess {
	p := &brokerProcess{t: t, dir: t.TempDir()}
	if err := p.launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.end(false) })
	return p
}

func (p *brokerProcess) launch() error {
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), brokerDirEnv+"="+p.dir)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.in = in
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the broker's process does not start: %w", err)
	}
	addr := strings.TrimSpace(line)
	if p.addr != "" && p.addr != addr {
		return fmt.Errorf("the broker came back at %s instead of %s", addr, p.addr)
	}
	p.addr = addr
	return nil
}

func (p *brokerProcess) end(kill bool) error {
	if kill {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = p.in.Close()
		return nil
	}
	_ = p.in.Close()
	return p.cmd.Wait()
}

// restarter is the suite's restart command: a process that asks this one to
// restart the broker, and waits. Restarts come one after the other.
type restarter struct {
	ln net.Listener
	mu sync.Mutex
	n  int
	do func(n int) error
}

func newRestarter(t testing.TB, do func(n int) error) *restarter {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	r := &restarter{ln: ln, do: do}
	go r.serve()
	return r
}

func (r *restarter) command() []string {
	return []string{os.Args[0], restartCommand, r.ln.Addr().String()}
}

func (r *restarter) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *restarter) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		go r.answer(c)
	}
}

func (r *restarter) answer(c net.Conn) {
	defer func() { _ = c.Close() }()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if err := r.do(r.n); err != nil {
		_, _ = fmt.Fprintln(c, err)
		return
	}
	_, _ = io.WriteString(c, "done")
}

func askForRestart(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != "done" {
		err = errors.New(string(answer))
	}
	return err
}

// features declares one deviation: delivery exactly once, where at least once
// is the contract. The suite's reconnect test runs when it has a restart
// command.
func features(restart []string) tests.Features {
	return tests.Features{
		ConsumerGroups:                   true,
		GuaranteedOrder:                  true,
		Persistent:                       true,
		NewSubscriberReceivesOldMessages: true,
		RestartServiceCommand:            restart,
		ForceShort:                       os.Getenv("WEICHE_SOAK") == "",
	}
}

// underRace says whether this binary has the race detector.
func underRace() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// reconnect is the suite's TestReconnect without its own data race: the suite
// (watermill 1.5.1) compares what was published while it is still collecting it.
func reconnect(t *testing.T, construct tests.PubSubConstructor, restart []string) {
	const messages, publishers = 10000, 100
	pub, sub := construct(t)
	topic := "topic-" + uuid.NewString()
	if err := sub.(message.SubscribeInitializer).SubscribeInitialize(topic); err != nil {
		t.Fatal(err)
	}
	received, err := sub.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(chan string)
	var restarts, publishing sync.WaitGroup
	go func() {
		defer close(ids)
		for i := range messages {
			ids <- watermill.NewUUID()
			if i == messages/3 || i == messages/2 {
				restarts.Go(func() {
					if out, err := exec.Command(restart[0], restart[1:]...).CombinedOutput(); err != nil {
						t.Errorf("restart: %v\n%s", err, out)
					}
				})
			}
		}
	}()
	var mu sync.Mutex
	var published message.Messages
	for range publishers {
		publishing.Go(func() {
			for id := range ids {
				m := message.NewMessage(id, []byte("x"))
				for pub.Publish(topic, m) != nil {
					time.Sleep(100 * time.Millisecond) // the broker is away
				}
				mu.Lock()
				published = append(published, m)
				mu.Unlock()
			}
		})
	}
	got, all := subscriber.BulkReadWithDeduplication(received, messages, time.Minute)
	if !all {
		t.Fatalf("%d of %d received", len(got), messages)
	}
	publishing.Wait()
	restarts.Wait()
	tests.AssertAllMessagesReceived(t, published, got)
	if err := errors.Join(pub.Close(), sub.Close()); err != nil {
		t.Error(err)
	}
}

// pair returns the constructor of a publisher and a subscriber of a group. The
// suite knows no topics that have to be made before, and no keys: both are added
// here.
func pair(addrs []string) tests.ConsumerGroupPubSubConstructor {
	return func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		b, err := bus.Open(t.Context(), config(addrs), logger(t), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		s, err := b.Subscriber(bus.Group{Name: group, Grace: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		// A nacked message is tried again after a pause that doubles up to 10 s.
		// This test nacks hundreds of times in turn, which in one key would take
		// most of an hour.
		alone := strings.Contains(t.Name(), "ContinueAfterErrors")
		sub := making{s, b}
		if strings.Contains(t.Name(), "TestReconnect") {
			return keyed{b.Publisher(), b, alone}, late{sub}
		}
		return keyed{b.Publisher(), b, alone}, sub
	}
}

// late hands the last messages of the suite's TestReconnect over a moment after
// they came: that test notes a message as published only after Publish has
// returned, and compares when the last of its 10,000 was received, which may be
// before.
type late struct{ making }

func (l late) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := l.making.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		n := 0
		for m := range in {
			if n++; n >= 9990 {
				time.Sleep(100 * time.Millisecond)
			}
			select {
			case out <- m:
			case <-m.Context().Done():
				m.Nack()
			}
		}
	}()
	return out, nil
}

// grouped gives each test a group of its own, so that tests that run beside each
// other do not rebalance each other. Whoever asks for old messages is a new
// group each time: a group has read what it has read.
func grouped(pair tests.ConsumerGroupPubSubConstructor) tests.PubSubConstructor {
	return func(t *testing.T) (message.Publisher, message.Subscriber) {
		group := t.Name()
		if strings.Contains(group, "NewSubscriberReceivesOldMessages") {
			group += uuid.NewString()
		}
		return pair(t, group)
	}
}

// keyed puts all messages of a topic under one key, which is what the suite
// means by order, or each under its own.
type keyed struct {
	message.Publisher
	b     *bus.Bus
	alone bool
}

func (k keyed) Publish(topic string, msgs ...*message.Message) error {
	if err := ensure(k.b, topic); err != nil {
		return err
	}
	out := make([]*message.Message, len(msgs))
	for i, m := range msgs {
		out[i] = m.Copy()
		out[i].SetContext(m.Context())
		key := topic
		if k.alone {
			key = m.UUID
		}
		out[i].Metadata.Set(bus.KeyMetadata, key)
	}
	err := k.Publisher.Publish(topic, out...)
	if err != nil {
		fmt.Println("not published:", err) // the suite's TestMessageCtx does not look
	}
	return err
}

// making makes a topic before the first subscription.
type making struct {
	message.Subscriber
	b *bus.Bus
}

func (m making) SubscribeInitialize(topic string) error { return ensure(m.b, topic) }

// ensure makes a topic. The suite knows no such step and does not always look at
// what Publish returns, so a broker that is away for a moment is waited for.
func ensure(b *bus.Bus, topic string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := b.EnsureTopics(context.Background(), []bus.Topic{{Name: topic, Partitions: 4, RetentionMS: -1}})
		if err == nil || fault.Of(err).Class != fault.Retryable || time.Now().After(deadline) {
			return err
		}
		fmt.Println("no topic yet:", err)
	}
}

// engines of the suite: the embedded broker in a process of its own, killed and
// closed in turn, and Apache Kafka.
var engines = map[string]func(t *testing.T) ([]string, *restarter){
	"embedded": func(t *testing.T) ([]string, *restarter) {
		p := startBrokerProcess(t)
		return []string{p.addr}, newRestarter(t, func(n int) error {
			if err := p.end(n%2 == 1); err != nil {
				return err
			}
			return p.launch()
		})
	},
	"kafka": func(t *testing.T) ([]string, *restarter) {
		if testing.Short() {
			t.Skip("starts Apache Kafka")
		}
		c := kafkatest.Start(t)
		return c.Addrs(), newRestarter(t, func(int) error {
			c.Nodes[0].Restart()
			return nil
		})
	},
}

// TestUniversalSuite is the suite every watermill Pub/Sub has to pass; with
// WEICHE_SOAK=1 in its long form.
func TestUniversalSuite(t *testing.T) {
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			addrs, r := start(t)
			restart := r.command()
			if underRace() {
				t.Run("reconnect", func(t *testing.T) { reconnect(t, grouped(pair(addrs)), restart) })
				restart = nil
			}
			tests.TestPubSub(t, features(restart), grouped(pair(addrs)), pair(addrs))
			// With -run one of its tests may be asked for alone.
			if n := r.count(); n != 2 && strings.Count(flag.Lookup("test.run").Value.String(), "/") < 2 {
				t.Errorf("the suite restarted the broker %d times, want 2", n)
			}
		})
	}
}

// TestUniversalSuiteUnderStress runs ten of the suite beside each other. They
// share a broker, so none of them may restart it.
func TestUniversalSuiteUnderStress(t *testing.T) {
	if os.Getenv("WEICHE_SOAK") == "" {
		t.Skip("long; runs with WEICHE_SOAK=1")
	}
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			addrs, _ := start(t)
			tests.TestPubSubStressTest(t, features(nil), grouped(pair(addrs)), pair(addrs))
		})
	}
}
