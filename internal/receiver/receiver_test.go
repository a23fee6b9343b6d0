package receiver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"weiche/internal/adapters"
	"weiche/internal/adapters/adaptertest"
	webhook "weiche/internal/adapters/http"
	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/receiver"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// running is a receiver and an http adapter that is pointed at it.
type running struct {
	t       *testing.T
	dir     string
	addr    string
	out     *lines
	adapter adapters.Adapter
	stop    func() // and wait; may be called twice
	ended   chan struct{}
}

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func start(t *testing.T, dir string, o receiver.Options) *running {
	t.Helper()
	o.Listen, o.Dir, o.SecretFile = "127.0.0.1:0", filepath.Join(dir, "received"), filepath.Join(dir, "keys", "secret")
	r := &running{t: t, dir: o.Dir, out: &lines{}, ended: make(chan struct{})}
	o.Out = r.out
	ready := make(chan string, 1)
	o.Ready = func(a string) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		defer close(r.ended)
		failed <- receiver.Run(ctx, o)
	}()
	r.stop = func() {
		cancel()
		<-r.ended
	}
	t.Cleanup(r.stop)
	select {
	case r.addr = <-ready:
	case err := <-failed:
		t.Fatal(err)
	}
	r.point(o.SecretFile)
	return r
}

// point makes an adapter that signs with the secrets of a file.
func (r *running) point(secrets string) {
	r.t.Helper()
	s, err := config.ParseSettings("d.yaml", "url: http://"+r.addr+"/bauamt\nsecret_file: "+secrets+"\nallow_networks: [loopback]")
	if err != nil {
		r.t.Fatal(err)
	}
	r.adapter, err = adapters.New("08-bauamt", config.Destination{Adapter: "http", Settings: s}, adapters.Deps{DataDir: filepath.Dir(r.dir)})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) deliver(d *submission.Delivery) *fault.Error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	return fault.Of(r.adapter.Deliver(ctx, d))
}

func (r *running) stored() (xml []string, attachments []string) {
	r.t.Helper()
	xml, err := filepath.Glob(filepath.Join(r.dir, "*.xml"))
	if err != nil {
		r.t.Fatal(err)
	}
	attachments, err = filepath.Glob(filepath.Join(r.dir, "*", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return xml, attachments
}

func TestReceives(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, receiver.Options{})
	if info, err := os.Stat(filepath.Join(dir, "keys", "secret")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the secret was not made for its owner alone: %v", err)
	}
	d := adaptertest.NewDelivery([]byte("eins"), bytes.Repeat([]byte("zwei"), 100_000))
	for range 3 {
		if f := r.deliver(d); f != nil {
			t.Fatal(f)
		}
	}
	plain := adaptertest.NewDelivery()
	if f := r.deliver(plain); f != nil {
		t.Fatal(f)
	}
	xml, files := r.stored()
	if len(xml) != 2 || len(files) != 2 {
		t.Fatalf("%d messages and %d attachments are stored, 2 and 2 were sent", len(xml), len(files))
	}
	for name, want := range map[string][]byte{
		d.ID + ".xml": d.Message, plain.ID + ".xml": plain.Message, filepath.Join(d.ID, filepath.Base(files[0])): []byte("eins"),
	} {
		if got, err := os.ReadFile(filepath.Join(r.dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s holds other bytes (%v)", name, err)
		}
	}
	if strings.Count(filepath.Base(files[0]), "01-") != 1 {
		t.Errorf("an attachment is called %s", filepath.Base(files[0]))
	}
	out := r.out.String()
	for want, n := range map[string]int{"new " + d.ID + " ": 1, "duplicate " + d.ID + " ": 2, "format=xbau/2.6/baugenehmigung.antrag.0200 attachments=2": 3, "listening on http://" + r.addr: 1} {
		if strings.Count(out, want) != n {
			t.Errorf("%q stands %d times in\n%s", want, strings.Count(out, want), out)
		}
	}
	if strings.Contains(out, "Kanarienvogel") {
		t.Error("payload was printed")
	}

	// After a restart a repeat is still a repeat, a torn note included.
	r.stop()
	f, err := os.OpenFile(filepath.Join(r.dir, ".seen"), os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.WriteString("0f3a")
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.dir, d.ID+".xml")); err != nil { // taken away by whoever processes it
		t.Fatal(err)
	}
	r = start(t, dir, receiver.Options{})
	third := adaptertest.NewDelivery()
	for _, x := range []*submission.Delivery{d, third, third} {
		if f := r.deliver(x); f != nil {
			t.Fatal(f)
		}
	}
	r.stop()
	r = start(t, dir, receiver.Options{})
	if f := r.deliver(third); f != nil {
		t.Fatal(f)
	}
	if xml, _ := r.stored(); len(xml) != 2 { // plain and third
		t.Errorf("%d messages are stored after the restarts, 2 were expected", len(xml))
	}
	if out := r.out.String(); !strings.Contains(out, "duplicate "+third.ID) {
		t.Errorf("the note after a torn one was lost:\n%s", out)
	}
}

func TestTwentyAtOnce(t *testing.T) {
	r := start(t, t.TempDir(), receiver.Options{})
	d := adaptertest.NewDelivery([]byte("a"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if f := r.deliver(d); f != nil {
				t.Error(f)
			}
		})
	}
	wg.Wait()
	if out := r.out.String(); strings.Count(out, "new ") != 1 || strings.Count(out, "duplicate ") != 19 {
		t.Errorf("one new and nineteen duplicates were expected:\n%s", out)
	}
}

func TestToldToAnswer(t *testing.T) {
	answers, err := receiver.ParseAnswers("503x2,422,200")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), receiver.Options{Answers: answers})
	d := adaptertest.NewDelivery()
	for i, want := range []fault.Reason{fault.ReasonUnavailable, fault.ReasonUnavailable, fault.ReasonRefused} {
		if f := r.deliver(d); f == nil || f.Reason != want {
			t.Errorf("answer %d: %v, %s was expected", i+1, f, want)
		}
		if xml, _ := r.stored(); len(xml) != 0 {
			t.Error("a refused message was stored")
		}
	}
	for range 2 {
		if f := r.deliver(d); f != nil {
			t.Error(f)
		}
	}
	for _, bad := range []string{"abc", "100", "700", "503x0", "503x", "200,,500"} {
		if _, err := receiver.ParseAnswers(bad); err == nil {
			t.Errorf("%q passes for an answer", bad)
		}
	}
}

// Slow: the message is stored, the sender gives up, and its repeat is dropped.
func TestSlow(t *testing.T) {
	r := start(t, t.TempDir(), receiver.Options{Delay: 2 * time.Second})
	d := adaptertest.NewDelivery()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if f := fault.Of(r.adapter.Deliver(ctx, d)); f == nil || f.Reason != fault.ReasonTimeout {
		t.Errorf("a slow receiver gave %v", f)
	}
	if f := r.deliver(d); f != nil {
		t.Error(f)
	}
	if out := r.out.String(); !strings.Contains(out, "duplicate "+d.ID) {
		t.Errorf("the repeat was not dropped:\n%s", out)
	}
}

func TestHangsAndStops(t *testing.T) {
	r := start(t, t.TempDir(), receiver.Options{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if f := fault.Of(r.adapter.Deliver(ctx, adaptertest.NewDelivery())); f == nil || f.Reason != fault.ReasonTimeout {
		t.Errorf("a receiver that never answers gave %v", f)
	}
	done := make(chan *fault.Error, 1)
	go func() { done <- r.deliver(adaptertest.NewDelivery()) }()
	r.stop()
	if f := <-done; f == nil || f.Class == fault.Permanent {
		t.Errorf("a receiver that stopped gave %v", f)
	}
	if xml, _ := r.stored(); len(xml) != 0 {
		t.Error("a message was stored")
	}
}

func TestOnce(t *testing.T) {
	r := start(t, t.TempDir(), receiver.Options{Once: true})
	if f := r.deliver(adaptertest.NewDelivery()); f != nil {
		t.Fatal(f)
	}
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		t.Error("it did not end after its message")
	}
}

// From a shared secret to an ed25519 key while both run: the receiver ends with a
// public key alone, and with it forges nothing.
func TestRotatesToPublicKey(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, receiver.Options{})
	theirs := filepath.Join(dir, "keys", "secret")
	shared, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(dir, "ours")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	private := webhook.NewPrivateKey() + "\n"
	write(ours, private)
	public, err := webhook.PublicKeys(ours)
	if err != nil {
		t.Fatal(err)
	}
	r.point(ours)
	taken := 0
	for _, c := range []struct {
		name, ours, theirs string
		taken              bool
	}{
		{"shared", string(shared), string(shared), true},
		{"the router signs with both", string(shared) + private, string(shared), true},
		{"the receiver knows both", string(shared) + private, string(shared) + public[0].Text + "\n", true},
		{"the public key alone", private, public[0].Text, true},
		{"the old secret", string(shared), public[0].Text, false},
		{"another key", webhook.NewPrivateKey(), public[0].Text, false},
		{"the key itself, beside the router", private, private, true},
	} {
		write(ours, c.ours)
		write(theirs, c.theirs)
		f := r.deliver(adaptertest.NewDelivery([]byte("a")))
		if c.taken && f != nil || !c.taken && (f == nil || f.Reason != fault.ReasonUnauthorized) {
			t.Errorf("%s: %v", c.name, f)
		}
		if c.taken {
			taken++
		}
	}
	if xml, _ := r.stored(); len(xml) != taken {
		t.Errorf("%d messages are stored, %d were signed", len(xml), taken)
	}
}

// Nothing that is not signed, too old, too large or broken is stored.
func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, receiver.Options{MaxBody: 100_000})
	secret, err := os.ReadFile(filepath.Join(dir, "keys", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	wh, err := standardwebhooks.NewWebhook(strings.TrimSpace(string(secret)))
	if err != nil {
		t.Fatal(err)
	}
	const good = "<antrag/>"
	deep := strings.Repeat("<a>", 3000) + strings.Repeat("</a>", 3000)
	for _, c := range []struct {
		name, method, id, contentType, body string
		age                                 time.Duration
		forge                               bool
		want                                int
	}{
		{"good", "POST", "msg_1", "application/xml", good, 0, false, 204},
		{"get", "GET", "msg_2", "application/xml", "", 0, false, 405},
		{"forged", "POST", "msg_3", "application/xml", good, 0, true, 401},
		{"old", "POST", "msg_4", "application/xml", good, 10 * time.Minute, false, 401},
		{"from the future", "POST", "msg_5", "application/xml", good, -10 * time.Minute, false, 401},
		{"id that leads away", "POST", "../../x", "application/xml", good, 0, false, 400},
		{"hidden id", "POST", ".seen", "application/xml", good, 0, false, 400},
		{"too large", "POST", "msg_6", "application/xml", strings.Repeat("x", 100_001), 0, false, 413},
		{"JSON", "POST", "msg_7", "application/json", "{}", 0, false, 415},
		{"not XML", "POST", "msg_8", "application/xml", "Kanarienvogel", 0, false, 422},
		{"DOCTYPE", "POST", "msg_9", "application/xml", `<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>`, 0, false, 422},
		{"deep", "POST", "msg_10", "application/xml", deep, 0, false, 422},
		{"no parts", "POST", "msg_11", "multipart/form-data; boundary=x", "--x--\r\n", 0, false, 400},
		{"torn multipart", "POST", "msg_12", "multipart/form-data; boundary=x", "--x\r\n\r\n<a/>", 0, false, 400},
		{"wrong digest", "POST", "msg_13", "multipart/form-data; boundary=x", "--x\r\n\r\n<a/>\r\n--x\r\nContent-Disposition: form-data; name=\"attachment\"; filename=\"a\"\r\nContent-Digest: sha-512=:AAAA:\r\n\r\nb\r\n--x--\r\n", 0, false, 422},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := time.Now().Add(-c.age)
			sig, err := wh.Sign(c.id, at, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req := httptest.NewRequest(c.method, "http://"+r.addr+"/", strings.NewReader(c.body))
			req.RequestURI = ""
			req.Header.Set("Content-Type", c.contentType)
			req.Header.Set("webhook-id", c.id)
			req.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
			if c.forge {
				sig = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
			}
			req.Header.Set("webhook-signature", sig)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("the answer is %d, %d was expected", resp.StatusCode, c.want)
			}
		})
	}
	xml, files := r.stored()
	if len(xml) != 1 || len(files) != 0 {
		t.Errorf("%d messages and %d files are stored, only the good one should be", len(xml), len(files))
	}
	if left, _ := os.ReadDir(filepath.Join(r.dir, ".work")); len(left) != 0 {
		t.Errorf("%d temporary folders were left", len(left))
	}
	if strings.Contains(r.out.String(), "Kanarienvogel") {
		t.Error("payload was printed")
	}
}

// With the standards installed a message is checked against its own.
func TestValidates(t *testing.T) {
	std, ps := standard.Open(filepath.Join("..", "..", "config", "standards"))
	if ps.Failed() {
		t.Fatal(ps)
	}
	r := start(t, t.TempDir(), receiver.Options{Standards: std})
	d := adaptertest.NewDelivery()
	d.Format = submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag"}
	if f := r.deliver(d); f == nil || f.Class != fault.Permanent {
		t.Errorf("a message that breaks its schema gave %v", f)
	}
	examples, err := filepath.Glob(filepath.Join("..", "..", "config", "services", "*", "expected", "*.antrag_1.0_antrag.xml"))
	if err != nil {
		t.Fatal(err)
	}
	valid := 0
	for _, e := range examples {
		b, err := os.ReadFile(e)
		if err != nil {
			t.Fatal(err)
		}
		d := adaptertest.NewDelivery()
		d.Format, d.Message = submission.Format{Standard: "antrag", Version: "1.0", Message: "antrag"}, b
		if f := r.deliver(d); f != nil {
			t.Errorf("%s: %v", filepath.Base(e), f)
			continue
		}
		valid++
	}
	if valid == 0 {
		t.Error(fmt.Errorf("none of %d shipped examples is a message of the project's own format", len(examples)))
	}
	if strings.Count(r.out.String(), "checked=valid") != valid {
		t.Errorf("not every one was validated:\n%s", r.out.String())
	}
	missing := adaptertest.NewDelivery() // XBau is not installed here
	if f := r.deliver(missing); f != nil || !strings.Contains(r.out.String(), "checked=standard-missing") {
		t.Errorf("a standard that is not installed gave %v", f)
	}
}
