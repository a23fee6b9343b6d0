package bus

import (
	"context"
	"errors"
	"testing"
)

// A client that is connected after its caller gave up is closed: nobody else knows
// of it.
func TestLateClientIsDropped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	goOn, dropped := make(chan struct{}), make(chan int, 1)
	late := func() (int, error) { <-goOn; return 7, nil }
	cancel()
	if v, err := tryOr(ctx, late, func(v int) { dropped <- v }); !errors.Is(err, context.Canceled) || v != 0 {
		t.Fatalf("given up: %d, %v", v, err)
	}
	close(goOn)
	if v := <-dropped; v != 7 {
		t.Errorf("%d was dropped", v)
	}
	if v, err := tryOr(t.Context(), late, func(int) { t.Error("what was taken was dropped") }); err != nil || v != 7 {
		t.Errorf("in time: %d, %v", v, err)
	}
}
