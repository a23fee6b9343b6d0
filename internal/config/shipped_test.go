package config_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weiche/internal/config"
	"weiche/internal/submission"
)

const shipped = "../../config"

func loadShipped(t *testing.T) *config.Config {
	t.Helper()
	cfg, problems := config.Load(shipped, nil)
	for _, p := range problems {
		t.Error(p.String())
	}
	if cfg == nil {
		t.Fatal("refused")
	}
	return cfg
}

// register reads a register of keys and names from beside the repository. In CI
// it must be there.
func register(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("../../../shared/registers", name))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the register is missing: %v", err)
		}
		t.Skipf("the register is missing: %v", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	rows, err := r.ReadAll()
	if err != nil || len(rows) < 100 {
		t.Fatalf("%s: %d rows, %v", name, len(rows), err)
	}
	out := map[string]string{}
	for _, row := range rows[1:] {
		out[strings.TrimPrefix(row[0], "\ufeff")] = row[1]
	}
	return out
}

func TestShipped(t *testing.T) {
	cfg := loadShipped(t)
	if len(cfg.Lands) != 2 || len(cfg.Broken) != 0 {
		t.Fatalf("Länder %v, broken %v", cfg.Lands, cfg.Broken)
	}
	bw, sn := cfg.Lands["08"], cfg.Lands["14"]
	const universal = "99012002012000"
	if !bw.Offers(universal) || sn.Offers(universal) {
		t.Error("the universal application is offered by one Land only")
	}
	for id, land := range map[string]submission.Land{"service-bw": "08", "amt24": "14"} {
		p := cfg.Portals[id]
		if p == nil || !p.Auth.ExampleKey || !p.Topic || !slices.Equal(p.Lands, []submission.Land{land}) || len(p.Auth.APIKeySHA256) != 0 {
			t.Errorf("portal %s: %+v", id, p)
		}
	}
	adapters := map[string]int{}
	for _, land := range cfg.Lands {
		for _, d := range land.Destinations {
			adapters[d.Adapter]++
		}
	}
	if adapters["file"] < 5 || adapters["kafka"] < 3 || adapters["http"] < 1 || len(adapters) != 3 {
		t.Errorf("destinations by adapter: %v", adapters)
	}
}

// What router.yaml says in its comments to be the defaults is what they are.
func TestShippedDefaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(shipped, "router.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	notDefaults := []string{"tls", "cert_file", "key_file", "sasl", "master_keys", "signing_key", "name", "token_sha256", "rights", "lands"}
	comment := regexp.MustCompile(`^( *)# (- )?([a-z_0-9]+): `)
	var out []string
	uncommented := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		if m := comment.FindStringSubmatch(line); m != nil && !slices.Contains(notDefaults, m[3]) && m[2] == "" {
			line = strings.Replace(line, "# ", "", 1)
			uncommented++
		}
		out = append(out, line)
	}
	cfg, lines := loaded(t, map[string]string{"router.yaml": strings.Join(out, "\n")})
	if len(lines) > 0 || uncommented < 25 {
		t.Fatalf("%d uncommented; %s", uncommented, strings.Join(lines, "\n"))
	}
	got, want := cfg.Router, config.Defaults()
	want.Kafka.Partitions, want.Kafka.ReplicationFactor, want.Kafka.MinInSyncReplicas = 8, 3, 2
	got.Kafka.Brokers, got.Kafka.AllowUnsafe = nil, nil
	if got.Intake != want.Intake || got.Delivery != want.Delivery || got.Status != want.Status || got.Seal.Dir != want.Seal.Dir || got.Blobs != want.Blobs || got.Log != want.Log || got.Drain != want.Drain ||
		got.Data != want.Data || got.Listen != want.Listen || got.Ops != want.Ops ||
		got.Kafka.Partitions != 8 || got.Kafka.ReplicationFactor != 3 || got.Kafka.MinInSyncReplicas != 2 || got.Kafka.MaxRecordBytes != want.Kafka.MaxRecordBytes {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Every region of the shipped Länder is one of Germany's at the register's day,
// and its comment names it as the register does.
func TestShippedRegions(t *testing.T) {
	cfg := loadShipped(t)
	places, districts := register(t, "rs_2026-06-30.csv"), register(t, "kreis_2026-01-31.csv")
	associations := map[string]bool{}
	for ars := range places {
		associations[ars[:9]] = true
	}
	exists := func(r submission.Region) bool {
		switch len(r) {
		case 12:
			return places[string(r)] != ""
		case 9:
			return associations[string(r)]
		case 5:
			return districts[string(r)] != ""
		case 2:
			return true // the Land itself
		}
		return false
	}
	named := map[submission.Region]bool{}
	for _, land := range cfg.Lands {
		text, err := os.ReadFile(filepath.Join(land.Dir, "rules.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for _, r := range land.Rules {
			named[r.Region] = true
			if !exists(r.Region) {
				t.Errorf("%s: region %s is in no register", r.Pos, r.Region)
			}
			_, comment, _ := strings.Cut(lines[r.Pos.Line-1], "# ")
			official := places[string(r.Region)] + districts[string(r.Region)]
			if len(r.Region) >= 5 && len(r.Region) != 9 && !strings.HasPrefix(official, comment) || comment == "" {
				t.Errorf("%s: region %s is %q, not %q", r.Pos, r.Region, official, comment)
			}
			if len(r.Region) == 9 {
				for name := range strings.SplitSeq(comment, ", ") {
					if !memberOf(places, string(r.Region), name) {
						t.Errorf("%s: %s does not belong to %s", r.Pos, name, r.Region)
					}
				}
			}
		}
		for _, a := range land.Authorities {
			if !exists(a.Region) {
				t.Errorf("%s: region %s is in no register", a.Pos, a.Region)
			}
			// A building authority's key is its municipality's AGS or its
			// district's key.
			key := a.Key.Key()
			if a.Key.Prefix() == "bab" {
				ok := len(key) == 5 && districts[key] != ""
				for ars := range places {
					ok = ok || ars[:5]+ars[9:] == key
				}
				if !ok {
					t.Errorf("%s: no municipality or district has the key %s", a.Pos, key)
				}
			}
		}
	}
	if len(named) < 40 {
		t.Errorf("%d regions; forty are promised", len(named))
	}
}

func memberOf(places map[string]string, association, name string) bool {
	for ars, official := range places {
		if strings.HasPrefix(ars, association) && strings.HasPrefix(official, name) {
			return true
		}
	}
	return false
}

// Every prefix of an authority's key is one that the DVDV knows, and every
// service is one that the LeiKa knows.
func TestShippedKeys(t *testing.T) {
	cfg := loadShipped(t)
	prefixes, services := register(t, "dvdv.praefix_51.csv"), register(t, "leika_2019.csv")
	for _, land := range cfg.Lands {
		for _, a := range land.Authorities {
			if prefixes[a.Key.Prefix()] == "" {
				t.Errorf("%s: the DVDV has no prefix %s", a.Pos, a.Key.Prefix())
			}
		}
		for _, o := range land.Services {
			if services[string(o.Service)] == "" {
				t.Errorf("%s: the LeiKa has no service %s", o.Pos, o.Service)
			}
		}
		for _, p := range land.Portals {
			if prefixes[p.Key.Prefix()] == "" {
				t.Errorf("%s: the DVDV has no prefix %s", p.Pos, p.Key.Prefix())
			}
		}
	}
}
