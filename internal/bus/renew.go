package bus

import (
	"sync"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/filestamp"
)

// connect makes a client. Where sarama fixes a secret at that moment (PLAIN's
// password, the authorities of TLS), or a connection shall not outlive it (the
// client certificate), the client is made anew behind the caller's back when its
// file has changed.
func (c Config) connect(build func() (*sarama.Config, error)) (sarama.Client, error) {
	dial := func() (sarama.Client, error) {
		conf, err := build()
		if err != nil {
			return nil, err
		}
		return sarama.NewClient(c.Brokers, conf)
	}
	var files []string
	if c.SASL != nil && c.SASL.Mechanism == sarama.SASLTypePlaintext {
		files = append(files, c.SASL.PasswordFile)
	}
	if c.TLS != nil {
		for _, f := range []string{c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile} {
			if f != "" {
				files = append(files, f)
			}
		}
	}
	seen := filestamp.Of(files...)
	client, err := dial()
	if err != nil || len(files) == 0 {
		return client, err
	}
	return &renewed{dial: dial, files: files, seen: seen, looked: time.Now(), current: client, linger: c.AppendTimeout}, nil
}

// renewed is a client that looks at its files at most once a second, when it is
// used. It goes on with the client it has until a new one is connected; the old
// one lingers for what is under way. It is safe for concurrent use.
type renewed struct {
	dial   func() (sarama.Client, error)
	files  []string
	linger time.Duration

	mu      sync.Mutex
	seen    filestamp.Stamps
	looked  time.Time
	pause   time.Duration // until the files are looked at again
	busy    bool
	closed  bool
	current sarama.Client
}

func (r *renewed) now() sarama.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.busy && !r.closed && time.Since(r.looked) >= max(time.Second, r.pause) {
		r.looked = time.Now()
		if at := filestamp.Of(r.files...); !at.Same(r.seen) {
			r.busy = true
			go r.exchange(at)
		}
	}
	return r.current
}

func (r *renewed) exchange(at filestamp.Stamps) {
	client, err := r.dial()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy, r.looked = false, time.Now()
	if err != nil {
		r.pause = double(r.pause)
		return
	}
	old := r.current
	if r.closed {
		old = client
	} else {
		r.current, r.seen, r.pause = client, at, 0
	}
	time.AfterFunc(r.linger, func() { _ = old.Close() })
}

// Close implements sarama.Client.
func (r *renewed) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.current.Close()
}

// The rest of sarama.Client goes to the client of the moment.

func (r *renewed) Config() *sarama.Config                  { return r.now().Config() }
func (r *renewed) Controller() (*sarama.Broker, error)     { return r.now().Controller() }
func (r *renewed) Brokers() []*sarama.Broker               { return r.now().Brokers() }
func (r *renewed) Broker(id int32) (*sarama.Broker, error) { return r.now().Broker(id) }
func (r *renewed) Topics() ([]string, error)               { return r.now().Topics() }
func (r *renewed) RefreshBrokers(addrs []string) error     { return r.now().RefreshBrokers(addrs) }
func (r *renewed) RefreshMetadata(topics ...string) error  { return r.now().RefreshMetadata(topics...) }
func (r *renewed) RefreshCoordinator(group string) error   { return r.now().RefreshCoordinator(group) }
func (r *renewed) LeastLoadedBroker() *sarama.Broker       { return r.now().LeastLoadedBroker() }
func (r *renewed) Closed() bool                            { return r.now().Closed() }

func (r *renewed) RefreshController() (*sarama.Broker, error) { return r.now().RefreshController() }

func (r *renewed) Partitions(topic string) ([]int32, error) { return r.now().Partitions(topic) }

func (r *renewed) WritablePartitions(topic string) ([]int32, error) {
	return r.now().WritablePartitions(topic)
}

func (r *renewed) Leader(topic string, partition int32) (*sarama.Broker, error) {
	return r.now().Leader(topic, partition)
}

func (r *renewed) LeaderAndEpoch(topic string, partition int32) (*sarama.Broker, int32, error) {
	return r.now().LeaderAndEpoch(topic, partition)
}

func (r *renewed) Replicas(topic string, partition int32) ([]int32, error) {
	return r.now().Replicas(topic, partition)
}

func (r *renewed) InSyncReplicas(topic string, partition int32) ([]int32, error) {
	return r.now().InSyncReplicas(topic, partition)
}

func (r *renewed) OfflineReplicas(topic string, partition int32) ([]int32, error) {
	return r.now().OfflineReplicas(topic, partition)
}

func (r *renewed) GetOffset(topic string, partition int32, at int64) (int64, error) {
	return r.now().GetOffset(topic, partition, at)
}

func (r *renewed) Coordinator(group string) (*sarama.Broker, error) {
	return r.now().Coordinator(group)
}

func (r *renewed) TransactionCoordinator(id string) (*sarama.Broker, error) {
	return r.now().TransactionCoordinator(id)
}

func (r *renewed) RefreshTransactionCoordinator(id string) error {
	return r.now().RefreshTransactionCoordinator(id)
}

func (r *renewed) InitProducerID() (*sarama.InitProducerIDResponse, error) {
	return r.now().InitProducerID()
}

func (r *renewed) PartitionNotReadable(topic string, partition int32) bool {
	return r.now().PartitionNotReadable(topic, partition)
}
