package bus

import (
	"sync"
	"time"

	"github.com/IBM/sarama"
	"weiche/internal/fault"
)

// producer is one generation of a sarama producer with a client of its own:
// a client has one connection to each broker, and on it an idempotent producer
// has one request in flight.
type producer struct {
	client sarama.Client
	async  sarama.AsyncProducer

	mu     sync.RWMutex // read: by each call until its answers are there; write: to close
	closed bool
}

func openProducer(cfg Config, tune func(*sarama.Config)) (*producer, error) {
	client, err := cfg.connect(func() (*sarama.Config, error) {
		conf, err := cfg.producer()
		if err == nil && tune != nil {
			tune(conf)
		}
		return conf, err
	})
	if err != nil {
		return nil, err
	}
	async, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return &producer{client: client, async: async}, nil
}

// collect hands out the answers until the producer is closed to the end.
func (p *producer) collect(open *sync.WaitGroup) {
	var both sync.WaitGroup
	both.Go(func() {
		for m := range p.async.Successes() {
			m.Metadata.(*outgoing).settle(nil)
		}
	})
	both.Go(func() {
		for e := range p.async.Errors() {
			e.Msg.Metadata.(*outgoing).settle(e.Err)
		}
	})
	open.Go(func() {
		both.Wait()
		_ = p.client.Close()
	})
}

// enter keeps the producer open until leave; false when it is being closed.
func (p *producer) enter() bool {
	if !p.mu.TryRLock() {
		return false
	}
	if p.closed {
		p.mu.RUnlock()
		return false
	}
	return true
}

func (p *producer) leave() { p.mu.RUnlock() }

// killGrace is how long other calls may still wait for a producer that did not
// answer one of them: brokers that are well answer within it.
const killGrace = time.Second

// close ends this generation once the calls in it have their answers. With
// kill, those still without one after killGrace fail at once.
func (p *producer) close(kill bool) {
	if kill {
		t := time.AfterFunc(killGrace, func() { _ = p.client.Close() })
		defer t.Stop()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	if kill {
		_ = p.client.Close() // what nobody waits for shall not be written later
	}
	p.async.AsyncClose()
}

// lane holds the producer in use and makes a new one when there is none.
type lane struct {
	cfg  Config
	tune func(*sarama.Config)
	pace pace // of appends through it

	making  chan struct{} // holds a token while nobody makes one
	mu      sync.Mutex
	current *producer
	failed  time.Time
	err     error
	shut    bool
	open    sync.WaitGroup // generations not yet closed to the end
}

func newLane(cfg Config, tune func(*sarama.Config)) *lane {
	l := &lane{cfg: cfg, tune: tune, making: make(chan struct{}, 1)}
	l.making <- struct{}{}
	return l
}

func (l *lane) peek() (*producer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelled, "the bus is closed")
	}
	if l.current != nil {
		return l.current, nil
	}
	// Those who queued behind a failed attempt share its answer.
	if l.err != nil && time.Since(l.failed) < 200*time.Millisecond {
		return nil, l.err
	}
	return nil, nil
}

// get returns the producer in use. Making one goes on when the wait ends, for
// whoever comes next.
func (l *lane) get(w *wait) (*producer, error) {
	for {
		if err := w.until(l.making); err != nil {
			return nil, err
		}
		if p, err := l.peek(); p != nil || err != nil {
			l.making <- struct{}{}
			return p, err
		}
		made := make(chan struct{})
		go func() {
			defer close(made)
			defer func() { l.making <- struct{}{} }()
			l.renew()
		}()
		if err := w.until(made); err != nil {
			return nil, err
		}
		if p, err := l.peek(); p != nil || err != nil {
			return p, err
		}
	}
}

func (l *lane) renew() {
	p, err := openProducer(l.cfg, l.tune)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed, l.err = time.Now(), err
		return
	}
	l.err = nil
	p.collect(&l.open)
	if l.shut {
		p.close(false)
		return
	}
	l.current = p
}

// enter returns a producer that stays open until its leave.
func (l *lane) enter(w *wait) (*producer, error) {
	for {
		p, err := l.peek()
		if p == nil && err == nil {
			p, err = l.get(w)
		}
		if err != nil {
			return nil, err
		}
		if p.enter() {
			return p, nil
		}
		l.forget(p)
	}
}

func (l *lane) forget(p *producer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == p {
		l.current = nil
	}
}

// discard takes p out of use. The calls in it get their answers.
func (l *lane) discard(p *producer, kill bool) {
	l.forget(p)
	l.open.Go(func() { p.close(kill) })
}

// close waits for the calls under way and ends the producer.
func (l *lane) close() {
	l.mu.Lock()
	p := l.current
	l.current, l.shut = nil, true
	l.mu.Unlock()
	if p != nil {
		p.close(false)
	}
	l.open.Wait()
}
