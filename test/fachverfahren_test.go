package test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fachverfahren is a receiver in the test's own process that forgets nothing:
// every knock at its door, in order, whatever it answered.
type fachverfahren struct {
	*httptest.Server
	secret string                  // file
	guard  func(*http.Request) int // asked before a knock counts; nil, or below 300: welcome
	open   atomic.Int64

	mu     sync.Mutex
	life   int // of the router, as the test counts them
	knocks []knock
	moods  map[string]mood   // by submission
	ahead  map[string]string // by submission: the one before it in its case
	ended  map[string]bool   // submissions an operator ends, which hold back nothing more
	taken  map[string]bool   // door and submission
	times  map[string]int    // knocks by door and submission
	wrong  []string
}

// knock is one request.
type knock struct {
	host, door, delivery, submission string
	status, life                     int
	at                               time.Time
	sum                              [sha256.Size]byte // of the body
}

// mood says what is answered to the n-th knock (from 1) of a submission at a
// door.
type mood func(door string, n int) int

func startFachverfahren(t *testing.T) *fachverfahren {
	t.Helper()
	f := &fachverfahren{secret: filepath.Join(t.TempDir(), "secret"), moods: map[string]mood{}, ahead: map[string]string{},
		ended: map[string]bool{}, taken: map[string]bool{}, times: map[string]int{}}
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("the secret of a test, 32 bytes..")) + "\n"
	if err := os.WriteFile(f.secret, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			f.open.Add(1)
		case http.StateClosed:
			f.open.Add(-1)
		}
	}
	f.Start()
	t.Cleanup(f.Close)
	return f
}

// ServeHTTP implements http.Handler.
func (f *fachverfahren) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.guard != nil {
		if status := f.guard(r); status >= 300 {
			w.WriteHeader(status)
			return
		}
	}
	host, _, _ := strings.Cut(r.Host, ":")
	k := knock{host: host, door: r.URL.Path, delivery: r.Header.Get("webhook-id"), submission: r.Header.Get("Weiche-Submission-Id")}
	f.knocked(&k)
	h := sha256.New()
	if _, err := io.Copy(h, r.Body); err != nil {
		return // the router went in the middle of it; nothing was taken
	}
	copy(k.sum[:], h.Sum(nil))
	w.WriteHeader(f.answered(k))
}

// knocked holds the order of the case against what was taken by now: an attempt
// before its predecessor's end is wrong, whatever comes of it.
func (f *fachverfahren) knocked(k *knock) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k.life = f.life
	if before := f.ahead[k.submission]; before != "" && !f.taken[k.door+before] && !f.ended[before] {
		f.wrong = append(f.wrong, fmt.Sprintf("%s came to %s before %s, which stands before it in its case", k.submission, k.door, before))
	}
}

func (f *fachverfahren) answered(k knock) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := k.door + k.submission
	f.times[at]++
	k.status, k.at = http.StatusNoContent, time.Now()
	if m := f.moods[k.submission]; m != nil {
		k.status = m(k.door, f.times[at])
	}
	if k.status < 300 {
		f.taken[at] = true
	}
	f.knocks = append(f.knocks, k)
	return k.status
}

// Expect tells what is to come of a submission: the one before it in its case
// and what it is answered, "" and nil for nothing special.
func (f *fachverfahren) Expect(submission, before string, m mood) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead[submission] = before
	if m != nil {
		f.moods[submission] = m
	}
}

// Mend makes the Fachverfahren take a submission that it refused.
func (f *fachverfahren) Mend(submission string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.moods, submission)
}

// End lets what stands behind a submission come without it.
func (f *fachverfahren) End(submission string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[submission] = true
}

// Quiet waits until nothing of a dead router is left to be answered.
func (f *fachverfahren) Quiet(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, func() (bool, string) { n := f.open.Load(); return n == 0, fmt.Sprint(n, " connections are open") })
}

// Life counts the router's lives.
func (f *fachverfahren) Life(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life = n
}

// Taken says whether a submission was taken at a door.
func (f *fachverfahren) Taken(door, submission string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken[door+submission]
}

// Knocks returns what has come so far.
func (f *fachverfahren) Knocks() []knock {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.knocks)
}

// takenTwice returns, by delivery id, the knocks that were answered 2xx where
// there is more than one, after checking what holds for all of them: one id and
// the same bytes for a submission at a door, and the order of every case.
func (f *fachverfahren) takenTwice(t *testing.T) map[string][]knock {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wrong {
		t.Error(w)
	}
	first := map[string]knock{}
	taken := map[string][]knock{}
	for _, k := range f.knocks {
		at := k.door + k.submission
		was, known := first[at]
		if !known {
			first[at] = k
		} else if was.delivery != k.delivery || was.sum != k.sum {
			t.Errorf("%s came to %s as %s, then as %s; the same bytes: %v", k.submission, k.door, was.delivery, k.delivery, was.sum == k.sum)
		}
		if k.status < 300 {
			taken[k.delivery] = append(taken[k.delivery], k)
		}
	}
	maps.DeleteFunc(taken, func(_ string, list []knock) bool { return len(list) == 1 })
	return taken
}

// Doors of the Fachverfahren that stand behind Sindelfingen's authority.
const (
	doorGewerbe = "/sindelfingen/gewerbe"
	doorArchiv  = "/sindelfingen/archiv"
)

var doors = map[string]string{doorGewerbe: "08-sindelfingen-gewerbe", doorArchiv: "08-sindelfingen-archiv"}

// useFachverfahren points Sindelfingen's trade registrations to f, and with
// archive to a second door of it, so that each has two deliveries.
func (r *router) useFachverfahren(f *fachverfahren, archive bool) {
	r.t.Helper()
	addr := strings.TrimPrefix(f.URL, "http://")
	r.editConfig("lands", func(_, text string) string {
		text = strings.ReplaceAll(text, "127.0.0.1:8090", addr)
		text = strings.ReplaceAll(text, "probe: 5s", "probe: 300ms")
		if !archive {
			return text
		}
		text = strings.ReplaceAll(text, "[sindelfingen-gewerbe, test-eingang]", "[sindelfingen-gewerbe, sindelfingen-archiv, test-eingang]")
		return strings.ReplaceAll(text, "  - id: sindelfingen-gewerbe\n    name: Sindelfingen, Gewerberegister\n", `  - id: sindelfingen-archiv
    name: Sindelfingen, Archiv
    adapter: http
    settings:
      url: `+f.URL+doorArchiv+`
      secret_file: secrets/receiver.key
      allow_networks: [loopback]
    formats: [antrag/1.0/antrag]
    policy: {probe: 300ms, in_flight: 4}
  - id: sindelfingen-gewerbe
    name: Sindelfingen, Gewerberegister
`)
	})
	if err := os.MkdirAll(filepath.Join(r.Data, "secrets"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	copyFile(r.t, f.secret, filepath.Join(r.Data, "secrets", "receiver.key"))
}
