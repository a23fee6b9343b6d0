package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// landscape is a configuration made for measuring: Länder with their real
// municipalities as rules, and a few destinations.
type landscape struct {
	dir     string
	regions []string            // of submissions, every Land in turn
	towns   map[string][]string // of each Land, in the order of its rules
}

// plan says what a landscape has.
type plan struct {
	rules        int // over all Länder
	destinations []destination
}

type destination struct {
	adapter  string // kafka or http
	settings string // in YAML's flow style
}

// The eight Länder with the most municipalities. With 2,500 rules each they hold
// the 20,000; the destinations are spread over them.
var lands = []struct{ key, name string }{
	{"07", "Rheinland-Pfalz"}, {"09", "Bayern"}, {"08", "Baden-Württemberg"}, {"01", "Schleswig-Holstein"},
	{"03", "Niedersachsen"}, {"13", "Mecklenburg-Vorpommern"}, {"16", "Thüringen"}, {"06", "Hessen"},
}

var folder = strings.NewReplacer("ü", "ue")

const portal = "bench"

// newLandscape writes the configuration to dir. repo is the repository's root.
func newLandscape(dir, repo string, p plan) (*landscape, error) {
	l := &landscape{dir: dir}
	for _, part := range []string{"services/universeller-antrag", "services/fragments", "standards"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(repo, "config", part))); err != nil {
			return nil, err
		}
	}
	towns, err := municipalities(filepath.Join(repo, "..", "shared", "registers", "rs_2026-06-30.csv"))
	if err != nil {
		return nil, err
	}
	l.towns = towns
	services, err := otherServices(filepath.Join(repo, "..", "shared", "registers", "leika_2019.csv"), 40)
	if err != nil {
		return nil, err
	}
	byLand := make([][]string, len(lands))
	for i, land := range lands {
		mine := every(p.destinations, i, len(lands))
		regions, err := writeLand(filepath.Join(dir, "lands", land.key+"-"+folder.Replace(strings.ToLower(land.name))), land.key, land.name, i == 0, towns[land.key], services, p.rules/len(lands), mine)
		if err != nil {
			return nil, err
		}
		byLand[i] = regions
	}
	for n := 0; len(l.regions) < 4096; n++ {
		land := byLand[n%len(lands)]
		if len(land) > 0 {
			l.regions = append(l.regions, land[(n/len(lands))%len(land)])
		}
	}
	if err := writeFile(filepath.Join(dir, regionsFile), strings.Join(l.regions, "\n")); err != nil {
		return nil, err
	}
	return l, writeFile(filepath.Join(dir, "router.yaml"), `kafka:
  replication_factor: 1
  min_insync_replicas: 1
  allow_unsafe: [replication-factor, min-insync-replicas, unclean-election]
intake: {concurrent: 1024}
delivery: {in_flight: 64}
log: {level: error}
drain: 5s
`)
}

// regionsFile tells the process that fills the topics where submissions go.
const regionsFile = "regions.txt"

func readRegions(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, regionsFile))
	return strings.Fields(string(b)), err
}

// every returns the elements i, i+step, i+2·step …
func every[T any](list []T, i, step int) (out []T) {
	for ; i < len(list); i += step {
		out = append(out, list[i])
	}
	return out
}

// region returns the region of the n-th submission.
func (l *landscape) region(n int) string { return l.regions[n%len(l.regions)] }

func writeLand(dir, key, name string, home bool, towns, services []string, rules int, dests []destination) (regions []string, err error) {
	var authorities, rule, dest, offers strings.Builder
	fmt.Fprintf(&offers, "  - {service: \"%s\", process: universeller-antrag}\n", service)
	for k := range (rules - 1) / len(towns) {
		fmt.Fprintf(&offers, "  - {service: \"%s\"}\n", services[k])
	}
	for n := 0; n < rules; n++ {
		town := towns[n%len(towns)]
		// The first rule of a town is the one that is asked for; the others are
		// for other services, so that the table is as full as a Land's.
		s := service
		if k := n / len(towns); k > 0 {
			s = services[k-1]
		} else {
			regions = append(regions, town)
			to := "[]"
			if len(dests) > 0 {
				to = fmt.Sprintf("[fv-%d]", n%len(dests))
			}
			fmt.Fprintf(&authorities, "  - {id: amt-%s, key: \"bab:%s\", name: Bauamt %s, region: \"%s\", destinations: {\"*\": %s}}\n", town, ags(town), town, town, to)
		}
		fmt.Fprintf(&rule, "  - {services: [\"%s\"], region: \"%s\", authority: amt-%s}\n", s, town, town)
	}
	for i, d := range dests {
		fmt.Fprintf(&dest, "  - id: fv-%d\n    adapter: %s\n    settings: %s\n    formats: [xbau-kernmodul/1.3.0/universellerAntrag.antrag.1200]\n", i, d.adapter, d.settings)
	}
	portals := "portals: []\n"
	if home {
		var keys []string
		for _, l := range lands {
			keys = append(keys, `"`+l.key+`"`)
		}
		portals = fmt.Sprintf("portals:\n  - id: %s\n    name: Bench\n    key: bap:%s0000000001\n    lands: [%s]\n    auth: {example_key: true}\n", portal, key, strings.Join(keys, ", "))
	}
	list := func(name string, b *strings.Builder) string {
		if b.Len() == 0 {
			return name + ": []\n"
		}
		return name + ":\n" + b.String()
	}
	return regions, errors.Join(
		writeFile(filepath.Join(dir, "land.yaml"), fmt.Sprintf("land: \"%s\"\nname: %s\nservices:\n%s", key, name, &offers)),
		writeFile(filepath.Join(dir, "authorities.yaml"), list("authorities", &authorities)),
		writeFile(filepath.Join(dir, "rules.yaml"), list("rules", &rule)),
		writeFile(filepath.Join(dir, "destinations.yaml"), list("destinations", &dest)),
		writeFile(filepath.Join(dir, "portals.yaml"), portals),
	)
}

// ags is the municipality's key without its Verband.
func ags(ars string) string { return ars[:5] + ars[9:] }

// municipalities reads the register of regions: the twelve digits of every
// municipality, by Land, in the register's order.
func municipalities(file string) (map[string][]string, error) {
	rows, err := readCSV(file)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, r := range rows {
		if len(r) > 0 && len(r[0]) == 12 {
			out[r[0][:2]] = append(out[r[0][:2]], r[0])
		}
	}
	for _, l := range lands {
		if len(out[l.key]) < 100 {
			return nil, fmt.Errorf("%s: too few municipalities of Land %s", file, l.key)
		}
	}
	return out, nil
}

// otherServices reads real keys of services, without the one that is measured.
func otherServices(file string, n int) ([]string, error) {
	rows, err := readCSV(file)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{service: true}
	var out []string
	for _, r := range rows {
		for _, cell := range r {
			if len(cell) == 14 && strings.Trim(cell, "0123456789") == "" && !seen[cell] {
				seen[cell] = true
				out = append(out, cell)
			}
		}
	}
	sort.Strings(out)
	if len(out) < n {
		return nil, fmt.Errorf("%s: only %d services", file, len(out))
	}
	return out[:n], nil
}

func readCSV(file string) ([][]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the registers and standards lie beside the repository, in ../shared: %w", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord, r.LazyQuotes = -1, true
	var rows [][]string
	for {
		row, err := r.Read()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		rows = append(rows, row)
	}
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
