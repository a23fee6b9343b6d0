package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/IBM/sarama"

	"weiche/internal/bus"
)

// settle makes the landscape that the next runs are about.
func (l *lab) settle(p plan) (err error) {
	dir, err := os.MkdirTemp(l.dir, "config-")
	if err != nil {
		return err
	}
	l.plan = p
	l.land, err = newLandscape(dir, l.repo, p)
	return err
}

// form is the n-th submission as a portal posts it.
func (l *lab) form(n int, s shape) []byte { return formOf(n, l.land.region(n), s) }

// newData makes a data directory with the standards.
func (l *lab) newData() (string, error) {
	data, err := os.MkdirTemp(l.dir, "data-")
	if err != nil {
		return "", err
	}
	return data, l.link(data)
}

// link makes the lab's standards those of a data directory.
func (l *lab) link(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(l.dir, "standards"), filepath.Join(data, "standards"))
}

// takeOver gives a data directory the keys and the blobs of another: links, since
// nobody writes into a file of either.
func takeOver(from, to string) error {
	for _, part := range []string{"keys", "blobs"} {
		err := filepath.WalkDir(filepath.Join(from, part), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			inside, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			if e.IsDir() {
				return os.Mkdir(filepath.Join(to, inside), 0o700)
			}
			return os.Link(path, filepath.Join(to, inside))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writePlain fills the input of those who copy. It is only read, so that one
// filling serves all.
func (l *lab) writePlain(ctx context.Context, records int, sh shape) error {
	began := time.Now()
	if err := l.recreate(ctx, plainTopic(plainIn, l.partitions)); err != nil {
		return err
	}
	s, err := l.newSender()
	if err != nil {
		return err
	}
	for n := range records {
		s.send(plainRecord(plainIn, n, l.partitions, l.form(n, sh)))
	}
	fmt.Fprintf(l.log, "%d submissions written in %s\n", records, time.Since(began).Round(time.Second))
	return s.close()
}

func plainRecord(topic string, n, partitions int, value []byte) *sarama.ProducerMessage {
	id := fmt.Sprintf("%08d", n)
	return &sarama.ProducerMessage{Topic: topic, Partition: int32(n % partitions), Key: sarama.StringEncoder(id), Value: sarama.ByteEncoder(value),
		Headers: []sarama.RecordHeader{{Key: []byte(idHeader), Value: []byte(id)}}}
}

// accept lets an intake accept submissions and puts what it wrote aside under a
// label: a router cuts its topics, so each run gets a copy.
func (l *lab) accept(ctx context.Context, label string, records int, sh shape) error {
	began := time.Now()
	topics := bus.Topics(l.busConfig(), nil)
	l.stash = "bench.stash." + label + "."
	for _, t := range topics {
		t.Name = l.stash + t.Name
		topics = append(topics, t)
	}
	if err := l.recreate(ctx, topics...); err != nil {
		return err
	}
	data, err := l.newData()
	if err != nil {
		return err
	}
	l.accepted = data
	j := l.onBus("fill")
	j.Config, j.Data, j.Records, j.Shape = l.land.dir, data, records, sh
	c, err := startChild(l.dir, j, time.Hour)
	if err != nil {
		return err
	}
	if err := c.stop(); err != nil {
		return err
	}
	for _, t := range []string{bus.TopicKeys, bus.TopicClaims, bus.TopicSubmissions} {
		if err := l.copyTopic(t, l.stash+t, 1<<30); err != nil {
			return err
		}
	}
	n, err := l.written(l.stash + bus.TopicSubmissions)
	if err == nil && n != int64(records) {
		err = fmt.Errorf("%d submissions were accepted, %d are in the log", records, n)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(l.log, "%d submissions accepted in %s\n", records, time.Since(began).Round(time.Second))
	l.singles = nil
	return l.read(l.stash+bus.TopicSubmissions, min(records, singles), func(m *sarama.ConsumerMessage) error {
		l.singles = append(l.singles, l.again(bus.TopicSubmissions, m, l.partitions))
		return nil
	})
}

// singles is how many accepted submissions are kept at hand for runs at a rate:
// 10 s of 500 a second.
const singles = 5_000

// acceptedAgain returns the n-th of the accepted submissions that are at hand.
func (l *lab) acceptedAgain(n int) (id string, m *sarama.ProducerMessage) {
	if n >= len(l.singles) {
		return "", nil
	}
	m = l.singles[n]
	for _, h := range m.Headers {
		if string(h.Key) == idHeader {
			id = string(h.Value)
		}
	}
	return id, &sarama.ProducerMessage{Topic: m.Topic, Partition: m.Partition, Key: m.Key, Value: m.Value, Headers: m.Headers, Timestamp: m.Timestamp}
}
