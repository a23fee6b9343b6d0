package config_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weiche/internal/config"
)

// sound is a small configuration without a fault.
var sound = map[string]string{
	"router.yaml": "listen: 127.0.0.1:0\n",
	"lands/08-bw/land.yaml": `land: 08
name: Baden-Württemberg
services:
  - service: "99012008001000"
  - service: urn:de:fim:leika:leistung:99050012104000
    process: gewerbe
`,
	"lands/08-bw/authorities.yaml": `authorities:
  - id: kreis
    key: bab:08115
    name: Landratsamt Böblingen
    destinations: {"*": [kreis]}
  - id: stadt
    key: bab:08115003
    name: Stadt Böblingen
    region: 081150003003
    destinations:
      99012008001000: [stadt]
      "*": [kreis]
`,
	"lands/08-bw/destinations.yaml": `destinations:
  - id: kreis
    adapter: file
    settings: {directory: kreis}
    formats: [antrag/1.0/antrag]
  - id: stadt
    adapter: kafka
    settings:
      topic: fv.stadt
    formats:
      - xbau/2.6/baugenehmigung.antrag.0200
      - antrag/1.0/antrag
    policy: {timeout: 10s, in_flight: 2}
`,
	"lands/08-bw/rules.yaml": `rules:
  - services: ["*"]
    region: 08115
    authority: kreis
  - services: [99012008001000]
    region: 081150003003
    authority: stadt
    until: 2026-12-31
  - services: [99012008001000]
    region: 081150003003
    authority: kreis
    from: 2027-01-01
`,
	"lands/08-bw/portals.yaml": `portals:
  - id: service-bw
    name: Serviceportal
    key: bap:080000000001
    lands: [08, 14]
    auth:
      example_key: true
`,
	"lands/14-sachsen/land.yaml": `land: 14
name: Sachsen
services: [{service: "99012008001000"}]
`,
}

func write(t *testing.T, overlay map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := maps.Clone(sound)
	maps.Copy(files, overlay)
	for name, text := range files {
		if text == "" {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loaded loads and returns the problems as they would be printed, without the
// test's directory.
func loaded(t *testing.T, overlay map[string]string, environ ...string) (*config.Config, []string) {
	t.Helper()
	dir := write(t, overlay)
	cfg, problems := config.Load(dir, environ)
	var lines []string
	for _, p := range problems {
		lines = append(lines, strings.ReplaceAll(p.String(), dir+"/", ""))
	}
	return cfg, lines
}

func TestSound(t *testing.T) {
	cfg, lines := loaded(t, nil)
	if len(lines) > 0 {
		t.Fatal(strings.Join(lines, "\n"))
	}
	land := cfg.Lands["08"]
	stadt, kreis := land.Destination("stadt"), land.Destination("kreis")
	if got := stadt.Policy; got.Timeout.String() != "10s" || got.InFlight != 2 || got.GiveUp != cfg.Router.Delivery.GiveUp || got.Factor != 2 {
		t.Errorf("a destination's policy is the router's where it is silent: %+v", got)
	}
	if kreis.Policy != cfg.Router.Delivery {
		t.Errorf("policy: %+v", kreis.Policy)
	}
	if kreis.Name != "kreis" || stadt.Formats[0].Version != "2.6" || land.Services[1].Service != "99050012104000" {
		t.Errorf("%+v %+v %+v", kreis, stadt, land.Services)
	}
	if r := land.Rules[1]; r.Region != "081150003003" || r.Until.String() != "2026-12-31" || !strings.HasSuffix(r.Pos.FileLine(), "lands/08-bw/rules.yaml:5") {
		t.Errorf("rule: %+v", r)
	}
	if p := cfg.Portals["service-bw"]; p.Home != "08" || !p.Auth.ExampleKey || len(p.Lands) != 2 {
		t.Errorf("portal: %+v", p)
	}
	if k := cfg.Router.Kafka; k.Partitions != 4 || k.ReplicationFactor != 1 || k.MinInSyncReplicas != 1 {
		t.Errorf("embedded defaults: %+v", k)
	}
}

func TestHash(t *testing.T) {
	hash := func(overlay map[string]string) string {
		cfg, lines := loaded(t, overlay)
		if len(lines) > 0 {
			t.Fatal(strings.Join(lines, "\n"))
		}
		return cfg.Lands["08"].Hash
	}
	first := hash(nil)
	if len(first) != 64 || first != hash(nil) {
		t.Errorf("the hash of the same files is the same: %s", first)
	}
	if first == hash(map[string]string{"lands/08-bw/rules.yaml": sound["lands/08-bw/rules.yaml"] + "# one more\n"}) {
		t.Error("another file has another hash")
	}
	if first != hash(map[string]string{"lands/08-bw/routes_test.yaml": "cases: []\n", "lands/14-sachsen/land.yaml": sound["lands/14-sachsen/land.yaml"] + "#\n"}) {
		t.Error("tests and other Länder do not count")
	}
}

// Every fault, as a person reads it.
func TestFaults(t *testing.T) {
	tests := []struct {
		name    string
		overlay map[string]string
		environ []string
		want    []string // the lines printed
		broken  string   // Länder refused, "router" for the whole, "" for none
	}{
		{
			name: "unknown, repeated and misshapen fields of router.yaml, all at once",
			overlay: map[string]string{"router.yaml": `lissen: 127.0.0.1:8080
kafka:
  brokers: kafka:9092
  partitions: many
intake: [1, 2]
intake:
  body_bytes: 20 apples
  read_timeout: 60
allow_plain_public: yes
ops:
`},
			want: []string{
				`router.yaml:1:1: unknown field "lissen"; is "listen" meant?`,
				`router.yaml:3:12: brokers: a list is expected, not the value "kafka:9092"`,
				`router.yaml:4:15: partitions: a whole number is expected, not "many"`,
				`router.yaml:5:9: intake: a mapping (name: value) is expected, not a list`,
				`router.yaml:6:1: "intake" stands here for the second time, first in line 5`,
				`router.yaml:9:21: allow_plain_public: true or false is expected, not "yes"`,
				`router.yaml:10:5: ops has no value`,
			},
			broken: "router",
		},
		{
			name: "sizes, durations and limits",
			overlay: map[string]string{"router.yaml": `intake:
  body_bytes: 20 apples
  read_timeout: 60
  request_timeout: 1h
`},
			want: []string{
				`router.yaml:2:15: body_bytes: "20 apples" is not a size: a number of bytes is expected, alone or with KB, MB or GB`,
				`router.yaml:3:17: read_timeout: "60" is not a duration: a number with its unit is expected, as in 90s, 15m or 168h`,
			},
			broken: "router",
		},
		{
			name: "values that make no sense",
			overlay: map[string]string{"router.yaml": `listen: 0.0.0.0:8080
ops: nowhere
tls: {cert_file: a.pem}
kafka:
  brokers: ["kafka-1:9092", "kafka-2"]
  partitions: -1
  replication_factor: 1
  min_insync_replicas: 2
  allow_unsafe: [unclean-elections]
  sasl: {mechanism: GSSAPI}
intake: {depth: 0, body_bytes: 0}
delivery: {initial: 10s, max: 5s, factor: 0.5, jitter: 2, in_flight: 0}
log: {level: loud}
drain: -1s
seal: {dir: ""}
operators:
  - {name: local, token_sha256: abc, rights: [fly]}
`},
			want: []string{
				`router.yaml:2:6: ops: "nowhere" is not an address: host:port is expected, as in 127.0.0.1:8080`,
				`router.yaml:3:6: tls needs cert_file and key_file`,
				`router.yaml:5:29: brokers: "kafka-2" is not an address: host:port is expected, as in 127.0.0.1:8080`,
				`router.yaml:6:15: partitions is -1; it must be above 0`,
				`router.yaml:8:24: min_insync_replicas is 2, more than the 1 replicas there are`,
				`router.yaml:9:18: "unclean-elections" is not something that can be allowed; these are: replication-factor, min-insync-replicas, unclean-election; is "unclean-election" meant?`,
				`router.yaml:10:9: sasl needs username and password_file`,
				`router.yaml:10:9: warning: sasl without tls: the password travels where others can read it`,
				`router.yaml:10:21: mechanism "GSSAPI" is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER`,
				`router.yaml:11:17: depth is 0; it must be above 0`,
				`router.yaml:11:32: body_bytes is 0; it must be above 0`,
				`router.yaml:12:31: max is 5s, shorter than initial, 10s`,
				`router.yaml:12:43: factor is 0.5; it must be at least 1`,
				`router.yaml:12:56: jitter is 2; it must lie between 0 and 1`,
				`router.yaml:12:70: in_flight is 0; it must be above 0`,
				`router.yaml:13:14: level "loud" is not one of debug, info, warn, error`,
				`router.yaml:14:8: drain is -1s; it must be above 0`,
				`router.yaml:15:13: seal: dir is empty: a directory below the data directory is named here`,
				`router.yaml:17:12: the operator local is made by the router; choose another name`,
				`router.yaml:17:33: operator "local": token_sha256 is the token's SHA-256, 64 hex digits; never the token itself`,
				`router.yaml:17:47: right "fly" is not one of view, operate, payload`,
			},
			broken: "router",
		},
		{
			name: "a token from nowhere, or from two places",
			overlay: map[string]string{"router.yaml": `kafka:
  brokers: ["kafka-1:9092"]
  tls: {}
  sasl:
    mechanism: OAUTHBEARER
    username: weiche
    token_file: secrets/token
    client_id: weiche
    extensions: {auth: x}
`},
			want: []string{
				`router.yaml:6:15: username does not go with OAUTHBEARER: the token says who the router is`,
				`router.yaml:8:16: client_id belongs to token_url; the token is taken from token_file as it stands`,
				`router.yaml:9:17: extensions: "auth": a name of letters other than auth, and a printable value, are expected`,
			},
			broken: "router",
		},
		{
			name: "a token endpoint in the open",
			overlay: map[string]string{"router.yaml": `kafka:
  brokers: ["kafka-1:9092"]
  tls: {}
  sasl: {mechanism: OAUTHBEARER, token_url: "http://login.example/token"}
`},
			want: []string{
				`router.yaml:4:45: token_url is no https:// address, without user and password: the client's secret travels there`,
				`router.yaml:4:45: token_url needs client_id and client_secret_file`,
			},
			broken: "router",
		},
		{
			name: "a token for a mechanism that takes none",
			overlay: map[string]string{"router.yaml": `kafka:
  brokers: ["kafka-1:9092"]
  tls: {}
  sasl: {mechanism: PLAIN, username: weiche, password_file: secrets/kafka, token_file: t}
`},
			want:   []string{`router.yaml:4:88: token_file belongs to mechanism OAUTHBEARER`},
			broken: "router",
		},
		{
			name:    "no token at all",
			overlay: map[string]string{"router.yaml": "kafka:\n  brokers: [\"k:1\"]\n  tls: {}\n  sasl: {mechanism: OAUTHBEARER}\n"},
			want:    []string{`router.yaml:4:9: OAUTHBEARER needs token_file, or token_url with client_id and client_secret_file`},
			broken:  "router",
		},
		{
			name: "a token endpoint",
			overlay: map[string]string{"router.yaml": `kafka:
  brokers: ["kafka-1:9092"]
  tls: {ca_file: tls/ca.pem}
  sasl: {mechanism: OAUTHBEARER, token_url: "https://login.example/token", client_id: weiche, client_secret_file: s, scope: kafka, extensions: {logicalCluster: lkc-1}}
`},
		},
		{
			name:    "plain HTTP for others",
			overlay: map[string]string{"router.yaml": "listen: \":8080\"\n"},
			want:    []string{`router.yaml:1:9: listen is :8080, which others can reach, and there is no tls: applications would travel in plain text; set tls, or allow_plain_public: true where a proxy before the router ends TLS`},
			broken:  "router",
		},
		{name: "plain HTTP for others, allowed", overlay: map[string]string{"router.yaml": "listen: \":8080\"\nallow_plain_public: true\n"}},
		{name: "TLS for others", overlay: map[string]string{"router.yaml": "listen: \":8080\"\ntls: {cert_file: a, key_file: b}\n"}},
		{name: "an empty router.yaml", overlay: map[string]string{"router.yaml": "# nothing\n"}},
		{
			name:    "no router.yaml",
			overlay: map[string]string{"router.yaml": ""},
			want:    []string{`router.yaml: the file is missing; an empty one is enough, every setting has a default`},
			broken:  "router",
		},
		{
			name:    "records larger than the topics take",
			overlay: map[string]string{"router.yaml": "kafka: {max_record_bytes: 1MB}\n"},
			want:    []string{`router.yaml:1:27: max_record_bytes is 1MB; intake records of 16MB and what is added to them need 16896KB`},
			broken:  "router",
		},
		{
			name:    "an alias, a merge key, two documents",
			overlay: map[string]string{"router.yaml": "log: &l {level: info}\nstatus: *l\n", "lands/14-sachsen/land.yaml": "land: 14\n---\nname: Sachsen\n", "lands/14-sachsen/rules.yaml": "rules: [{<<: {region: 14}}]\n"},
			want: []string{
				`router.yaml:2:9: status: an alias (*l) stands here; write the value out`,
				`lands/08-bw/portals.yaml:5:17: warning: portal "service-bw" sends for Land 14, whose configuration is refused at the moment`,
				`lands/14-sachsen/land.yaml:2:1: a second document begins here; one file holds one document`,
				`lands/14-sachsen/rules.yaml:1:9: the rule names no authority`,
				`lands/14-sachsen/rules.yaml:1:9: the rule names no region: an ARS of 2, 3, 5, 9 or 12 digits`,
				`lands/14-sachsen/rules.yaml:1:9: the rule names no service: services lists LeiKa keys, or "*" for every service`,
				`lands/14-sachsen/rules.yaml:1:10: a merge key (<<) stands here; write the fields out`,
			},
			broken: "router",
		},
		{
			name:    "no YAML: the Land alone is refused, and its portals with it only where theirs is the file",
			overlay: map[string]string{"lands/08-bw/rules.yaml": "rules: [\n"},
			want:    []string{`lands/08-bw/rules.yaml:1: is not YAML: did not find expected node content`},
			broken:  "08",
		},
		{
			name: "land.yaml",
			overlay: map[string]string{"lands/14-sachsen/land.yaml": `land: 08
services:
  - {service: "99012008001000"}
  - {service: "99012008001000"}
  - {service: "*"}
  - {service: 9901200800100}
  - {process: Bauen}
`},
			want: []string{
				`lands/08-bw/portals.yaml:5:17: warning: portal "service-bw" sends for Land 14, whose configuration is refused at the moment`,
				`lands/14-sachsen/land.yaml:1:1: name is missing: the Land's name`,
				`lands/14-sachsen/land.yaml:1:7: land is 08, but the folder's name begins with 14`,
				`lands/14-sachsen/land.yaml:4:15: service 99012008001000 stands here for the second time, first in line 3`,
				`lands/14-sachsen/land.yaml:5:15: a Land offers services by name; * is not one`,
				`lands/14-sachsen/land.yaml:6:15: service: "9901200800100" is not a LeiKa key: 14 digits beginning with 99 are expected, bare or behind urn:de:fim:leika:leistung:`,
				`lands/14-sachsen/land.yaml:7:5: service is missing: the LeiKa key of 14 digits`,
				`lands/14-sachsen/land.yaml:7:15: process "Bauen": small letters and digits are expected, joined by -, _ or .`,
			},
			broken: "14",
		},
		{
			name:    "a Land without land.yaml",
			overlay: map[string]string{"lands/01-schleswig-holstein/rules.yaml": "rules: []\n"},
			want:    []string{`lands/01-schleswig-holstein/land.yaml: the file is missing: it says which Land this is and what it offers`},
			broken:  "01",
		},
		{
			name: "folders and files nobody reads",
			overlay: map[string]string{
				"lands/17-ausland/land.yaml": "land: 17\n", "lands/Sachsen/land.yaml": "land: 14\n", "lands/.git/x.yaml": "x\n",
				"lands/14-sachsen/rule.yaml": "rules: []\n", "lands/14-sachsen/README.md": "x\n",
			},
			want: []string{
				`lands/17-ausland: this folder is not read: its name must be the Land's key and name in small letters, such as 08-baden-wuerttemberg`,
				`lands/Sachsen: this folder is not read: its name must be the Land's key and name in small letters, such as 08-baden-wuerttemberg`,
				`lands/08-bw/portals.yaml:5:17: warning: portal "service-bw" sends for Land 14, whose configuration is refused at the moment`,
				`lands/14-sachsen/rule.yaml: this file is not read; a Land's files are authorities.yaml, destinations.yaml, land.yaml, portals.yaml, rules.yaml; is "rules.yaml" meant?`,
			},
			broken: "14",
		},
		{
			name:    "two folders of one Land",
			overlay: map[string]string{"lands/14-saxony/land.yaml": sound["lands/14-sachsen/land.yaml"]},
			want: []string{
				`lands/08-bw/portals.yaml:5:17: warning: portal "service-bw" sends for Land 14, whose configuration is refused at the moment`,
				`lands/14-sachsen: Land 14 has two folders; the other is lands/14-saxony`,
				`lands/14-saxony: Land 14 has two folders; the other is lands/14-sachsen`,
			},
			broken: "14",
		},
		{
			name: "authorities",
			overlay: map[string]string{"lands/08-bw/authorities.yaml": `authorities:
  - id: kreis
    key: BAB-08115
    name: Landratsamt
    destinations: {"*": [kreiss]}
  - id: kreis
    name: " "
    region: 14625
  - id: stadt
    key: bab:08115003
    name: Stadt
    destinations:
      99041006017000: [kreis]
      "*": [kreis, kreis]
`},
			want: []string{
				`lands/08-bw/authorities.yaml:3:10: key: "BAB-08115" is not a DVDV authority key: two or three small letters, a colon and up to 16 letters or digits are expected, as in bab:08115003`,
				`lands/08-bw/authorities.yaml:5:26: there is no destination "kreiss" in destinations.yaml; is "kreis" meant?`,
				`lands/08-bw/authorities.yaml:6:5: authority "kreis" has no key: its DVDV key, such as bab:08115003`,
				`lands/08-bw/authorities.yaml:6:9: authority "kreis" stands here for the second time, first in line 2`,
				`lands/08-bw/authorities.yaml:7:11: authority "kreis" has no name`,
				`lands/08-bw/authorities.yaml:8:13: region 14625 lies in Land 14, not in Land 08`,
				`lands/08-bw/authorities.yaml:13:24: authority "stadt" has destinations for service 99041006017000, which the Land does not offer`,
				`lands/08-bw/authorities.yaml:14:20: destination "kreis" stands here for the second time`,
			},
			broken: "08",
		},
		{
			name: "destinations",
			overlay: map[string]string{"lands/08-bw/destinations.yaml": `destinations:
  - id: kreis
    settings: file
    formats: []
  - id: Stadt Böblingen
    adapter: file
    formats: [xbau-2.6, antrag/1.0/antrag, antrag/1.0/antrag]
    policy: {initial: 0s}
  - id: kreis
    adapter: file
    retries: 3
    formats: [antrag/1.0/antrag]
  - adapter: file
    formats: [antrag/1.0/antrag]
`},
			want: []string{
				`lands/08-bw/destinations.yaml:2:5: destination "kreis" names no adapter`,
				`lands/08-bw/destinations.yaml:3:15: settings: a mapping (name: value) is expected, not the value "file"`,
				`lands/08-bw/destinations.yaml:4:14: destination "kreis" takes no format: formats lists standard/version/message, the preferred one first`,
				`lands/08-bw/destinations.yaml:5:9: id "Stadt Böblingen": small letters and digits are expected, joined by -, _ or .`,
				`lands/08-bw/destinations.yaml:7:15: formats[0]: "xbau-2.6" is not a format: standard/version/message is expected, as in xbau/2.6/baugenehmigung.antrag.0200`,
				`lands/08-bw/destinations.yaml:7:44: format antrag/1.0/antrag stands here for the second time`,
				`lands/08-bw/destinations.yaml:8:23: initial is 0s; it must be above 0`,
				`lands/08-bw/destinations.yaml:9:9: destination "kreis" stands here for the second time, first in line 2`,
				`lands/08-bw/destinations.yaml:11:5: unknown field "retries"`,
				`lands/08-bw/destinations.yaml:13:5: id is missing`,
			},
			broken: "08",
		},
		{
			name: "rules",
			overlay: map[string]string{"lands/08-bw/rules.yaml": `rules:
  - {services: [99012008001000, 99012008001000], region: 0811, authority: kreis}
  - {services: [99041006017000], region: 14625, authority: kreiss}
  - {services: [], authority: kreis, region: "08"}
  - {services: ["*"], region: 08115, authority: kreis, from: 2027-01-01, until: 2026-12-31}
  - {services: ["*"], region: 08115, authority: kreis, from: 2026-02-30}
`},
			want: []string{
				`lands/08-bw/rules.yaml:2:33: service 99012008001000 stands here for the second time`,
				`lands/08-bw/rules.yaml:2:58: region: "0811" is not a region: an ARS of 2, 3, 5, 9 or 12 digits is expected, with DE before it or without`,
				`lands/08-bw/rules.yaml:3:17: service 99041006017000 is not offered by the Land (land.yaml)`,
				`lands/08-bw/rules.yaml:3:42: region 14625 lies in Land 14, not in Land 08`,
				`lands/08-bw/rules.yaml:3:60: there is no authority "kreiss" in authorities.yaml; is "kreis" meant?`,
				`lands/08-bw/rules.yaml:4:16: the rule names no service: services lists LeiKa keys, or "*" for every service`,
				`lands/08-bw/rules.yaml:5:81: the rule ends on 2026-12-31, before it begins on 2027-01-01`,
				`lands/08-bw/rules.yaml:6:62: from: "2026-02-30" is not a day: year-month-day is expected, as in 2027-01-01`,
			},
			broken: "08",
		},
		{
			name: "rules that overlap, and authorities nobody can reach, are warnings",
			overlay: map[string]string{"lands/08-bw/rules.yaml": `rules:
  - {services: [99012008001000], region: 08115, authority: kreis}
  - {services: [99012008001000], region: 08115, authority: stadt, from: 2027-01-01, until: 2027-12-31}
  - {services: [99050012104000], region: 08115, authority: stadt, until: 2026-12-31}
  - {services: [99050012104000], region: 08115, authority: kreis, from: 2026-12-31}
  - {services: [99012008001000], region: 08116, authority: kreis, until: 2026-12-31}
  - {services: [99012008001000], region: 08116, authority: stadt, from: 2027-01-01}
`},
			want: []string{
				`lands/08-bw/rules.yaml:3:5: warning: several authorities: from 2027-01-01 on, "kreis" (line 2) and "stadt" are both responsible for service 99012008001000 in region 08115; such submissions will be held as unassigned`,
				`lands/08-bw/rules.yaml:5:5: warning: several authorities: from 2026-12-31 on, "stadt" (line 4) and "kreis" are both responsible for service 99050012104000 in region 08115; such submissions will be held as unassigned`,
			},
		},
		{
			name: "what nothing reaches",
			overlay: map[string]string{"lands/08-bw/authorities.yaml": `authorities:
  - {id: kreis, key: bab:08115, name: Landratsamt, destinations: {"99012008001000": [kreis]}}
  - {id: stadt, key: bab:08115003, name: Stadt}
`, "lands/08-bw/rules.yaml": "rules: [{services: [\"*\"], region: 08115, authority: kreis}]\n"},
			want: []string{
				`lands/08-bw/authorities.yaml:3:5: warning: authority "stadt" stands in no rule; submissions reach it only when an operator assigns them`,
				`lands/08-bw/destinations.yaml:6:5: warning: destination "stadt" belongs to no authority; nothing reaches it`,
				`lands/08-bw/rules.yaml:1:9: warning: authority "kreis" is responsible for service 99050012104000 but has no destination for it; such submissions will be held`,
			},
		},
		{
			name: "portals",
			overlay: map[string]string{"lands/14-sachsen/portals.yaml": `portals:
  - id: service-bw
    name: x
    key: bap:140000000001
    lands: [14]
    auth: {example_key: true}
  - id: amt24
    key: bap:14
    lands: [15]
  - id: Amt 24
    name: x
    key: bap:080000000001
    lands: [14, 14]
    services: ["*"]
    auth:
      api_key_sha256: [secret]
      jwt:
        issuer: https://login.example
        jwks_url: http://login.example/jwks
        algorithms: [RS256, HS256, none]
`},
			want: []string{
				`lands/08-bw/portals.yaml:5:17: warning: portal "service-bw" sends for Land 14, whose configuration is refused at the moment`,
				`lands/14-sachsen/portals.yaml:2:9: portal "service-bw" exists already, in lands/08-bw/portals.yaml:2; portals are named once for all Länder`,
				`lands/14-sachsen/portals.yaml:7:5: portal "amt24" has no name`,
				`lands/14-sachsen/portals.yaml:7:5: portal "amt24" has no way to prove who it is: auth needs api_key_sha256, jwt or example_key`,
				`lands/14-sachsen/portals.yaml:8:10: key bap:14 is not a portal's: prefix, colon and 12 digits are expected, as in bap:080000000001`,
				`lands/14-sachsen/portals.yaml:9:13: portal "amt24" sends for Land 15, which has no folder here`,
				`lands/14-sachsen/portals.yaml:10:9: id "Amt 24": small letters and digits are expected, joined by -, _ or .`,
				`lands/14-sachsen/portals.yaml:12:10: key bap:080000000001 is that of portal "service-bw" already, in lands/08-bw/portals.yaml:2`,
				`lands/14-sachsen/portals.yaml:13:17: Land 14 stands here for the second time`,
				`lands/14-sachsen/portals.yaml:14:16: a portal that may send every service lists none; * is not one`,
				`lands/14-sachsen/portals.yaml:16:24: an API key stands here as 64 hex digits, its SHA-256; never the key itself`,
				`lands/14-sachsen/portals.yaml:18:9: jwt names no audience; a token meant for another service would be taken`,
				`lands/14-sachsen/portals.yaml:19:19: jwks_url must begin with https://; plain http is for loopback only`,
				`lands/14-sachsen/portals.yaml:20:29: algorithm "HS256" cannot be allowed; these can: ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`,
				`lands/14-sachsen/portals.yaml:20:36: algorithm "none" cannot be allowed; these can: ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`,
			},
			broken: "14",
		},
		{
			name:    "the environment",
			environ: []string{"WEICHE_KAFKA_PARTITIONS=x", "WEICHE_OPTS=127.0.0.1:1", "WEICHE_SOMETHING_ELSE=1", "WEICHE_CONFIG=/x", "WEICHE_LISTEN=", "WEICHE_KAFKA_BROKERS=a:1,b", "HOME=/"},
			want: []string{
				`WEICHE_KAFKA_PARTITIONS: kafka.partitions: a whole number is expected, not "x"`,
				`WEICHE_OPTS: there is no such setting; is WEICHE_OPS meant?`,
				`WEICHE_SOMETHING_ELSE: warning: there is no such setting; it has no effect`,
			},
			broken: "router",
		},
		{
			name:    "values from the environment are checked like others",
			environ: []string{"WEICHE_KAFKA_BROKERS=a:1,b", "WEICHE_LISTEN=0.0.0.0:80"},
			want: []string{
				`WEICHE_KAFKA_BROKERS: brokers: "b" is not an address: host:port is expected, as in 127.0.0.1:8080`,
				`WEICHE_LISTEN: listen is 0.0.0.0:80, which others can reach, and there is no tls: applications would travel in plain text; set tls, or allow_plain_public: true where a proxy before the router ends TLS`,
			},
			broken: "router",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, got := loaded(t, tt.overlay, tt.environ...)
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("got:\n%s\nwant:\n%s", g, w)
			}
			if (cfg == nil) != (tt.broken == "router") {
				t.Fatalf("configuration: %v", cfg)
			}
			if cfg == nil {
				return
			}
			var broken []string
			for land, problems := range cfg.Broken {
				broken = append(broken, string(land))
				if !problems.Failed() || cfg.Lands[land] != nil {
					t.Errorf("Land %s: %v", land, problems)
				}
			}
			if got := strings.Join(broken, " "); got != tt.broken {
				t.Errorf("broken: %q, not %q", got, tt.broken)
			}
		})
	}
}

// A portal may serve other Länder: what breaks its own Land does not stop it,
// as long as its own file is sound.
func TestPortalsOfABrokenLand(t *testing.T) {
	cfg, _ := loaded(t, map[string]string{"lands/08-bw/rules.yaml": "rules: 1\n"})
	if cfg.Lands["08"] != nil || cfg.Lands["14"] == nil || cfg.Portals["service-bw"] == nil {
		t.Errorf("Länder %v, portals %v", cfg.Lands, cfg.Portals)
	}
	cfg, _ = loaded(t, map[string]string{"lands/08-bw/portals.yaml": "portals: 1\n"})
	if cfg.Lands["08"] != nil || cfg.Lands["14"] == nil || len(cfg.Portals) != 0 {
		t.Errorf("Länder %v, portals %v", cfg.Lands, cfg.Portals)
	}
}

// Every setting with one value, or a list of values, has a variable of its own.
func TestOverrides(t *testing.T) {
	values := map[string]string{
		"WEICHE_DATA": "d", "WEICHE_LISTEN": "127.0.0.1:1", "WEICHE_OPS": "127.0.0.1:2", "WEICHE_TLS_CERT_FILE": "c", "WEICHE_TLS_KEY_FILE": "k",
		"WEICHE_KAFKA_BROKERS": "a:1, b:2", "WEICHE_KAFKA_ALLOW_UNSAFE": "replication-factor", "WEICHE_KAFKA_TLS_CA_FILE": "ca",
		"WEICHE_KAFKA_SASL_MECHANISM": "OAUTHBEARER", "WEICHE_KAFKA_SASL_TOKEN_URL": "https://login.example/token", "WEICHE_KAFKA_SASL_CLIENT_ID": "c",
		"WEICHE_KAFKA_SASL_CLIENT_SECRET_FILE": "s", "WEICHE_KAFKA_SASL_SCOPE": "kafka", "WEICHE_KAFKA_SASL_TOKEN_CA_FILE": "ca",
		"WEICHE_INTAKE_BODY_BYTES": "1MB", "WEICHE_DELIVERY_INITIAL": "1s", "WEICHE_DELIVERY_JITTER": "0.5", "WEICHE_ALLOW_PLAIN_PUBLIC": "true",
		"WEICHE_SEAL_SIGNING_KEY": "s", "WEICHE_LOG_LEVEL": "debug", "WEICHE_DRAIN": "1s", "WEICHE_STATUS_FILE": "f",
	}
	var environ []string
	for k, v := range values {
		environ = append(environ, k+"="+v)
	}
	cfg, lines := loaded(t, nil, environ...)
	if len(lines) > 0 {
		t.Fatal(strings.Join(lines, "\n"))
	}
	r := cfg.Router
	if r.Data != "d" || r.TLS.KeyFile != "k" || len(r.Kafka.Brokers) != 2 || r.Kafka.Brokers[1] != "b:2" || r.Kafka.TLS.CAFile != "ca" ||
		r.Intake.BodyBytes != 1<<20 || r.Delivery.Jitter != 0.5 || !r.AllowPlainPublic || r.Drain.String() != "1s" || r.Kafka.Partitions != 8 ||
		r.Kafka.SASL.ClientSecretFile != "s" || r.Kafka.SASL.Scope != "kafka" {
		t.Errorf("%+v", r)
	}
	seen := map[string]string{}
	for _, o := range config.Overrides() {
		if first, again := seen[o.Env]; again {
			t.Errorf("%s stands for %s and %s", o.Env, first, o.Field)
		}
		seen[o.Env] = o.Field
		delete(values, o.Env)
	}
	if len(values) > 0 || len(seen) < 35 {
		t.Errorf("%d overrides; missing: %v", len(seen), values)
	}
}

func TestSettings(t *testing.T) {
	cfg, lines := loaded(t, map[string]string{"lands/08-bw/destinations.yaml": strings.Replace(sound["lands/08-bw/destinations.yaml"],
		"      topic: fv.stadt\n", "      topic: fv.stadt\n      timeout: soon\n      topik: x\n", 1)})
	if len(lines) > 0 {
		t.Fatal(strings.Join(lines, "\n"))
	}
	s := cfg.Lands["08"].Destination("stadt").Settings
	var into struct {
		Topic   string          `yaml:"topic"`
		Timeout config.Duration `yaml:"timeout"`
	}
	err := s.Decode(&into)
	want := `lands/08-bw/destinations.yaml:10:16: timeout: "soon" is not a duration: a number with its unit is expected, as in 90s, 15m or 168h
lands/08-bw/destinations.yaml:11:7: unknown field "topik"; is "topic" meant?`
	if err == nil || strings.ReplaceAll(err.Error(), cfg.Dir+"/", "") != want || into.Topic != "fv.stadt" {
		t.Errorf("%v, %+v", err, into)
	}
	if at := s.At("topic"); at.Line != 9 || at.Column != 14 {
		t.Errorf("topic stands at %v", at)
	}
	if at := s.At("other"); at.Line != 9 || at.Column != 7 {
		t.Errorf("the settings stand at %v", at)
	}
	var none config.Settings
	if err := none.Decode(&into); err != nil || !none.Equal(config.Settings{}) || none.Equal(s) || !s.Equal(s) {
		t.Error("no settings are no fault", err)
	}
}

func TestDates(t *testing.T) {
	d, err := config.ParseDate("2026-03-29") // clocks go forward: a day of 23 hours
	if err != nil || d.End().Sub(d.Start()).Hours() != 23 || d.Start().UTC().String() != "2026-03-28 23:00:00 +0000 UTC" || d.String() != "2026-03-29" {
		t.Errorf("%v %v %v", d, d.Start().UTC(), d.End())
	}
	if config.DateOf(d.End()) != (config.Date{Year: 2026, Month: 3, Day: 30}) || !(config.Date{}).IsZero() {
		t.Error("the day after the 29th is the 30th")
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]config.Bytes{"0": 0, "17": 17, "1KB": 1024, "20MB": 20 << 20, "2 GiB": 2 << 30, "1T": 1 << 40} {
		if got, err := config.ParseBytes(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5GB", "1 000", "9999999999T", "10EB"} {
		if got, err := config.ParseBytes(text); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
	if got := config.Bytes(20 << 20).String(); got != "20MB" {
		t.Error(got)
	}
}

// A Land of twenty thousand rules.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	files := maps.Clone(sound)
	var rules strings.Builder
	rules.WriteString("rules:\n")
	for i := range 20000 {
		fmt.Fprintf(&rules, "  - {services: [99012008001000], region: 08115%07d, authority: kreis}\n", i)
	}
	files["lands/08-bw/rules.yaml"] = rules.String()
	for name, text := range files {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
	}
	for b.Loop() {
		if _, problems := config.Load(dir, nil); problems.Failed() {
			b.Fatal(problems)
		}
	}
}
