// Package adaptertest is what every adapter has to pass.
//
// An adapter's own test says how its destination comes into each condition; the
// suite says what Deliver has to answer then. A condition that a kind cannot
// have is declared with its reason and shows as a skipped test with that reason.
package adaptertest

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"weiche/internal/adapters/spec"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

// Canary is part of everything in a delivery that is payload: XML, file name and
// content. It may come out at the destination's end, and nowhere else.
const Canary = "Kanarienvogel-7f3a"

// Condition is what a destination is like.
type Condition string

// The conditions.
const (
	Well           Condition = "delivered"
	RefusesForGood Condition = "refused for good"
	RefusesForNow  Condition = "refused for now"
	AtFault        Condition = "destination at fault"
	Slow           Condition = "slow"     // longer than any deadline
	CutsOff        Condition = "cut off"  // in the middle of the transfer
	RotatesSecret  Condition = "rotation" // Door.Rotate changes the secret
	// Idle is well, with an adapter that keeps unused connections, where it keeps
	// any, for less than a second.
	Idle Condition = "idle"
	// Closed is well, and its adapter is closed before the test looks.
	Closed Condition = "closed"
)

// Received is one message as it came out at the destination's end.
type Received struct {
	ID          string
	Message     []byte
	Attachments [][]byte          // in order
	Beside      map[string]string // headers, names of files and the like, free of payload but for PayloadNames
}

// Door is one destination in one condition.
type Door struct {
	Adapter spec.Adapter
	// Received returns what has come out so far, repeats included where the
	// destination sees them.
	Received func() []Received
	// Delivery, where it is not nil, makes the delivery that brings the condition
	// about (too large a one, one whose source is slow).
	Delivery func() *submission.Delivery
	// Begun, where it is not nil, is closed or sent to once the transfer has
	// begun; Slow and the cancelled case wait for it.
	Begun <-chan struct{}
	// Rotate changes the secret, at both ends. Only for RotatesSecret.
	Rotate func()
	// Secrets must come out nowhere.
	Secrets []string
}

// Suite describes one adapter's tests.
type Suite struct {
	// Open brings a destination into a condition and makes an adapter for it with
	// deps; Deps.Log must be passed on.
	Open func(t *testing.T, c Condition, deps spec.Deps) Door
	// Without says why a condition cannot be.
	Without map[Condition]string
	// Repeats says what the destination sees of a repeat under the same id: true,
	// both; false, one (the adapter itself recognises it or overwrites).
	Repeats bool
	// Shared says of a goroutine's stack or a descriptor's target ("socket:[1]", a
	// file's name) that it belongs to something that outlives the adapter: the
	// router's own bus, a server of the test. Nil: nothing does.
	Shared func(what string) bool
}

// NewDelivery returns a delivery with fresh ids and the given attachments.
func NewDelivery(attachments ...[]byte) *submission.Delivery {
	d := &submission.Delivery{
		ID: uuid.NewString(), SubmissionID: uuid.NewString(), CaseID: uuid.NewString(), Portal: "service-bw", Land: "08",
		Service: "99012008001000", Destination: "08-bauamt", Format: submission.Format{Standard: "xbau", Version: "2.6", Message: "baugenehmigung.antrag.0200"},
		Authority: submission.Authority{ID: "bauamt", Key: "bab:08115003", Name: Canary, Region: "081150003003"}, Attempt: 1,
		AcceptedAt:  time.Date(2026, 11, 22, 20, 15, 30, 0, time.UTC),
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		Message:     []byte(`<?xml version="1.0" encoding="UTF-8"?><antrag><name>` + Canary + `</name></antrag>`),
	}
	for i, b := range attachments {
		d.Attachments = append(d.Attachments, NewFile(fmt.Sprintf("../%s \r\nÜ%d.pdf", Canary, i), b))
	}
	return d
}

// NewFile returns an attachment of these bytes.
func NewFile(name string, content []byte) submission.File {
	sum := sha512.Sum512(content)
	return submission.File{
		ID: uuid.NewString(), Filename: name, MIMEType: "application/pdf", Purpose: "attachment", SHA512: hex.EncodeToString(sum[:]), Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// patience bounds what must not take long.
const patience = 30 * time.Second

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("delivered", func(t *testing.T) {
		door, leaks := s.open(t, Well)
		first := NewDelivery()
		second := NewDelivery([]byte("%PDF "+Canary), bytes.Repeat([]byte("gross "), 50_000), nil)
		second.Test = true
		for _, d := range []*submission.Delivery{first, second} {
			if err := deliver(t.Context(), door.Adapter, d); err != nil {
				t.Fatalf("a destination that is well: %v", err)
			}
		}
		got := door.Received()
		if len(got) != 2 {
			t.Fatalf("%d messages came out, 2 went in", len(got))
		}
		for _, d := range []*submission.Delivery{first, second} {
			i := slices.IndexFunc(got, func(r Received) bool { return r.ID == d.ID })
			if i < 0 {
				t.Fatalf("no message came out under the delivery id %s", d.ID)
			}
			mustEqual(t, d, got[i])
		}
		leaks.check(t, nil, door, got)
	})

	t.Run("stable over repeats", func(t *testing.T) {
		door, leaks := s.open(t, Well)
		d := NewDelivery([]byte("eins"), []byte("zwei"))
		for d.Attempt = 1; d.Attempt <= 3; d.Attempt++ {
			if err := deliver(t.Context(), door.Adapter, d); err != nil {
				t.Fatalf("attempt %d: %v", d.Attempt, err)
			}
		}
		got := door.Received()
		want := 1
		if s.Repeats {
			want = 3
		}
		if len(got) != want {
			t.Fatalf("%d messages came out of three attempts, %d were expected", len(got), want)
		}
		for _, r := range got {
			if r.ID != d.ID {
				t.Errorf("a repeat came out under the id %s instead of %s", r.ID, d.ID)
			}
			mustEqual(t, d, r)
		}
		leaks.check(t, nil, door, got)
	})

	t.Run("concurrent", func(t *testing.T) {
		door, leaks := s.open(t, Well)
		const n = 16
		var wg sync.WaitGroup
		ids := make([]string, n)
		for i := range n {
			d := NewDelivery([]byte(strings.Repeat("x", 1000*i)))
			ids[i] = d.ID
			wg.Go(func() {
				if err := deliver(t.Context(), door.Adapter, d); err != nil {
					t.Errorf("one of %d at once: %v", n, err)
				}
			})
		}
		wg.Wait()
		got := door.Received()
		var came []string
		for _, r := range got {
			came = append(came, r.ID)
		}
		slices.Sort(ids)
		slices.Sort(came)
		if !slices.Equal(ids, came) {
			t.Errorf("%d messages came out, or not those %d that went in", len(came), n)
		}
		leaks.check(t, nil, door, got)
	})

	for _, c := range []struct {
		condition Condition
		class     fault.Class
	}{{RefusesForGood, fault.Permanent}, {RefusesForNow, fault.Retryable}, {AtFault, fault.Destination}, {CutsOff, fault.Retryable}} {
		t.Run(string(c.condition), func(t *testing.T) {
			door, leaks := s.open(t, c.condition)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := deliver(ctx, door.Adapter, door.delivery())
			_ = mustBe(t, err, c.class)
			leaks.check(t, err, door, nil)
		})
	}

	t.Run("slow", func(t *testing.T) {
		door, leaks := s.open(t, Slow)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := deliver(ctx, door.Adapter, door.delivery())
		if f := mustBe(t, err, fault.Retryable); f != nil && f.Reason != fault.ReasonTimeout {
			t.Errorf("the reason is %s, timeout was expected", f.Reason)
		}
		leaks.check(t, err, door, nil)
	})

	t.Run("cancelled before", func(t *testing.T) {
		door, leaks := s.open(t, Well)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := deliver(ctx, door.Adapter, NewDelivery([]byte("a")))
		_ = mustBe(t, err, fault.Cancelled)
		if got := door.Received(); len(got) != 0 {
			t.Errorf("%d messages came out though all was cancelled before", len(got))
		}
		leaks.check(t, err, door, nil)
	})

	t.Run("cancelled within", func(t *testing.T) {
		door, leaks := s.open(t, Slow)
		if door.Begun == nil {
			t.Skip("the kind does not say when a transfer has begun")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			<-door.Begun
			cancel()
		}()
		err := deliver(ctx, door.Adapter, door.delivery())
		_ = mustBe(t, err, fault.Cancelled)
		leaks.check(t, err, door, nil)
	})

	t.Run("secret rotated", func(t *testing.T) {
		door, leaks := s.open(t, RotatesSecret)
		var got []Received
		for range 3 {
			if err := deliver(t.Context(), door.Adapter, NewDelivery([]byte("a"))); err != nil {
				t.Fatalf("after a rotation: %v", err)
			}
			door.Rotate()
		}
		if got = door.Received(); len(got) != 3 {
			t.Errorf("%d messages came out, 3 went in", len(got))
		}
		leaks.check(t, nil, door, got)
	})

	for _, c := range []Condition{Idle, Closed} {
		t.Run(string(c), func(t *testing.T) {
			door, leaks := s.open(t, c)
			before := held()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := deliver(t.Context(), door.Adapter, NewDelivery([]byte("a"), make([]byte, 100_000))); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			when := "after an idle time"
			if closer, ok := door.Adapter.(io.Closer); ok && c == Closed {
				when = "after Close"
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
			mustLeave(t, before, when, s.shared)
			leaks.check(t, nil, door, nil)
		})
	}

	t.Run("source at fault", func(t *testing.T) {
		door, leaks := s.open(t, Well)
		gone := NewDelivery([]byte("a"))
		gone.Attachments[0].Open = func() (io.ReadCloser, error) {
			return nil, fault.New(fault.Permanent, fault.ReasonBlobMissing, "an attachment's bytes are gone")
		}
		err := deliver(t.Context(), door.Adapter, gone)
		if f := mustBe(t, err, fault.Permanent); f != nil && f.Reason != fault.ReasonBlobMissing {
			t.Errorf("the store's own reason became %s", f.Reason)
		}
		leaks.check(t, err, door, nil)
		forged := NewDelivery([]byte("a"))
		forged.Attachments[0].Open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("a"), failing{errors.New(Canary)})), nil
		}
		err = deliver(t.Context(), door.Adapter, forged)
		_ = mustBe(t, err, fault.Retryable)
		leaks.check(t, err, door, nil)
		if got := door.Received(); len(got) != 0 {
			t.Errorf("%d messages came out without their attachments", len(got))
		}
	})
}

// deliver hands over as the delivery stage does: where the adapter wants something
// on record, or the destination's word comes later, it is asked again with its
// token until it has an answer.
func deliver(ctx context.Context, a spec.Adapter, d *submission.Delivery) error {
	step := *d
	for end := time.Now().Add(patience); ; {
		err := a.Deliver(ctx, &step)
		pending, ok := errors.AsType[*submission.Pending](err)
		if !ok || time.Now().After(end) {
			return err
		}
		step.Token = pending.Token
		select {
		case <-ctx.Done(): // the adapter's own answer to that is what counts
		case <-time.After(pending.After):
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (d Door) delivery() *submission.Delivery {
	if d.Delivery != nil {
		return d.Delivery()
	}
	return NewDelivery([]byte("Anlage " + Canary))
}

func (s Suite) open(t *testing.T, c Condition) (Door, *leaks) {
	t.Helper()
	if why, ok := s.Without[c]; ok {
		t.Skipf("this kind cannot have it: %s", why)
	}
	l := &leaks{}
	deps := spec.Deps{DataDir: t.TempDir(), Clock: time.Now, Log: slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	door := s.Open(t, c, deps.WithDefaults())
	before := held()
	t.Cleanup(func() {
		if closer, ok := door.Adapter.(io.Closer); ok {
			_ = closer.Close()
		}
		// Whatever the condition was: none of the adapter's own goroutines outlives it.
		mustLeave(t, before, "at the end", func(what string) bool { return notOurs(what) || s.shared(what) })
	})
	return door, l
}

func (s Suite) shared(what string) bool { return s.Shared != nil && s.Shared(what) }

// leaks keeps the log, and looks for what must not be anywhere.
type leaks struct {
	mu  sync.Mutex
	log bytes.Buffer
}

// Write implements io.Writer.
func (l *leaks) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *leaks) check(t *testing.T, err error, door Door, got []Received) {
	t.Helper()
	l.mu.Lock()
	places := map[string]string{"the log": l.log.String()}
	l.mu.Unlock()
	if err != nil {
		places["the error"] = err.Error()
	}
	for _, r := range got {
		for k, v := range r.Beside {
			places["what travels beside ("+k+")"] += k + " " + v + "\n"
		}
	}
	for place, text := range places {
		for _, word := range append([]string{Canary, "Kanarienvogel"}, door.Secrets...) {
			if strings.Contains(text, word) {
				t.Errorf("payload or a secret stands in %s: %s", place, text)
			}
		}
	}
}

func mustBe(t *testing.T, err error, class fault.Class) *fault.Error {
	t.Helper()
	if err == nil {
		t.Errorf("no error came, a %s one was expected", class)
		return nil
	}
	f, ok := err.(*fault.Error) //nolint:errorlint // the interface promises it unwrapped
	if !ok {
		t.Errorf("the error is a %T, not a *fault.Error", err)
		return nil
	}
	if f.Class != class {
		t.Errorf("the fault is %s (%v), %s was expected", f.Class, f, class)
	}
	if !slices.Contains(fault.Reasons(), f.Reason) {
		t.Errorf("the reason %q is none of the bounded set", f.Reason)
	}
	return f
}

func mustEqual(t *testing.T, d *submission.Delivery, r Received) {
	t.Helper()
	if !bytes.Equal(d.Message, r.Message) {
		t.Error("the XML that came out is not the one that went in")
	}
	if len(r.Attachments) != len(d.Attachments) {
		t.Errorf("%d attachments came out, %d went in", len(r.Attachments), len(d.Attachments))
		return
	}
	for i, a := range d.Attachments {
		if sum := sha512.Sum512(r.Attachments[i]); hex.EncodeToString(sum[:]) != a.SHA512 {
			t.Errorf("attachment %d came out with other bytes", i)
		}
	}
}
