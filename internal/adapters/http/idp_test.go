package http_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weiche/internal/adapters/adaptertest"
	"weiche/internal/fault"
)

// A token endpoint that others wrote (no.nav.security:mock-oauth2-server, on the
// Nimbus OAuth 2.0 SDK): what it understands and answers is not what this
// package's own issuer was made for.
func TestForeignTokenEndpoint(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Java process")
	}
	idp := startIDP(t)
	var token atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token.Store(r.Header.Get("Authorization"))
		taken(w, r)
	}))
	defer srv.Close()
	deps := prepare(t, nil)
	writeSecret(t, filepath.Join(deps.DataDir, "client"), "geheim: ä+%")
	settings := "url: " + srv.URL + "\nsecret_file: secret\nallow_networks: [loopback]\ntoken_url: " + idp + "/default/token\nclient_id: 'weiche:08'\nclient_secret_file: client\nscope: xoev.write\n"
	for _, auth := range []string{"basic", "post"} {
		if err := open(t, deps, "%s", settings+"client_auth: "+auth).Deliver(t.Context(), adaptertest.NewDelivery()); err != nil {
			t.Fatalf("%s: %v", auth, err)
		}
		// The claims say whom it took us for.
		parts := strings.Split(strings.TrimPrefix(fmt.Sprint(token.Load()), "Bearer "), ".")
		if len(parts) != 3 {
			t.Fatalf("%s: the token is no JWT", auth)
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		var claims struct{ Sub string }
		if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Sub != "weiche:08" {
			t.Errorf("%s: the token is for %q (%v)", auth, claims.Sub, err)
		}
	}
	// Another path is no token endpoint.
	a := open(t, deps, "%s", strings.Replace(settings, "/default/token", "/nowhere", 1))
	if f := fault.Of(a.Deliver(t.Context(), adaptertest.NewDelivery())); f == nil || f.Class != fault.Destination || f.Reason != fault.ReasonMisconfigured {
		t.Errorf("a wrong path: %v", f)
	}
}

// startIDP runs the server until the test ends and returns its address.
func startIDP(t *testing.T) string {
	t.Helper()
	lib := idpJars(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	var out bytes.Buffer
	cmd := exec.Command(adaptertest.Program(t, "java"), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(lib, "*"), "no.nav.security.mock.oauth2.StandaloneMockOAuth2ServerKt")
	cmd.Env = append(os.Environ(), "SERVER_HOSTNAME=127.0.0.1", fmt.Sprintf("SERVER_PORT=%d", port))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address := fmt.Sprintf("http://127.0.0.1:%d", port)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(address + "/isalive")
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return address
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	t.Fatalf("the token endpoint does not come up:\n%s", out.String())
	return ""
}

// idpJars fetches the server from Maven Central, once; whoever asks at the same
// time fetches aside, and the first rename wins.
func idpJars(t *testing.T) string {
	t.Helper()
	const version = "2.1.10"
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(cache, "weiche-idp")
	lib := filepath.Join(root, "lib-"+version)
	present := func() bool {
		_, err := os.Stat(filepath.Join(lib, "mock-oauth2-server-"+version+".jar"))
		return err == nil
	}
	if present() {
		return lib
	}
	mvn := adaptertest.Program(t, "mvn")
	if err := os.MkdirAll(root, 0o750); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(root, "fetch-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	pom := `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>weiche</groupId><artifactId>idp-jars</artifactId><version>1</version><dependencies>
<dependency><groupId>no.nav.security</groupId><artifactId>mock-oauth2-server</artifactId><version>` + version + `</version></dependency>
</dependencies></project>`
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(mvn, "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(work, "lib"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mvn: %v\n%s", err, out)
	}
	if err := os.Rename(filepath.Join(work, "lib"), lib); err != nil && !present() {
		t.Fatal(err)
	}
	return lib
}
