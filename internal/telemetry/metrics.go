package telemetry

import (
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Build says what runs.
type Build struct {
	Version  string // a release, or "devel"
	Revision string // of the source, "+dirty" behind it where it was changed; or "unknown"
	Go       string
}

// version is set by the linker for releases:
// -ldflags "-X weiche/internal/telemetry.version=1.2.3".
var version = ""

// ReadBuild returns what the linker and the Go toolchain noted in the binary.
func ReadBuild() Build {
	b := Build{Version: version, Revision: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok {
		if b.Version == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
		dirty := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				b.Revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+dirty"
			}
		}
		b.Revision += dirty
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

// NewRegistry returns a registry with the collectors of the Go runtime and the
// process, and weiche_build_info (always 1).
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	b := ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weiche_build_info", Help: "What runs: always 1, the labels tell.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	info.Set(1)
	reg.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// MetricsHandler serves what reg gathers, in the formats Prometheus asks for.
// It also counts its own requests and errors in reg.
func MetricsHandler(reg *prometheus.Registry) http.Handler {
	return promhttp.InstrumentMetricHandler(reg, promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry: reg, EnableOpenMetrics: true, MaxRequestsInFlight: 4,
	}))
}
