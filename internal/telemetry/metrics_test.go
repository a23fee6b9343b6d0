package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weiche/internal/telemetry"
)

func TestMetricsAreServed(t *testing.T) {
	reg := telemetry.NewRegistry()
	srv := httptest.NewServer(telemetry.MetricsHandler(reg))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	for _, want := range []string{"go_goroutines ", "process_open_fds ", `weiche_build_info{goversion="` + runtime.Version() + `"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if problems, err := testutil.GatherAndLint(reg, "weiche_build_info"); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if b := telemetry.ReadBuild(); b.Version == "" || b.Revision == "" || b.Go == "" {
		t.Errorf("build %+v", b)
	}
}
