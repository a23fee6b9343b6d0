package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// portals post submissions to a router over HTTP.
type portals struct {
	client *http.Client
	bodies [][]byte
	run    int64 // part of every Idempotency-Key
	acks   atomic.Int64
	failed atomic.Pointer[error]
}

// newPortals makes as many portals as may post at once, each with a connection
// of its own.
func newPortals(count int, region func(n int) string) *portals {
	p := &portals{run: time.Now().UnixNano()}
	for n := range 4096 { // a key makes a submission, so bodies may come again
		p.bodies = append(p.bodies, formOf(n, region(n), standardShape))
	}
	p.client = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		MaxIdleConns: count, MaxIdleConnsPerHost: count, MaxConnsPerHost: count,
		DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext}}
	return p
}

// post posts the n-th submission and waits for its receipt.
func (p *portals) post(ctx context.Context, to addresses, n int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Public+"/v1/submissions", bytes.NewReader(p.bodies[n%len(p.bodies)]))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+to.Key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprintf("%d-%d", p.run, n))
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("a submission was answered %d: %.300s", res.StatusCode, b)
	}
	return err
}

// start lets count portals post until they have posted total; each posts its
// next one when the one before it was answered.
func (p *portals) start(ctx context.Context, to addresses, count, total int) (wait func() error) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range count {
		all.Go(func() {
			for p.failed.Load() == nil && ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= total {
					return
				}
				if err := p.post(ctx, to, n); err != nil {
					if ctx.Err() == nil {
						p.failed.CompareAndSwap(nil, &err)
					}
					return
				}
				p.acks.Add(1)
			}
		})
	}
	return func() error {
		all.Wait()
		p.client.CloseIdleConnections()
		return p.err()
	}
}

func (p *portals) err() error {
	if e := p.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// receiver is a Fachverfahren that takes everything: 204.
type receiver struct {
	url   string
	taken atomic.Int64
	seen  atomic.Pointer[func(submission string)] // nil: nobody asks
	close func()
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{url: "http://" + l.Addr().String() + "/"}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, err := io.Copy(io.Discard, req.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if fn := r.seen.Load(); fn != nil {
			(*fn)(req.Header.Get("Weiche-Submission-Id"))
		}
		r.taken.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = srv.Serve(l) }()
	r.close = func() { _ = srv.Close() }
	return r, nil
}
