package smtp_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/adapters/spec"
	"weiche/internal/submission"
)

// large is a delivery with one attachment of n bytes, which are made as they are
// read.
func large(n int64) *submission.Delivery {
	d := adaptertest.NewDelivery(nil)
	d.Attachments[0].Size = n
	d.Attachments[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(endless{}, n)), nil }
	return d
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// peak is the most bytes of heap that fn has in use beyond what was there.
func peak(fn func()) uint64 {
	debug.FreeOSMemory()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	fn()
	close(stop)
	<-stopped
	return most - min(most, before.HeapInuse)
}

const makingBytes = 512 << 20 // as the adapter has it

// One mail of the largest size has what is reckoned with; many at once, of several
// destinations, have no more than is allowed, and as much again that the collector
// has not come to.
func TestSMIMEMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a gigabyte")
	}
	i := newIssuer(t)
	to, _ := i.issue("amt", rsaKey(t), x509.KeyUsageKeyEncipherment)
	cert, key := i.issue("weiche", ecKey(t), x509.KeyUsageDigitalSignature)
	sealed, signed := "encrypt_to_file: "+to+"\n", fmt.Sprintf("sign_cert_file: %s\nsign_key_file: %s\n", cert, key)
	const size = 75_000_000 // a mail of 103 MB
	for _, c := range []struct {
		name, more   string
		destinations int
		most         uint64
	}{
		{"plain", "", 1, 10 << 20},
		{"signed", signed, 1, makingBytes},
		{"encrypted", sealed, 1, makingBytes},
		{"signed and encrypted", sealed + signed, 1, makingBytes},
		{"of three destinations, three each", sealed + signed, 3, 2 * makingBytes},
	} {
		var all sync.WaitGroup
		most := peak(func() {
			for range c.destinations {
				a := open(t, spec.Deps{DataDir: t.TempDir()}, "host: 127.0.0.1\nport: %d\nallow_networks: [loopback]\nfrom: weiche@land.test\nto: [bauamt@bauamt.test]\nmax_message: 100MB\n%s", freePort(t), c.more)
				for range c.destinations {
					all.Go(func() { _ = a.Deliver(context.Background(), large(size)) }) // nobody listens: the mail is made, and not sent
				}
			}
			all.Wait()
		})
		t.Logf("%s: at most %d bytes for attachments of %d, %.1f times", c.name, most, size, float64(most)/size)
		if most > c.most {
			t.Errorf("%s: %d bytes of memory, at most %d were expected", c.name, most, c.most)
		}
	}
}
