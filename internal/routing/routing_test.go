package routing_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/routing"
	"weiche/internal/submission"
)

const (
	permit = submission.Service("99012008001000")
	trade  = submission.Service("99050012104000")
	other  = submission.Service("99041006017000")
)

// land builds a Land from rules written "services region authority from until",
// "-" for what is left out; the rule in line n stands in rules.yaml:n.
func land(t testing.TB, rules ...string) *config.Land {
	t.Helper()
	l := &config.Land{Key: "08", Services: []config.Offer{{Service: permit}, {Service: trade}, {Service: other}}}
	authorities := map[string]bool{}
	for i, text := range rules {
		f := append(strings.Fields(text), "-", "-")
		r := config.Rule{Region: submission.Region(f[1]), Authority: f[2], Pos: config.Pos{File: "rules.yaml", Line: i + 1}}
		for s := range strings.SplitSeq(f[0], ",") {
			r.Services = append(r.Services, submission.Service(s))
		}
		for _, d := range []struct {
			text string
			into *config.Date
		}{{f[3], &r.From}, {f[4], &r.Until}} {
			if d.text == "-" {
				continue
			}
			var err error
			if *d.into, err = config.ParseDate(d.text); err != nil {
				t.Fatal(err)
			}
		}
		l.Rules = append(l.Rules, r)
		authorities[r.Authority] = true
	}
	format := func(s string) submission.Format {
		f, err := submission.ParseFormat(s)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for i, d := range []config.Destination{
		{ID: "door", Adapter: "file", Formats: []submission.Format{format("xbau/2.6/x"), format("antrag/1.0/antrag")}},
		{ID: "second", Adapter: "kafka", Formats: []submission.Format{format("antrag/1.0/antrag")}},
		{ID: "strange", Adapter: "http", Formats: []submission.Format{format("klingon/1/x")}},
		{ID: "test", Adapter: "file", Formats: []submission.Format{format("antrag/1.0/antrag")}, Test: true},
	} {
		d.Pos = config.Pos{File: "destinations.yaml", Line: i + 1}
		l.Destinations = append(l.Destinations, d)
	}
	for id := range authorities {
		l.Authorities = append(l.Authorities, config.Authority{
			Authority:    submission.Authority{ID: id, Key: "bab:" + submission.AuthorityKey(id), Name: strings.ToUpper(id)},
			Destinations: map[submission.Service][]string{config.AnyService: {"door", "test"}, trade: {"door", "second"}},
		})
	}
	slices.SortFunc(l.Authorities, func(a, b config.Authority) int { return strings.Compare(a.ID, b.ID) })
	return l
}

// mappable: the permit has XBau and the project's own format, all others only
// the latter.
func mappable(s submission.Service, f submission.Format) bool {
	return f.Standard == "antrag" || f.Standard == "xbau" && s == permit
}

func table(t testing.TB, l *config.Land) *routing.Table {
	t.Helper()
	tab, problems := routing.New(l, mappable)
	if len(problems) > 0 {
		t.Fatal(problems.Error())
	}
	return tab
}

func day(s string) time.Time {
	d, err := config.ParseDate(s)
	if err != nil {
		panic(err)
	}
	return d.Start().Add(12 * time.Hour)
}

func TestResponsibility(t *testing.T) {
	rules := []string{
		string(permit) + " 08 land",
		string(permit) + " 081 bezirk",
		string(permit) + " 08115 kreis",
		string(permit) + " 081155003 verband",
		string(permit) + " 081150003003 stadt",
		"* 08116 alles",
		string(permit) + " 08116 bau",
		string(permit) + " 08117 alt - 2026-12-31",
		string(permit) + " 08117 neu 2027-01-01",
		string(permit) + " 08118 eins",
		string(permit) + " 08118 zwei",
		string(permit) + " 08118 eins",
		"* 081180048048 alles",
		string(permit) + "," + string(trade) + " 08119 beide",
		string(permit) + " 08121 kurz 2026-06-01 2026-06-01",
		"* 08125 alles",
		string(permit) + " 08125 bald 2027-01-01",
	}
	tab := table(t, land(t, rules...))
	tests := []struct {
		name      string
		service   submission.Service
		region    submission.Region
		at        string
		authority string
		rule      int
		reason    fault.Reason
	}{
		{"the town itself", permit, "081150003003", "", "stadt", 5, ""},
		{"a member of the Verband", permit, "081155003010", "", "verband", 4, ""},
		{"the district for a small municipality", permit, "081150029029", "", "kreis", 3, ""},
		{"the district, asked by itself", permit, "08115", "", "kreis", 3, ""},
		{"the Verband, asked by itself", permit, "081155003", "", "verband", 4, ""},
		{"the Regierungsbezirk", permit, "081990000000", "", "bezirk", 2, ""},
		{"the Land", permit, "083110000000", "", "land", 1, ""},
		{"the Land, asked by itself", permit, "08", "", "land", 1, ""},
		{"a service without a rule", trade, "081150003003", "", "", 0, fault.ReasonNoAuthority},
		{"another Land", permit, "141150003003", "", "", 0, fault.ReasonNoAuthority},
		{"a named service comes before every service", permit, "081160019019", "", "bau", 7, ""},
		{"every service where none is named", trade, "081160019019", "", "alles", 6, ""},
		{"every service at the smaller area comes before a named one at the larger", permit, "081180048048", "", "alles", 13, ""},
		{"before the change", permit, "08117", "2026-12-31", "alt", 8, ""},
		{"after the change", permit, "08117", "2027-01-01", "neu", 9, ""},
		{"several, of which two say the same", permit, "08118", "", "", 0, fault.ReasonSeveralAuthorities},
		{"one rule for two services", trade, "08119", "", "beide", 14, ""},
		{"a rule of one day, on it", permit, "08121", "2026-06-01", "kurz", 15, ""},
		{"a rule of one day, before", permit, "08121", "2026-05-31", "bezirk", 2, ""},
		{"a rule of one day, after", permit, "08121", "2026-06-02", "bezirk", 2, ""},
		{"a named service that does not hold yet leaves it to every service", permit, "08125", "2026-12-31", "alles", 16, ""},
		{"and takes over then", permit, "08125", "2027-01-01", "bald", 17, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.at == "" {
				tt.at = "2026-11-22"
			}
			f := routing.Facts{Service: tt.service, Region: tt.region, Land: "08", At: day(tt.at)}
			o := tab.Decide(f)
			rule := ""
			if tt.rule > 0 {
				rule = fmt.Sprintf("rules.yaml:%d", tt.rule)
			}
			if o.Authority.ID != tt.authority || o.Reason != tt.reason || o.Rule != rule || o.Decided() != (tt.reason == "") {
				t.Errorf("%q by %q, %q", o.Authority.ID, o.Rule, o.Reason)
			}
			if (len(o.Destinations) > 0) != o.Decided() {
				t.Errorf("destinations: %v", o.Destinations)
			}
		})
	}
	o := tab.Decide(routing.Facts{Service: permit, Region: "08118", Land: "08", At: day("2026-11-22")})
	if len(o.Candidates) != 2 || o.Candidates[0].ID != "eins" || o.Candidates[1].ID != "zwei" {
		t.Errorf("candidates: %v", o.Candidates)
	}
}

// A day begins and ends at midnight in Berlin, in winter and in summer.
func TestMidnightInBerlin(t *testing.T) {
	tab := table(t, land(t, string(permit)+" 08 alt - 2026-06-30", string(permit)+" 08 neu 2026-07-01"))
	for at, want := range map[string]string{
		"2026-06-30T21:59:59.999Z": "alt", // 23:59:59.999 in Berlin
		"2026-06-30T22:00:00Z":     "neu",
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if o := tab.Decide(routing.Facts{Service: permit, Region: "08", At: when}); o.Authority.ID != want {
			t.Errorf("%s: %s", at, o.Authority.ID)
		}
	}
}

func TestDestinations(t *testing.T) {
	l := land(t, string(permit)+","+string(trade)+" 08 amt", string(other)+" 08 fremd")
	l.Authority("fremd").Destinations = map[submission.Service][]string{other: {"door", "strange"}}
	l.Authorities = append(l.Authorities, config.Authority{Authority: submission.Authority{ID: "leer"}})
	tab, problems := routing.New(l, mappable)
	want := "destinations.yaml:3: warning: service 99041006017000 cannot be turned into any format taken by strange; its submissions there cannot be delivered"
	if problems.Error() != want {
		t.Errorf("problems: %v", problems.Error())
	}
	tests := []struct {
		name   string
		facts  routing.Facts
		want   string
		reason fault.Reason
	}{
		{"the preferred format", routing.Facts{Service: permit}, "[{door file xbau/2.6/x}]", ""},
		{"the next format, at all destinations of the service", routing.Facts{Service: trade}, "[{door file antrag/1.0/antrag} {second kafka antrag/1.0/antrag}]", ""},
		{"tests go to test destinations", routing.Facts{Service: permit, Test: true}, "[{test file antrag/1.0/antrag}]", ""},
		{"no test destination", routing.Facts{Service: trade, Test: true}, "[]", fault.ReasonNoTestDestination},
		{"all destinations or none", routing.Facts{Service: other}, "[]", fault.ReasonNoFormat},
		{"assigned", routing.Facts{Service: permit, AssignedAuthority: "amt", Region: "14"}, "[{door file xbau/2.6/x}]", ""},
		{"assigned to somebody unknown", routing.Facts{Service: permit, AssignedAuthority: "niemand"}, "[]", fault.ReasonNoAuthority},
		{"assigned to somebody without a door", routing.Facts{Service: permit, AssignedAuthority: "leer"}, "[]", fault.ReasonNoDestination},
		{"assigned to somebody without a door for it", routing.Facts{Service: permit, AssignedAuthority: "fremd"}, "[]", fault.ReasonNoDestination},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.facts.Region == "" {
				tt.facts.Region = "081150003003"
			}
			tt.facts.At = day("2026-11-22")
			o := tab.Decide(tt.facts)
			if got := fmt.Sprint(o.Destinations); got != tt.want || o.Reason != tt.reason {
				t.Errorf("%s, %q", got, o.Reason)
			}
			if e := tab.Explain(tt.facts); e.Reason != o.Reason || e.Authority != o.Authority || len(e.Steps) == 0 {
				t.Errorf("the explanation says otherwise: %+v", e)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	l := land(t,
		string(permit)+" 08 land",
		string(permit)+" 08115 kreis",
		"* 081150003003 alles",
		string(permit)+" 081150003003 stadt 2026-01-01",
		string(permit)+" 081150003003 alt - 2025-12-31",
		string(permit)+" 081150003003 neu 2027-01-01",
		string(trade)+" 081150003003 gewerbe",
		string(permit)+" 08116 fern",
		string(permit)+" 08117 fern",
		string(permit)+" 08118 eins",
		string(permit)+" 08118 zwei",
	)
	tab := table(t, l)
	explain := func(f routing.Facts) string {
		var b strings.Builder
		f.At = day("2026-11-22")
		tab.Explain(f).Explain(&b)
		return b.String()
	}
	for _, tt := range []struct{ name, got, want string }{
		{"decided", explain(routing.Facts{Service: permit, Region: "081150003003"}), `Service 99012008001000 in region 081150003003 on 2026-11-22

  + Region 081150003003: STADT. This rule decides: no rule for a smaller area holds for this service.
      rules.yaml:4
  - Region 081150003003: ALT. Not this one: it held until 2025-12-31; asked for 2026-11-22.
      rules.yaml:5
  - Region 081150003003: NEU. Not this one: it does not hold before 2027-01-01; asked for 2026-11-22.
      rules.yaml:6
  - Region 081150003003: ALLES. Not this one: a rule for the same area names this service; this one is for every service.
      rules.yaml:3
  - Region 081150003003: GEWERBE. Not this one: it is for other services (99050012104000).
      rules.yaml:7
  - Region 08115: KREIS. Not this one: a rule for the smaller area 081150003003 comes first.
      rules.yaml:2
  - Region 08: LAND. Not this one: a rule for the smaller area 081150003003 comes first.
      rules.yaml:1
  - 4 other rules are for other areas.
  + Destination door gets xbau/2.6/x.
      destinations.yaml:1
  - Destination test: not this one, it takes test submissions only.
      destinations.yaml:4

Authority    stadt (bab:stadt), STADT
Destination  door (file), as xbau/2.6/x
`},
		{"several", explain(routing.Facts{Service: permit, Region: "08118"}), `Service 99012008001000 in region 08118 on 2026-11-22

  + Region 08118: EINS. Responsible, but not alone.
      rules.yaml:10
  + Region 08118: ZWEI. Responsible, but not alone.
      rules.yaml:11
  - Region 08: LAND. Not this one: a rule for the smaller area 08118 comes first.
      rules.yaml:1
  - 8 other rules are for other areas.

Candidate    eins (bab:eins), EINS
Candidate    zwei (bab:zwei), ZWEI
Held         several-authorities: Several authorities are responsible. The submission is held until an operator assigns one of them.
`},
		{"nobody", explain(routing.Facts{Service: other, Region: "08115"}), `Service 99041006017000 in region 08115 on 2026-11-22

  - Region 08115: KREIS. Not this one: it is for other services (99012008001000).
      rules.yaml:2
  - Region 08: LAND. Not this one: it is for other services (99012008001000).
      rules.yaml:1
  - 9 other rules are for other areas.

Held         no-authority: No authority is responsible. The submission is held until an operator assigns one.
`},
		{"a test that has no door, every service", explain(routing.Facts{Service: trade, Region: "081150003003", Test: true}), `Service 99050012104000 in region 081150003003 on 2026-11-22, a test

  + Region 081150003003: GEWERBE. This rule decides: no rule for a smaller area holds for this service.
      rules.yaml:7
  - Region 081150003003: ALLES. Not this one: a rule for the same area names this service; this one is for every service.
      rules.yaml:3
  - Region 081150003003: STADT. Not this one: it is for other services (99012008001000).
      rules.yaml:4
  - Region 081150003003: ALT. Not this one: it is for other services (99012008001000).
      rules.yaml:5
  - Region 081150003003: NEU. Not this one: it is for other services (99012008001000).
      rules.yaml:6
  - Region 08115: KREIS. Not this one: it is for other services (99012008001000).
      rules.yaml:2
  - Region 08: LAND. Not this one: it is for other services (99012008001000).
      rules.yaml:1
  - 4 other rules are for other areas.
  - Destination door: not this one, this is a test submission.
      destinations.yaml:1
  - Destination second: not this one, this is a test submission.
      destinations.yaml:2

Authority    gewerbe (bab:gewerbe), GEWERBE
Held         no-test-destination: The authority has no test destination for this service, and a test submission goes nowhere else.
`},
		{"assigned, the second choice of format", explain(routing.Facts{Service: other, Region: "08", AssignedAuthority: "stadt"}), `Service 99041006017000 in region 08 on 2026-11-22

  + An operator assigned STADT; the rules were not asked.
  + Destination door gets antrag/1.0/antrag (it would rather have xbau/2.6/x, which this service cannot be turned into).
      destinations.yaml:1
  - Destination test: not this one, it takes test submissions only.
      destinations.yaml:4

Authority    stadt (bab:stadt), STADT
Destination  door (file), as antrag/1.0/antrag
`},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", tt.name, tt.got, tt.want)
		}
	}
}

// scan decides by reading every rule, as the design's sentence has it: the
// longest region, then a named service, of the rules that hold.
func scan(l *config.Land, f routing.Facts) (authorities []string) {
	best := -1
	for _, r := range l.Rules {
		rank := 2 * len(r.Region)
		switch {
		case !f.Region.Within(r.Region) || !r.Holds(f.At):
			continue
		case slices.Contains(r.Services, f.Service):
			rank++
		case !slices.Contains(r.Services, config.AnyService):
			continue
		}
		if rank > best {
			best, authorities = rank, nil
		}
		if rank == best && !slices.Contains(authorities, r.Authority) {
			authorities = append(authorities, r.Authority)
		}
	}
	return authorities
}

// The index decides as the scan does, and the explanation marks what decided.
func TestIndexAgainstScan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	digit := func(n int) string { return fmt.Sprint(r.IntN(n)) }
	region := func() string {
		full := "08" + digit(2) + digit(2) + digit(2) + "000" + digit(2) + "00" + digit(2)
		return full[:[]int{2, 3, 5, 9, 12}[r.IntN(5)]]
	}
	service := func() string { return []string{string(permit), string(trade), "*"}[r.IntN(3)] }
	date := func() string {
		if r.IntN(2) == 0 {
			return "-"
		}
		return fmt.Sprintf("2026-0%d-1%d", 1+r.IntN(9), r.IntN(10))
	}
	decided, several := 0, 0
	for range 200 {
		var rules []string
		for range 1 + r.IntN(40) {
			from, until := date(), date()
			if from != "-" && until != "-" && from > until {
				from, until = until, from
			}
			rules = append(rules, fmt.Sprintf("%s %s a%d %s %s", service(), region(), r.IntN(4), from, until))
		}
		l := land(t, rules...)
		tab := table(t, l)
		for range 50 {
			f := routing.Facts{Service: submission.Service(service()), Region: submission.Region(region()), At: day(fmt.Sprintf("2026-0%d-1%d", 1+r.IntN(9), r.IntN(10)))}
			if f.Service == "*" {
				f.Service = other
			}
			want := scan(l, f)
			o := tab.Explain(f)
			switch len(want) {
			case 0:
				if o.Reason != fault.ReasonNoAuthority {
					t.Fatalf("%v: %+v", f, o)
				}
			case 1:
				decided++
				if o.Authority.ID != want[0] {
					t.Fatalf("%v: %v, not %v", f, o.Authority.ID, want)
				}
			default:
				several++
				if o.Reason != fault.ReasonSeveralAuthorities || len(o.Candidates) != len(want) {
					t.Fatalf("%v: %v, not %v", f, o.Candidates, want)
				}
			}
			marked := map[string]bool{}
			for _, s := range o.Steps {
				if s.Matched && strings.HasPrefix(s.Text, "Region") {
					name, _, _ := strings.Cut(strings.SplitN(s.Text, ": ", 2)[1], ".")
					marked[strings.ToLower(name)] = true
				}
			}
			if len(marked) != len(want) {
				t.Fatalf("%v: marked %v, not %v\n%v", f, marked, want, o.Steps)
			}
		}
	}
	if decided < 1000 || several < 100 {
		t.Errorf("%d decided, %d several: too few to prove anything", decided, several)
	}
}

func TestCases(t *testing.T) {
	tab := table(t, land(t, string(permit)+","+string(trade)+" 08115 kreis", string(permit)+" 08118 eins", string(permit)+" 08118 zwei"))
	file := filepath.Join(t.TempDir(), "cases.yaml")
	load := func(text string) ([]routing.Case, config.Problems) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return routing.LoadCases(file)
	}
	cases, problems := load(`cases:
  - {service: 99012008001000, region: 08115, want: {authority: kreis, destination: door, format: xbau/2.6/x}}
  - {service: 99050012104000, region: DE08115, want: {authority: kreis, destination: [door, second], format: antrag/1.0/antrag}}
  - {service: 99012008001000, region: 08118, want: {reason: several-authorities, candidates: [eins, zwei]}}
  - {service: 99012008001000, region: 08116, test: true, assign: kreis, want: {authority: kreis, destination: test}}
  - {name: wrong town, service: 99012008001000, region: 08115, at: 2026-11-22, want: {authority: stadt, destination: [door, second], format: antrag/1.0/antrag}}
  - {service: 99012008001000, region: 08118, want: {authority: eins}}
  - {service: 99012008001000, region: 08118, want: {reason: several-authorities, candidates: eins}}
`)
	if len(problems) > 0 {
		t.Fatal(problems.Error())
	}
	var got []string
	for _, m := range tab.Check(cases, day("2026-11-22")) {
		got = append(got, strings.TrimPrefix(m.String(), file))
		if len(m.Outcome.Steps) == 0 {
			t.Error("a mismatch is explained")
		}
	}
	want := []string{
		":6: wrong town: authority: stadt expected, not kreis; format at door: antrag/1.0/antrag expected, not xbau/2.6/x; destination: door, second expected, not door",
		":7: service 99012008001000 in region 08118: reason: none expected, not several-authorities; authority: eins expected, not none",
		":8: service 99012008001000 in region 08118: candidates: eins expected, not eins, zwei",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	_, problems = load(`cases:
  - {service: 99012008001000, want: {authority: kreis}}
  - {service: 99012008001000, region: 08115, want: {destination: door}}
  - {service: 99012008001000, region: 08115, want: {reason: bad-luck}}
`)
	if got, want := strings.ReplaceAll(problems.Error(), file, ""), `:2:5: the case lacks service or region
:3:5: the case expects nothing: want names an authority or a reason
:4:5: "bad-luck" is not a reason`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	_, problems = load("cases: [{region: 0811, wish: {}}]\n")
	if len(problems) != 2 || !problems.Failed() {
		t.Errorf("%v", problems)
	}
	if _, problems = routing.LoadCases(file + ".gone"); !problems.Failed() {
		t.Error("a missing file is a fault")
	}
}

func twentyThousand(b *testing.B) (*routing.Table, []routing.Facts) {
	var rules []string
	var facts []routing.Facts
	for i := range 20000 {
		region := fmt.Sprintf("08%d%02d%04d%03d", i%5, i%80, i%1000, i%997)
		region = region[:[]int{12, 12, 12, 9, 5}[i%5]]
		rules = append(rules, fmt.Sprintf("%s %s a%d", []submission.Service{permit, trade}[i%2], region, i%50))
		if i%10 == 0 {
			facts = append(facts, routing.Facts{Service: permit, Region: submission.Region((region + "000000000000")[:12]), Land: "08", At: day("2026-11-22")})
		}
	}
	return table(b, land(b, append(rules, string(permit)+" 08 land")...)), facts
}

func BenchmarkDecide(b *testing.B) {
	tab, facts := twentyThousand(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if o := tab.Decide(facts[i%len(facts)]); o.Reason == fault.ReasonNoAuthority {
			b.Fatal(o)
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	tab, facts := twentyThousand(b)
	i := 0
	for b.Loop() {
		i++
		tab.Explain(facts[i%len(facts)])
	}
}
