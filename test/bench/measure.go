package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// watch says how the harness sees a contender's work from outside.
type watch struct {
	// begun is above zero once the first record was worked on. The clock starts
	// there: starting a process and joining a group are not what is measured.
	begun func() (int64, error)
	done  func() (int64, error) // records that have arrived
	total int64
	// settled, where set, must reach total too before the clock stops: the account
	// of what was done is part of the work.
	settled func(c *child) (int64, error)
	parked  func() (int64, error) // nil: nothing can be
}

// sample is one measured run.
type sample struct {
	Records   int64
	Seconds   float64
	CPU       float64 // seconds, of the contender's process
	BrokerCPU float64 // seconds, of the broker's
	PeakMiB   float64
	Parked    int64 // records that went through the waiting topic
}

// beginWithin is how long a contender may take to begin: a router without a
// store reads what is in the log first.
func (w watch) beginWithin() time.Duration {
	return 2*time.Minute + time.Duration(w.total)*time.Millisecond
}

// measure follows a child until its work is done, or for limit, whichever comes
// first. After the limit, what has arrived until then counts.
func (l *lab) measure(ctx context.Context, c *child, w watch, limit time.Duration, began func()) (s sample, err error) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	wait := func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return c.failed("a contender ended by itself", errors.Join(c.err))
		case <-poll.C:
			return nil
		}
	}
	deadline := time.Now().Add(w.beginWithin())
	for {
		n, err := w.begun()
		if err != nil {
			return s, err
		}
		if n > 0 {
			break
		}
		if time.Now().After(deadline) {
			return s, c.failed("a contender", fmt.Errorf("did nothing within %s", w.beginWithin()))
		}
		if err := wait(); err != nil {
			return s, err
		}
	}
	start := time.Now()
	if began != nil {
		began()
	}
	before, err := l.cpu(c)
	if err != nil {
		return s, err
	}
	first, err := w.done()
	if err != nil {
		return s, err
	}
	var n int64
	for n < w.total && time.Since(start) < limit {
		if err := wait(); err != nil {
			return s, err
		}
		if n, err = w.done(); err != nil {
			return s, err
		}
	}
	for n >= w.total && w.settled != nil {
		told, err := w.settled(c)
		if err != nil {
			return s, err
		}
		if told >= w.total || time.Since(start) > 2*limit {
			break
		}
		if err := wait(); err != nil {
			return s, err
		}
	}
	s.Seconds = time.Since(start).Seconds()
	after, err := l.cpu(c)
	if err != nil {
		return s, err
	}
	s.Records, s.CPU, s.BrokerCPU = n-first, after[0]-before[0], after[1]-before[1]
	if w.parked != nil {
		if s.Parked, err = w.parked(); err != nil {
			return s, err
		}
	}
	s.PeakMiB, err = peakMiB(c.cmd.Process.Pid)
	if err == nil && s.Records <= 0 {
		err = fmt.Errorf("nothing arrived within %s", limit)
	}
	return s, err
}

// cpu is the time the child and the broker have used so far.
func (l *lab) cpu(c *child) (both [2]float64, err error) {
	for i, pid := range []int{c.cmd.Process.Pid, l.broker} {
		if both[i], err = cpuSeconds(pid); err != nil {
			return both, err
		}
	}
	return both, nil
}
