package test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"weiche/internal/bus"
	"weiche/internal/kafkatest"
	"weiche/internal/submission"
)

// arrival is one line of the table written by hand: what is posted, and where
// it has to arrive. topic is set for Fachverfahren that read from Kafka.
type arrival struct {
	process, service, portal, region string
	destination, topic, message      string // message: a word of it that only this standard and message has
}

// The table. It is not made from config/lands: it says what a person who knows
// the responsibilities expects.
var arrivals = []arrival{
	{"gewerbeanmeldung", serviceTrade, "service-bw", "DE081150003003", "08-boeblingen-gewerbe", "", "antrag"},
	{"gewerbeanmeldung", serviceTrade, "service-bw", "081150045045", "08-sindelfingen-gewerbe", "", "antrag"},
	{"gewerbeanmeldung", serviceTrade, "service-bw", "081110000000", "08-stuttgart-gewerbe", "fv.stuttgart.gewerbe", "antrag"},
	{"gewerbeanmeldung", serviceTrade, "amt24", "DE146120000000", "14-dresden-gewerbe", "", "antrag"},
	{"gewerbeanmeldung", serviceTrade, "amt24", "145110000000", "14-sachsen-gewerbe", "fv.sachsen.gewerbe", "antrag"},
	{"elterngeld", serviceParental, "service-bw", "081110000000", "08-l-bank-elterngeld", "", "antrag"},
	{"elterngeld", serviceParental, "service-bw", "DE08435", "08-l-bank-elterngeld", "", "antrag"},
	{"elterngeld", serviceParental, "amt24", "14627", "14-sachsen-elterngeld", "fv.sachsen.elterngeld", "antrag"},
	{"baugenehmigung", serviceBuilding, "service-bw", "DE081150003003", "08-boeblingen-bauaufsicht", "", "baugenehmigung.antrag.0200"},
	{"baugenehmigung", serviceBuilding, "service-bw", "DE081150029029", "08-landkreis-boeblingen-bauaufsicht", "", "baugenehmigung.antrag.0200"},
	{"baugenehmigung", serviceBuilding, "service-bw", "DE081150028028", "08-leonberg-bauaufsicht", "", "baugenehmigung.antrag.0200"},
	{"baugenehmigung", serviceBuilding, "amt24", "146120000000", "14-dresden-bauaufsicht", "", "baugenehmigung.antrag.0200"},
	{"baugenehmigung", serviceBuilding, "amt24", "145220180180", "14-sachsen-bauaufsicht", "fv.sachsen.bauaufsicht", "baugenehmigung.antrag.0200"},
	{"baugenehmigung", serviceBuilding, "service-bw", "DE084160041041", "08-tuebingen-bauaufsicht", "", "xbau/2/5"},
	{"baugenehmigung", serviceBuilding, "amt24", "146280110110", "14-freital-posteingang", "", "antrag,vorgang,leistung"},
	{"baugenehmigung", serviceBuilding, "amt24", "146270210210", "14-radebeul-posteingang", "", "%PDF-"},
	{"bauvorbescheid", serviceQuestion, "service-bw", "DE081150003003", "08-boeblingen-bauaufsicht", "", "vorbescheid.antrag.0210"},
	{"bauvorbescheid", serviceQuestion, "service-bw", "DE084160041041", "08-tuebingen-bauaufsicht", "", "urn:weiche:standard:antrag:1.0"},
	{"baubeginnanzeige", serviceStart, "amt24", "146120000000", "14-dresden-bauaufsicht", "", "anzeige.baubeginn.0900"},
	{"sondernutzung", serviceRoads, "service-bw", "DE081150003003", "08-boeblingen-akten", "", "urn:xoev-de:xdomea:schema:3.1.0"},
	{"sondernutzung", serviceRoads, "service-bw", "DE081150045045", "08-sindelfingen-akten", "", "urn:xoev-de:xdomea:schema:3.0.0"},
	{"sondernutzung", serviceRoads, "amt24", "147130000000", "14-leipzig-posteingang", "", "Sondernutzung"},
	{"bauleitplanung", servicePlanning, "planungsportal-boeblingen", "DE081150003003", "08-beteiligungsplattform", "fv.bw.beteiligung", "kommunal.Initiieren.0401"},
	{"grundbucheintragung", serviceLand, "amt24", "146120000000", "14-sachsen-justiz", "fv.sachsen.justiz", "uebermittlungSchriftgutobjekte.0005005"},
	{"universeller-antrag", serviceGeneral, "service-bw", "DE081150003003", "08-boeblingen-bauaufsicht", "", "universellerAntrag.antrag.1200"},
	{"universeller-antrag", serviceGeneral, "service-bw", "081110000000", "08-stuttgart-bauaufsicht", "fv.stuttgart.bauaufsicht", "universellerAntrag.antrag.1200"},
}

// posted is one submission that was accepted.
type posted struct {
	arrival
	accepted
	key string
}

// delivery is the id under which it must arrive (P2).
func (p posted) delivery() string {
	return submission.NewDeliveryID(uuid.MustParse(p.SubmissionID), p.destination, 1).String()
}

// landing is what arrived, by destination and delivery id: how often, and the
// XML.
type landing struct {
	times map[string]map[string]int
	xml   map[string][]byte
}

func (l *landing) add(destination, id string, xml []byte) {
	if l.times[destination] == nil {
		l.times[destination] = map[string]int{}
	}
	l.times[destination][id]++
	l.xml[id] = xml
}

// landed reads every destination's own place: directories, the receiver's
// directory, the Fachverfahren's topics.
func landed(t *testing.T, r *router, receiver *receiver) *landing {
	t.Helper()
	l := &landing{times: map[string]map[string]int{}, xml: map[string][]byte{}}
	dirs := map[string]string{}
	topics := map[string]string{}
	for _, a := range arrivals {
		if a.topic != "" {
			topics[a.topic] = a.destination
		} else {
			dirs[a.destination] = filepath.Join(r.Data, "outbox", a.destination[3:])
		}
	}
	for destination, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "[^.]*.*")) // .xml, .csv, .pdf
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			l.add(destination, strings.TrimSuffix(filepath.Base(f), filepath.Ext(f)), b)
		}
	}
	b := connect(t, r.Kafka)
	for topic, destination := range topics {
		readAll(t, b, topic, func(rec *bus.Record) { l.add(destination, rec.Headers["ce_id"], xmlOf(t, rec)) })
	}
	if receiver != nil {
		for id, m := range receiver.Messages() {
			l.add(m.destination, id, m.xml)
		}
	}
	return l
}

func connect(t *testing.T, brokers []string) *bus.Bus {
	t.Helper()
	b, closeBus, err := dial(brokers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeBus)
	return b
}

func dial(brokers []string) (b *bus.Bus, closeBus func(), err error) {
	b, err = bus.Open(context.Background(), bus.Config{Brokers: brokers, ClientID: "test"}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	return b, func() { b.Close() }, err
}

func readAll(t *testing.T, b *bus.Bus, topic string, fn func(*bus.Record)) {
	t.Helper()
	oldest, newest, err := b.Offsets(t.Context(), topic)
	if err != nil {
		return // nothing was ever sent there
	}
	for p := range newest {
		if err := b.ReadTo(t.Context(), topic, int32(p), oldest[p], newest[p], func(r *bus.Record) error { fn(r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

// xmlOf returns the XML of a Fachverfahren's record: the value, or the first
// part of a multipart/related one.
func xmlOf(t *testing.T, rec *bus.Record) []byte {
	t.Helper()
	kind, params, err := mime.ParseMediaType(rec.Headers["content-type"])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		return rec.Value
	}
	p, err := multipart.NewReader(bytes.NewReader(rec.Value), params["boundary"]).NextPart()
	if err != nil {
		t.Fatal(err)
	}
	xml, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	return xml
}

// check holds what arrived against what was accepted: each exactly where the
// table says, nothing anywhere else, every XML valid.
func (l *landing) check(t *testing.T, all []posted, duplicates bool) {
	t.Helper()
	want := map[string]string{}
	for _, p := range all {
		want[p.delivery()] = p.destination
		n := l.times[p.destination][p.delivery()]
		if n == 0 {
			t.Errorf("submission %s for %s never arrived at %s", p.SubmissionID, p.region, p.destination)
		}
		if n > 1 && !duplicates {
			t.Errorf("submission %s arrived %d times at %s", p.SubmissionID, n, p.destination)
		}
		if n > 0 && !bytes.Contains(l.xml[p.delivery()], []byte(p.message)) {
			t.Errorf("submission %s did not arrive as %s", p.SubmissionID, p.message)
		}
	}
	more := 0
	for destination, ids := range l.times {
		for id, n := range ids {
			if want[id] != destination {
				t.Errorf("%s has %s, which belongs to %q", destination, id, want[id])
			}
			more += n - 1
		}
	}
	if more > 0 {
		t.Logf("%d duplicates, all under their first delivery id", more)
	}
}

// validateAll checks every XML that arrived with xmllint, a schema at a time.
func (l *landing) validateAll(t *testing.T) {
	t.Helper()
	needCommand(t, "xmllint")
	dir := t.TempDir()
	bySchema := map[string][]string{}
	for id, xml := range l.xml {
		if !bytes.HasPrefix(xml, []byte("<?xml")) {
			continue // rows and pages
		}
		f := filepath.Join(dir, id+".xml")
		if err := os.WriteFile(f, xml, 0o600); err != nil {
			t.Fatal(err)
		}
		schema := schemaOf(xml)
		if schema == "" {
			t.Errorf("delivery %s is of no standard that the services write", id)
			continue
		}
		bySchema[schema] = append(bySchema[schema], f)
	}
	for schema, files := range bySchema {
		lint(t, schema, files...)
	}
}

// schemas are what xmllint reads, by the namespace of the message's root.
var schemas = map[string]string{
	"urn:weiche:standard:antrag:1.0":                 "config/standards/antrag/1.0/antrag.xsd",
	"http://www.xleitstelle.de/xbau/2/6":             "standards/xbau/2.6/xbau-all.xsd",
	"http://www.xleitstelle.de/xbau/kernmodul/1/3/0": "standards/xbau/2.6/xbauk-all.xsd",
	"http://www.xleitstelle.de/xbau/2/5":             "standards/xbau/2.5/xbau.xsd",
	"https://www.xleitstelle.de/xbeteiligung/12":     "standards/xbeteiligung/1.2/xbeteiligung.xsd",
	"http://www.xjustiz.de":                          "standards/xjustiz/3.6.2/xjustiz_0005_nachrichten_3_2.xsd",
	"urn:xoev-de:xdomea:schema:3.0.0":                "standards/xdomea/3.0.0/xdomea.xsd",
	"urn:xoev-de:xdomea:schema:3.1.0":                "standards/xdomea/3.1.0/xdomea.xsd",
}

// schemaOf returns the schema file of a message, "" where no service writes such.
func schemaOf(message []byte) string {
	var root struct{ XMLName xml.Name }
	if xml.Unmarshal(message, &root) != nil {
		return ""
	}
	file, ok := schemas[root.XMLName.Space]
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(file, "config/"):
		return filepath.Join(repo, file)
	}
	return filepath.Join(shared, file)
}

// postAll posts n submissions over the whole table, ten at a time. A request
// that fails is repeated under its key, as portals do, until the context ends.
func postAll(ctx context.Context, t *testing.T, n int, seed uint64, target func() *router) []posted {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	type job struct {
		arrival
		key  string
		body []byte
	}
	jobs := make([]job, n)
	for i := range jobs {
		a := arrivals[i%len(arrivals)]
		name := "minimal"
		if rnd.IntN(3) == 0 {
			name = "rich"
		}
		with := map[string]any{"region": a.region, "test": nil, "caseId": nil}
		if rnd.IntN(4) == 0 {
			// A few cases with several submissions each.
			with["caseId"] = uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%d %d", seed, rnd.IntN(5))).String()
		}
		jobs[i] = job{a, fmt.Sprintf("run-%d-%d", seed, i), example(t, a.process, name, with)}
	}
	var mu sync.Mutex
	var done []posted
	var wg sync.WaitGroup
	queue := make(chan job)
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range queue {
				for ctx.Err() == nil {
					a, err := target().Post(j.portal, j.key, j.body)
					if err == nil && a.Status == 202 {
						var acc accepted
						if err := json.Unmarshal(a.Body, &acc); err != nil {
							t.Errorf("a 202 without its body: %s", a.Body)
						}
						mu.Lock()
						done = append(done, posted{j.arrival, acc, j.key})
						mu.Unlock()
						break
					}
					if err == nil && a.Status < 500 {
						t.Errorf("%s for %s refused: %d %s", j.process, j.region, a.Status, a.Body)
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
		}()
	}
	for _, j := range jobs {
		select {
		case queue <- j:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	return done
}

// account is what `router status --json` says.
type account struct {
	Accepted int
	States   map[string]int
	AddsUp   bool
}

func (r *router) account() account {
	r.t.Helper()
	var a account
	out, err := r.CLI("status", "--json")
	if err != nil {
		return a
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	return a
}

// settled waits until everything accepted is delivered.
func settled(t *testing.T, r *router, n int, within time.Duration) {
	t.Helper()
	eventually(t, within, func() (bool, string) {
		a := r.account()
		return a.AddsUp && a.Accepted == n && a.States["delivered"] == n, fmt.Sprintf("of %d: %+v", n, a)
	})
}

// One submission of each row of the table: every service, in every format that a
// destination of the Länder takes, arrives where it belongs and is valid.
func TestOneOfEachArrives(t *testing.T) {
	needShared(t)
	recv := startReceiver(t)
	r := newRouter(t)
	r.useReceiver(recv)
	r.importStandards()
	r.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	all := postAll(ctx, t, len(arrivals), 3, func() *router { return r })
	if len(all) != len(arrivals) {
		t.Fatalf("%d of %d accepted", len(all), len(arrivals))
	}
	settled(t, r, len(all), 2*time.Minute)
	l := landed(t, r, recv)
	l.check(t, all, false)
	l.validateAll(t)
}

// A thousand submissions over all services and both Länder, against Apache
// Kafka: each arrives exactly where the table says, every XML valid, the account
// of states adds up.
func TestThousandOnApacheKafka(t *testing.T) {
	needShared(t)
	cluster := kafkatest.Start(t)
	recv := startReceiver(t)
	r := newRouter(t, onKafka(cluster)...)
	r.useReceiver(recv)
	r.importStandards()
	r.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	all := postAll(ctx, t, 1000, 1, func() *router { return r })
	if len(all) != 1000 {
		t.Fatalf("%d of 1000 accepted", len(all))
	}
	t.Logf("1000 accepted in %s", time.Since(began).Round(time.Millisecond))
	settled(t, r, 1000, 2*time.Minute)
	t.Logf("1000 delivered in %s", time.Since(began).Round(time.Millisecond))
	l := landed(t, r, recv)
	l.check(t, all, false)
	l.validateAll(t)

	// The projection made anew from the log says the same.
	before := r.account()
	r.MustCLI("status", "rebuild")
	if after := r.account(); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("before the rebuild %+v, after it %+v", before, after)
	}
}

// onKafka is the environment of a router on a single-node cluster.
func onKafka(c *kafkatest.Cluster) []string {
	return []string{"WEICHE_KAFKA_BROKERS=" + strings.Join(c.Addrs(), ","), "WEICHE_KAFKA_REPLICATION_FACTOR=1",
		"WEICHE_KAFKA_MIN_INSYNC_REPLICAS=1", "WEICHE_KAFKA_ALLOW_UNSAFE=replication-factor,min-insync-replicas"}
}

// The router is killed ten times while portals post: nothing that was accepted
// is missing, and duplicates carry their first delivery id.
func TestKilledTenTimes(t *testing.T) {
	needShared(t)
	t.Run("embedded broker", func(t *testing.T) {
		t.Parallel()
		interrupt(t, 10, (*router).Kill, nil)
	})
	t.Run("Apache Kafka", func(t *testing.T) {
		t.Parallel()
		interrupt(t, 10, (*router).Kill, onKafka(kafkatest.Start(t)))
	})
}

// A router that is asked to stop while portals post loses nothing either,
// dead-letters nothing, and ends within its drain time.
func TestStoppedWhilePosting(t *testing.T) {
	needShared(t)
	interrupt(t, 3, func(r *router) {
		began := time.Now()
		r.Stop()
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the stop took %s", took)
		}
	}, nil)
}

// interrupt ends and starts the router so many times while portals post, and
// checks that everything accepted arrives where it belongs.
func interrupt(t *testing.T, times int, end func(*router), env []string) {
	recv := startReceiver(t)
	r := newRouter(t, env...)
	r.useReceiver(recv)
	r.importStandards()
	r.Start()
	n := 300
	if soak() {
		n = 3000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	// Portals see the address of the router that runs now.
	var mu sync.RWMutex
	result := make(chan []posted, 1)
	go func() {
		result <- postAll(ctx, t, n, 2, func() *router {
			mu.RLock()
			defer mu.RUnlock()
			return r
		})
	}()
	rnd := rand.New(rand.NewPCG(3, 3))
	for range times {
		time.Sleep(time.Duration(200+rnd.IntN(800)) * time.Millisecond)
		end(r)
		mu.Lock()
		err := r.start()
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	all := <-result
	if len(all) != n {
		t.Fatalf("%d of %d accepted", len(all), n)
	}
	settled(t, r, n, 3*time.Minute)
	landed(t, r, recv).check(t, all, true)
}
