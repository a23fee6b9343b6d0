package bus

import (
	"testing"
	"time"
)

// What was measured long ago says nothing about now.
func TestPaceForgets(t *testing.T) {
	var p pace
	at := time.Unix(1_800_000_000, 0)
	if got := p.mean(at); got != 0 {
		t.Errorf("%s before anything was measured", got)
	}
	for range 200 {
		p.took(time.Second, at)
	}
	if got := p.mean(at); got < 900*time.Millisecond || got > time.Second {
		t.Errorf("a second each, and the mean is %s", got)
	}
	if got := p.mean(at.Add(paceFor + 1)); got != 0 {
		t.Errorf("%s after %s without a measurement", got, paceFor)
	}
	p.took(time.Millisecond, at.Add(time.Hour))
	if got := p.mean(at.Add(time.Hour)); got != time.Millisecond {
		t.Errorf("the first after an hour took a millisecond, and the mean is %s", got)
	}
}
