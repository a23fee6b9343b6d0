//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// plan is what the environment asks for.
type plan struct {
	name  string
	after int64 // the hit that counts, from 1
	sleep time.Duration
	trace *os.File
	hits  atomic.Int64
}

var asked = read(os.Getenv("WEICHE_FAILPOINT"), os.Getenv("WEICHE_FAILPOINT_TRACE"))

// read panics where the environment is malformed: a test whose point is never
// hit would prove nothing.
func read(point, trace string) *plan {
	p := &plan{after: 1}
	parts := strings.Split(point, ":")
	p.name = parts[0]
	var err error
	if len(parts) > 1 {
		if p.after, err = strconv.ParseInt(parts[1], 10, 64); err != nil || p.after < 1 {
			panic("WEICHE_FAILPOINT: not a count: " + point)
		}
	}
	if len(parts) > 2 {
		if p.sleep, err = time.ParseDuration(parts[2]); err != nil {
			panic("WEICHE_FAILPOINT: not a duration: " + point)
		}
	}
	if trace != "" {
		if p.trace, err = os.OpenFile(trace, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			panic(err)
		}
	}
	return p
}

// Hit marks a boundary: where the environment names it, the process ends here,
// or waits. It is safe for concurrent use.
func Hit(name string) {
	p := asked
	if p.trace != nil {
		_, _ = p.trace.WriteString(name + "\n") // one write, so that lines of goroutines do not mix
	}
	if name != p.name || p.hits.Add(1) != p.after {
		return
	}
	if p.sleep > 0 {
		time.Sleep(p.sleep)
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // nothing behind the boundary runs while the signal is on its way
}
