package http

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The specification's own example, and the official library in the other
// direction: what it signs we accept, changed in any way we do not.
func TestVerify(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("# old\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	sig, err := wh.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", now, body)
	if err != nil || sig != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Fatalf("the library signs the specification's example as %s (%v)", sig, err)
	}
	verify := func(id, ts, sig string, body []byte, at time.Time) error {
		h := http.Header{}
		h.Set(HeaderID, id)
		h.Set(HeaderTimestamp, ts)
		h.Set(HeaderSignature, sig)
		v, err := NewSecrets(file).Verify(h, at, 5*time.Minute)
		if err != nil {
			return err
		}
		_, _ = v.Write(body[:3])
		_, _ = v.Write(body[3:])
		return v.Check()
	}
	const id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	ts := strconv.FormatInt(now.Unix(), 10)
	for _, c := range []struct {
		name        string
		id, ts, sig string
		body        string
		at          time.Time
		want        error
	}{
		{"as signed", id, ts, sig, string(body), now, nil},
		{"several signatures", id, ts, "v1,AAAA v1a,xyz " + sig, string(body), now, nil},
		{"within tolerance", id, ts, sig, string(body), now.Add(5 * time.Minute), nil},
		{"other body", id, ts, sig, string(body) + " ", now, ErrSignature},
		{"other id", id + "x", ts, sig, string(body), now, ErrSignature},
		{"other time", id, ts[:9] + "1", sig, string(body), now, ErrSignature},
		{"too old", id, ts, sig, string(body), now.Add(301 * time.Second), ErrTimestamp},
		{"too new", id, ts, sig, string(body), now.Add(-301 * time.Second), ErrTimestamp},
		{"no time", id, "gestern", sig, string(body), now, ErrNoHeaders},
		{"no signature", id, ts, "", string(body), now, ErrNoHeaders},
		{"no id", "", ts, sig, string(body), now, ErrNoHeaders},
		{"other version", id, ts, "v2" + sig[2:], string(body), now, ErrSignature},
	} {
		if err := verify(c.id, c.ts, c.sig, []byte(c.body), c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v was expected", c.name, err, c.want)
		}
	}
}
