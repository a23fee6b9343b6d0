package test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"database/sql"
	"encoding/base64"
	endian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/uuid"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite"

	"weiche/internal/bus"
	"weiche/internal/bus/embedded"
	"weiche/internal/submission"
)

// canary makes words that stand nowhere by chance. All begin with the same stem,
// which is what is searched for; the rest says which field the word was in.
type canary struct {
	stem    string
	finders []finder
}

type finder struct {
	encoding string
	bytes    []byte
	fold     bool // in lower case, to be found in any case
}

func newCanary() *canary {
	id := uuid.New()
	var b strings.Builder
	b.WriteString("Qx")
	for _, c := range id[:12] {
		b.WriteByte("bcdfghjklmnpqrstvwxz"[int(c)%20])
	}
	c := &canary{stem: b.String()}
	add := func(encoding, text string, fold bool) {
		if fold {
			text = string(lower([]byte(text)))
		}
		c.finders = append(c.finders, finder{encoding, []byte(text), fold})
	}
	s := c.stem
	add("plain", s, true)
	for i := range 3 {
		// The characters that depend on the word alone, wherever it begins in the
		// bytes that were encoded.
		enc := base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00"[:i] + s + "\x00\x00\x00"))
		part := enc[(i*8+5)/6 : (i+len(s))*8/6]
		add(fmt.Sprintf("base64, alignment %d", i), part, false)
		if u := strings.NewReplacer("+", "-", "/", "_").Replace(part); u != part {
			add(fmt.Sprintf("base64url, alignment %d", i), u, false)
		}
	}
	add("hex", hex.EncodeToString([]byte(s)), true)
	every := func(encoding, format string) {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		add(encoding, b.String(), true)
	}
	every("percent", "%%%02x")
	every("quoted-printable", "=%02x")
	every("JSON escapes", `\u%04x`)
	every("XML references", "&#%d;")
	every("XML references, hex", "&#x%x;")
	units := utf16.Encode([]rune(s))
	le, be := make([]byte, 2*len(units)), make([]byte, 2*len(units))
	for i, u := range units {
		endian.LittleEndian.PutUint16(le[2*i:], u)
		endian.BigEndian.PutUint16(be[2*i:], u)
	}
	add("UTF-16LE", string(le), true)
	add("UTF-16BE", string(be), true)
	return c
}

// word is the canary for a field.
func (c *canary) word(field string) string { return c.stem + field }

// member is the canary as the name of a JSON member. A problem document points
// to what is wrong by names, and goes to whoever wrote them; so there, in
// pointers, it may stand, and nowhere else.
func (c *canary) member(field string) string { return c.stem + "member" + field }

var pointers = regexp.MustCompile(`"pointer":"[^"]*"`)

// withoutMembers takes member names out of a problem document's pointers.
func (c *canary) withoutMembers(document []byte) []byte {
	name := regexp.MustCompile(c.stem + "member[a-z]*")
	return pointers.ReplaceAllFunc(document, func(p []byte) []byte { return name.ReplaceAll(p, nil) })
}

// hashes adds the hashes that anybody could make of a word: a reference that is
// stored as one of those can be guessed.
func (c *canary) hashes(word string) {
	m, s1, s2, s5 := md5.Sum([]byte(word)), sha1.Sum([]byte(word)), sha256.Sum256([]byte(word)), sha512.Sum512([]byte(word))
	for name, h := range map[string][]byte{"MD5": m[:], "SHA-1": s1[:], "SHA-256": s2[:], "SHA-512": s5[:]} {
		c.finders = append(c.finders, finder{name, h, false}, finder{name + " in hex", []byte(hex.EncodeToString(h)), true},
			finder{name + " in base64", []byte(base64.RawStdEncoding.EncodeToString(h)), false}, finder{name + " in base64url", []byte(base64.RawURLEncoding.EncodeToString(h)), false})
	}
}

func lower(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		out[i] = c
	}
	return out
}

// find says how the canary stands in b: as it is, and in whatever is compressed
// in it. Each finding names the encodings and shows what follows.
func (c *canary) find(b []byte) []string { return c.search(b, "", 0) }

func (c *canary) search(b []byte, inside string, depth int) (out []string) {
	low := lower(b)
	for _, f := range c.finders {
		in := b
		if f.fold {
			in = low
		}
		if i := bytes.Index(in, f.bytes); i >= 0 {
			out = append(out, fmt.Sprintf("%s%s: …%.120q", inside, f.encoding, b[max(0, i-40):min(len(b), i+len(f.bytes)+40)]))
		}
	}
	if depth == 3 {
		return out
	}
	for _, d := range decompressed(b) {
		out = append(out, c.search(d.data, inside+d.codec+" › ", depth+1)...)
	}
	return out
}

type inflated struct {
	codec string
	data  []byte
}

const maxInflated = 64 << 20

// decompressed returns what can be decompressed, wherever in b it begins.
func decompressed(b []byte) (out []inflated) {
	codecs := []struct {
		name, magic string
		open        func(io.Reader) (io.Reader, error)
	}{
		{"gzip", "\x1f\x8b\x08", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"zstd", "\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) }},
		{"lz4", "\x04\x22\x4d\x18", func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
		{"snappy", "\xff\x06\x00\x00sNaPpY", func(r io.Reader) (io.Reader, error) { return snappy.NewReader(r), nil }},
		{"zlib", "\x78\x01", func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
		{"zlib", "\x78\x5e", func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
		{"zlib", "\x78\x9c", func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
		{"zlib", "\x78\xda", func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
	}
	for _, c := range codecs {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte(c.magic))
			if i < 0 {
				break
			}
			at += i
			r, err := c.open(bytes.NewReader(b[at:]))
			if err != nil {
				continue
			}
			got, _ := io.ReadAll(io.LimitReader(r, maxInflated)) // what came before the end of the sense counts
			if z, ok := r.(*zstd.Decoder); ok {
				z.Close()
			}
			if len(got) > 8 {
				out = append(out, inflated{c.name, got})
			}
		}
	}
	return append(out, batches(b)...)
}

// batches returns the records of every compressed Kafka record batch in b.
func batches(b []byte) (out []inflated) {
	const header = 61
	table := crc32.MakeTable(crc32.Castagnoli)
	for i := 0; i+header <= len(b); i++ {
		if b[i+16] != 2 {
			continue
		}
		length := int(int32(endian.BigEndian.Uint32(b[i+8:])))
		end := i + 12 + length
		if length < header-12 || end > len(b) || crc32.Checksum(b[i+21:end], table) != endian.BigEndian.Uint32(b[i+17:]) {
			continue
		}
		if codec := kgo.CompressionCodecType(endian.BigEndian.Uint16(b[i+21:]) & 7); codec != kgo.CodecNone {
			if got, err := kgo.DefaultDecompressor().Decompress(b[i+header:end], codec); err == nil {
				out = append(out, inflated{fmt.Sprintf("record batch (codec %d)", codec), got})
			}
		}
		i = end - 1
	}
	return out
}

// cells hands every cell of an SQLite database to fn.
func cells(file string, fn func(place string, b []byte)) (n int, err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var tables []string
	rows, err := db.Query("SELECT name FROM sqlite_master WHERE type = 'table'")
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, err
		}
		tables = append(tables, name)
	}
	rows.Close()
	for _, table := range tables {
		rows, err := db.Query(`SELECT * FROM "` + table + `"`)
		if err != nil {
			return n, err
		}
		columns, err := rows.Columns()
		if err != nil {
			return n, err
		}
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return n, err
			}
			for i, v := range values {
				n++
				if b, ok := v.([]byte); ok {
					fn(table+"."+columns[i], b)
				} else {
					fn(table+"."+columns[i], fmt.Append(nil, v))
				}
			}
		}
		if err := rows.Close(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// The search finds the word wherever it is planted, in every encoding; otherwise
// finding nothing would say nothing.
func TestCanaryIsFoundWhereItIs(t *testing.T) {
	c := newCanary()
	text := `{"familienname":"` + c.word("name") + `","x":1}`
	compress := func(open func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		w := open(&b)
		io.WriteString(w, text)
		w.Close()
		return b.Bytes()
	}
	gz := compress(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	planted := map[string][]byte{
		"plain":           []byte(text),
		"lower case":      []byte(strings.ToLower(text)),
		"upper case":      []byte(strings.ToUpper(text)),
		"hex":             []byte(hex.EncodeToString([]byte(text))),
		"HEX":             []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))),
		"query":           []byte(url.QueryEscape(text)),
		"gzip":            gz,
		"gzip in a file":  append([]byte("something before it"), gz...),
		"zlib":            compress(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		"zstd":            compress(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }),
		"lz4":             compress(func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }),
		"snappy":          compress(func(w io.Writer) io.WriteCloser { return snappy.NewBufferedWriter(w) }),
		"broken off gzip": compress(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })[:len(gz)-4],
	}
	for i := range 3 {
		planted[fmt.Sprintf("base64 behind %d bytes", i)] = []byte(base64.StdEncoding.EncodeToString([]byte("abc"[:i] + text)))
		planted[fmt.Sprintf("base64url behind %d bytes", i)] = []byte(base64.RawURLEncoding.EncodeToString([]byte("abc"[:i] + text)))
	}
	for name, format := range map[string]string{"percent": "%%%02X", "quoted-printable": "=%02X", "JSON escapes": `\u%04x`, "XML references": "&#%d;", "UTF-16LE": "%c\x00", "UTF-16BE": "\x00%c"} {
		var b bytes.Buffer
		for _, r := range []byte(text) {
			fmt.Fprintf(&b, format, r)
		}
		planted[name] = b.Bytes()
	}
	for name, b := range planted {
		if len(c.find(b)) == 0 {
			t.Errorf("%s: not found", name)
		}
		if got := newCanary().find(b); len(got) > 0 {
			t.Errorf("%s: another word is found: %v", name, got)
		}
	}

	// Kafka: header, value and key, read as the test reads them, and the broker's
	// files with each compression.
	for _, codec := range []struct {
		name string
		opt  kgo.CompressionCodec
	}{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}} {
		t.Run("Kafka, compression "+codec.name, func(t *testing.T) {
			dir, addrs := embeddedBroker(t)
			topic := "planted." + codec.name
			b, err := bus.Open(t.Context(), bus.Config{Brokers: addrs, ClientID: "test", ReplicationFactor: 1, MinInSyncReplicas: 1}, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			if err := b.EnsureTopics(t.Context(), []bus.Topic{{Name: topic, Partitions: 1, RetentionMS: -1}}); err != nil {
				t.Fatal(err)
			}
			cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ProducerBatchCompression(codec.opt))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			blank := strings.Repeat("nothing to see here ", 200) // so that compressing pays
			for _, rec := range []*kgo.Record{
				{Topic: topic, Value: []byte(blank + text + blank)},
				{Topic: topic, Value: []byte(blank), Headers: []kgo.RecordHeader{{Key: "ce_subject", Value: []byte(c.word("header"))}}},
				{Topic: topic, Value: []byte(blank), Headers: []kgo.RecordHeader{{Key: c.word("name"), Value: []byte("x")}}},
				{Topic: topic, Value: []byte(blank), Key: []byte(c.word("key"))},
			} {
				if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			found := 0
			readAll(t, b, topic, func(rec *bus.Record) {
				if len(c.findRecord(rec)) > 0 {
					found++
				}
			})
			if found != 4 {
				t.Errorf("found in %d of 4 records", found)
			}
			s := &search{t: t, canary: c, exempt: func(string) bool { return false }}
			s.files(dir)
			if len(s.findings) == 0 {
				t.Error("not found in the broker's files")
			}
		})
	}

	// SQLite: the cells, and the bytes of the files.
	dir := t.TempDir()
	file := filepath.Join(dir, "planted.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`PRAGMA journal_mode=WAL; CREATE TABLE t (a TEXT, b BLOB); INSERT INTO t VALUES ('x', ?)`, gz); err != nil {
		t.Fatal(err)
	}
	in := ""
	if _, err := cells(file, func(place string, b []byte) {
		if len(c.find(b)) > 0 {
			in = place
		}
	}); err != nil || in != "t.b" {
		t.Errorf("found in cell %q, want t.b: %v", in, err)
	}
	s := &search{t: t, canary: c, exempt: func(string) bool { return false }}
	s.files(dir)
	if len(s.findings) == 0 {
		t.Error("not found in the database's files")
	}

	// What is let through is a member's name in a pointer, and nothing more.
	document := fmt.Sprintf(`{"detail":"x","errors":[{"pointer":"/data/%s"}]}`, c.member("feld"))
	if got := c.find(c.withoutMembers([]byte(document))); len(got) > 0 {
		t.Errorf("a member's name in a pointer: %v", got)
	}
	for _, leak := range []string{strings.ReplaceAll(document, "member", "wert"), strings.ReplaceAll(document, "x", c.member("feld"))} {
		if len(c.find(c.withoutMembers([]byte(leak)))) == 0 {
			t.Errorf("not found in %s", leak)
		}
	}

	// A name is a place too, and hashes that anybody could make.
	if err := os.WriteFile(filepath.Join(dir, c.word("file")+".pdf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = &search{t: t, canary: c, exempt: func(p string) bool { return strings.HasSuffix(p, ".db") || strings.Contains(p, ".db-") }}
	s.files(dir)
	if len(s.findings) != 1 {
		t.Errorf("a file's name: %v", s.findings)
	}
	c.hashes("reference")
	sum := sha256.Sum256([]byte("reference"))
	for _, b := range [][]byte{sum[:], []byte(hex.EncodeToString(sum[:])), []byte(base64.StdEncoding.EncodeToString(sum[:]))} {
		if len(c.find(b)) == 0 {
			t.Errorf("a plain hash is not found: %q", b)
		}
	}
}

// embeddedBroker starts the embedded broker on a directory.
func embeddedBroker(t *testing.T) (dir string, addrs []string) {
	t.Helper()
	dir = t.TempDir()
	broker, err := embedded.Start(dir, embedded.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	return dir, broker.Addrs()
}

// findRecord searches key, value and headers of a record.
func (c *canary) findRecord(rec *bus.Record) (out []string) {
	add := func(where string, b []byte) {
		for _, f := range c.find(b) {
			out = append(out, where+": "+f)
		}
	}
	add("key", rec.Key)
	add("value", rec.Value)
	for k, v := range rec.Headers {
		add("header name", []byte(k))
		add("header "+k, []byte(v))
	}
	return out
}

// search collects findings.
type search struct {
	t        *testing.T
	canary   *canary
	exempt   func(path string) bool // below the directory that is searched
	findings []string
	allowed  []string // findings where the word may be
	bytes    int64
}

func (s *search) in(place string, b []byte) {
	s.bytes += int64(len(b))
	for _, f := range s.canary.find(b) {
		s.findings = append(s.findings, place+": "+f)
	}
}

// files searches names and bytes of all files below a directory.
func (s *search) files(dir string) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while we looked
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		into := &s.findings
		if s.exempt(rel) {
			into = &s.allowed
		}
		add := func(what string, b []byte) {
			for _, f := range s.canary.find(b) {
				*into = append(*into, what+" "+rel+": "+f)
			}
		}
		add("the name of", []byte(filepath.Base(rel)))
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.bytes += int64(len(b))
		add("file", b)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// ownPlaces says which paths below the data directory hold plain text by design:
// the portals' intake topics, the Fachverfahren's topics and directories.
func ownPlaces(rel string) bool {
	for _, p := range []string{"outbox/", "kafka/log/partitions/weiche.intake.", "kafka/log/partitions/fv."} {
		if strings.HasPrefix(rel, p) {
			return true
		}
	}
	return false
}

// canarySubmission is a trade registration with the word in every field of the
// form's, the attachments' and the envelope's that a person fills.
func canarySubmission(t *testing.T, c *canary, region string, with map[string]any) []byte {
	t.Helper()
	content := []byte(strings.Repeat("%PDF-1.4 "+c.word("content")+"\n", 40))
	v := map[string]any{
		"publicService":           map[string]any{"identifier": "urn:de:fim:leika:leistung:" + serviceTrade, "name": c.word("service")},
		"region":                  region,
		"additionalReferenceInfo": map[string]any{"senderReference": c.word("reference"), "applicationDate": "2026-11-22"},
		"submissionSchema":        map[string]any{"schemaUri": "urn:" + c.word("schema"), "mimeType": "application/json"},
		"replyChannel":            map[string]any{"deMail": map[string]any{"address": c.word("reply") + "@example.de-mail.de"}},
		"data": map[string]any{
			"inhaber": []any{map[string]any{
				"vorname": c.word("vorname"), "familienname": "Müller-" + c.word("familienname"), "geburtsdatum": "1988-04-12",
				"anschrift": map[string]any{"strasse": c.word("strasse"), "hausnummer": "16", "postleitzahl": "71032", "ort": c.word("ort")},
			}},
			"betrieb": map[string]any{
				"name": c.word("betrieb"), "taetigkeit": "Handel mit " + c.word("taetigkeit"), "beginn": "2026-12-01",
				"anschrift": map[string]any{"strasse": "Poststraße", "hausnummer": "3", "postleitzahl": "71032", "ort": "Böblingen"},
			},
		},
		"attachments": []any{map[string]any{
			"attachmentId": c.word("kennung") + "-1", "filename": c.word("datei") + " ä.pdf", "mimeType": "application/pdf", "purpose": "attachment",
			"description": c.word("beschreibung"), "hash": map[string]any{"type": "sha512", "content": hashOf(content)},
			"content": base64.StdEncoding.EncodeToString(content),
		}},
	}
	for k, x := range with {
		if x == nil {
			delete(v, k)
		} else {
			v[k] = x
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// multipartSubmission is canarySubmission with a file of 700 KB as a part.
func multipartSubmission(t *testing.T, c *canary, region string) (contentType string, body []byte) {
	t.Helper()
	content := []byte(strings.Repeat(c.word("grosse datei")+" ", 20000))
	sub := canarySubmission(t, c, region, map[string]any{"attachments": []any{map[string]any{
		"attachmentId": uuid.NewString(), "filename": c.word("plan") + ".pdf", "mimeType": "application/pdf", "purpose": "attachment",
		"hash": map[string]any{"type": "sha512", "content": hashOf(content)}, "part": c.word("teil"),
	}}})
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="submission"`}, "Content-Type": {"application/json"}})
	if err == nil {
		_, err = p.Write(sub)
	}
	if err == nil {
		p, err = w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, c.word("teil"), c.word("teilname")+".pdf")},
			"Content-Type": {"application/pdf"}, "X-" + c.word("kopf"): {c.word("kopfwert")}})
	}
	if err == nil {
		_, err = p.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.Bytes()
}

// faulty is every kind of fault a submission can have, each with the word in it.
func faulty(t *testing.T, c *canary) map[string][]byte {
	t.Helper()
	const s = regionBoeblngen
	one := func(path string, value any) []byte {
		var v map[string]any
		if err := json.Unmarshal(canarySubmission(t, c, s, nil), &v); err != nil {
			t.Fatal(err)
		}
		keys := strings.Split(path, "/")
		var at any = v
		for _, k := range keys[:len(keys)-1] {
			at = at.(map[string]any)[k]
			if list, ok := at.([]any); ok {
				at = list[0]
			}
		}
		at.(map[string]any)[keys[len(keys)-1]] = value
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	w, name := c.word, c.member
	deep := fmt.Sprintf(`{"data":%s%q%s}`, strings.Repeat(`{"`+name("tief")+`":`, 3000), w("tief"), strings.Repeat("}", 3000))
	return map[string][]byte{
		"no JSON":                   []byte(`{"` + name("kaputt") + `": ` + w("kaputt")),
		"a word":                    []byte(w("wort")),
		"a string":                  []byte(`"` + w("text") + `"`),
		"cut off":                   canarySubmission(t, c, s, nil)[:700],
		"twice":                     []byte(`{"` + name("doppelt") + `":1,"` + name("doppelt") + `":2}`),
		"twice in the form":         []byte(`{"data":{"` + name("doppelt") + `":1,"` + name("doppelt") + `":2}}`),
		"too deep":                  []byte(deep),
		"not UTF-8":                 []byte("{\"" + w("bytes") + "\xff\":1}"),
		"control character":         []byte(`{"data":"` + w("steuer") + `\u0001"}`),
		"half a surrogate":          []byte(`{"data":"` + w("surrogat") + `\ud800"}`),
		"behind the end":            append(canarySubmission(t, c, s, nil), w("danach")...),
		"long number":               []byte(`{"data":1` + strings.Repeat("0", 5000) + `,"x":"` + w("zahl") + `"}`),
		"unknown service":           one("publicService/identifier", "99"+w("leistung")),
		"service of nobody":         one("publicService/identifier", "99999999999999"),
		"malformed region":          one("region", w("region")),
		"Land not served":           one("region", "DE09162"),
		"Land of another":           one("region", "DE146120000000"),
		"caseId":                    one("caseId", w("fall")),
		"trust level":               one("trustLevel", w("vertrauen")),
		"date":                      one("additionalReferenceInfo/applicationDate", w("datum")),
		"reference of a wrong type": one("additionalReferenceInfo/senderReference", []any{w("reference")}),
		"reply channel":             one("replyChannel", map[string]any{name("kanal"): w("kanal")}),
		"reply channel, a text":     one("replyChannel", w("kanal")),
		"test":                      one("test", w("test")),
		"unknown member":            one(name("mitglied"), w("mitglied")),
		"form: a text":              one("data", w("formular")),
		"form: unknown member":      one("data/"+name("feld"), w("feld")),
		"form: wrong date":          one("data/inhaber/geburtsdatum", w("geburt")),
		"form: wrong type":          one("data/inhaber/vorname", map[string]any{name("vorname"): w("vorname")}),
		"form: too long":            one("data/betrieb/taetigkeit", strings.Repeat(w("lang")+" ", 3000)),
		"form: not of a list":       one("data/grund", w("grund")),
		"form: letters":             one("data/betrieb/taetigkeit", "Иванов "+w("schrift")),
		"form: number":              one("data/betrieb/nebenerwerb", w("nein")),
		"attachment type":           one("attachments/mimeType", w("medientyp")),
		"attachment purpose":        one("attachments/purpose", w("zweck")),
		"attachment content":        one("attachments/content", "***"+w("inhalt")),
		"other content":             one("attachments/content", base64.StdEncoding.EncodeToString([]byte(w("inhalt")))),
		"attachment hash":           one("attachments/hash", map[string]any{"type": "sha512", "content": w("hash")}),
		"attachment part":           one("attachments/part", w("teil")),
		"file name, a number":       one("attachments/filename", map[string]any{name("datei"): w("datei")}),
		"file name, a path":         one("attachments/filename", "../../"+w("datei")+"\x00/"+strings.Repeat("ä", 300)),
	}
}

// A word in a form, in file names, in a reference, posted over HTTP and over
// Kafka, sound and faulty in every way, delivered, dead, unassigned, waiting,
// rejected: afterwards it is nowhere but in the portals' and Fachverfahren's own
// topics and directories.
func TestCanary(t *testing.T) {
	c := newCanary()
	c.hashes(c.word("reference"))
	tmp := t.TempDir()
	r := newRouter(t, "WEICHE_LOG_LEVEL=debug", "TMPDIR="+tmp)
	r.widenForm()
	fv := startStubborn(t, 422)
	r.useStubborn(fv)
	r.Start()
	b := connect(t, r.Kafka)
	s := &search{t: t, canary: c, exempt: ownPlaces}

	const file, topic, hostile, nobody = regionBoeblngen, "081110000000", "081150045045", regionNobody
	var ids []string
	header := map[string]string{"Traceparent": "00-" + c.word("spur"), "User-Agent": c.word("agent"), "X-Request-Id": c.word("anfrage"), "Accept-Language": c.word("sprache"), "Referer": "https://" + c.word("herkunft")}
	post := func(name, contentType string, body []byte, more map[string]string) answer {
		t.Helper()
		h := map[string]string{"Content-Type": contentType, "Idempotency-Key": c.word("schluessel") + name}
		for k, v := range header {
			h[k] = v
		}
		for k, v := range more {
			if v == "" {
				delete(h, k)
			} else {
				h[k] = v
			}
		}
		a, err := r.do("POST", "/v1/submissions", r.Keys["service-bw"], h, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		s.in("the answer to "+name, c.withoutMembers(a.Body))
		s.in("the header of the answer to "+name, fmt.Append(nil, a.Header))
		return a
	}
	record := func(name string, body []byte) string {
		t.Helper()
		rec := intakeRecord("service-bw", c.word("schluessel")+name, body)
		for k, v := range map[string]string{"ce_source": "/" + c.word("quelle"), "ce_subject": c.word("betreff"), "traceparent": c.word("spur"), "x-" + c.word("kopf"): c.word("kopf")} {
			rec.Headers[k] = v
		}
		if err := b.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		return submission.NewID("service-bw", rec.Headers["ce_id"]).String()
	}
	state := func(want string, list ...string) {
		t.Helper()
		for _, id := range list {
			eventually(t, 20*time.Second, func() (bool, string) {
				var v struct{ State string }
				_, body := r.operators(t, "GET", "submissions/"+id, nil)
				return json.Unmarshal(body, &v) == nil && v.State == want, fmt.Sprintf("%s should be %s: %.300s", id, want, body)
			})
		}
		ids = append(ids, list...)
	}
	both := func(name, want, region string, with map[string]any) []string {
		t.Helper()
		body := canarySubmission(t, c, region, with)
		pair := []string{post(name, "application/json", body, nil).accepted(t).SubmissionID, record(name+"-topic", body)}
		state(want, pair...)
		return pair
	}

	// Sound ones, in every state.
	both("to a file", "delivered", file, nil)
	both("to a topic", "delivered", topic, nil)
	contentType, body := multipartSubmission(t, c, file)
	parts := post("in parts", contentType, body, nil).accepted(t).SubmissionID
	state("delivered", parts)
	dead := both("refused for good", "dead", hostile, nil)
	fv.Status.Store(503)
	both("waiting", "waiting", hostile, nil)
	fv.Status.Store(401)
	both("behind a door that is shut", "waiting", hostile, nil)
	lost := both("for nobody", "unassigned", nobody, nil)
	cyrillic := map[string]any{}
	if err := json.Unmarshal(canarySubmission(t, c, file, nil), &cyrillic); err != nil {
		t.Fatal(err)
	}
	replaceNames(cyrillic["data"], "Иванов "+c.word("name"))
	invalid := both("against its schema", "unassigned", nobody, map[string]any{"data": cyrillic["data"]})
	for _, id := range invalid {
		r.MustCLI("assign", id, "boeblingen-gewerbe")
	}
	state("dead", invalid...)
	both("a long file name", "delivered", file, map[string]any{"attachments": []any{longName(c)}})

	// Repeats and the same key with another body.
	if a := post("to a file", "application/json", canarySubmission(t, c, file, map[string]any{"trustLevel": "STORK-QAA-Level-4"}), nil); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("another body under the same key: %d %s", a.Status, a.Body)
	}

	// What operators do.
	r.MustCLI("assign", lost[0], "boeblingen-gewerbe")
	state("delivered", lost[0])
	r.MustCLI("dlq", "close", invalid[0], "--reason", "cannot be written in the standard")
	state("rejected", invalid[0])
	r.MustCLI("dlq", "redrive", dead[0])

	// Faulty ones.
	refused := 0
	for name, body := range faulty(t, c) {
		if a := post(name, "application/json", body, nil); a.Status < 400 {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		record(name, body)
		refused++
	}
	building := func() []byte {
		return example(t, "baugenehmigung", "minimal", map[string]any{"additionalReferenceInfo": map[string]any{"senderReference": c.word("reference")}})
	}
	post("standard not installed", "application/json", building(), nil)
	record("standard not installed", building())
	refused++
	for name, h := range map[string]map[string]string{
		"no key": {"Idempotency-Key": ""}, "a malformed key": {"Idempotency-Key": c.word("schluessel") + "ä"}, "a long key": {"Idempotency-Key": strings.Repeat(c.word("lang"), 30)},
		"a media type": {"Content-Type": "text/" + c.word("typ")}, "a malformed media type": {"Content-Type": c.word("typ") + ";;="},
		"an encoding":     {"Content-Encoding": c.word("kodierung")},
		"no boundary":     {"Content-Type": "multipart/form-data"},
		"other boundary":  {"Content-Type": "multipart/form-data; boundary=" + c.word("grenze")},
		"an unknown key":  {"Authorization": "Bearer " + c.word("token")},
		"a malformed one": {"Authorization": c.word("schema") + " " + c.word("token")},
		"a token": {"Authorization": "Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." +
			base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+c.word("aussteller")+`","sub":"`+c.word("nutzer")+`"}`)) + ".c2lnbmF0dXJl"},
	} {
		if a := post("with "+name, "application/json", canarySubmission(t, c, file, nil), h); a.Status < 400 {
			t.Errorf("with %s: %d %s", name, a.Status, a.Body)
		}
	}
	post("broken parts", contentType, body[:len(body)-3000], nil)
	for _, path := range []string{"/v1/submissions/" + c.word("id"), "/v1/submissions/" + c.word("id") + "/events", "/" + c.word("pfad"), "/v1/submissions?x=" + c.word("frage")} {
		for _, method := range []string{"GET", "DELETE", "BREW"} {
			a, err := r.do(method, path, r.Keys["service-bw"], header, strings.NewReader(c.word("rumpf")))
			if err != nil {
				t.Fatal(err)
			}
			s.in("the answer to "+method+" "+strings.ReplaceAll(path, c.stem, "…"), a.Body)
		}
	}
	for _, rec := range []*bus.Record{
		{Topic: "weiche.intake.service-bw", Partition: bus.AnyPartition, Key: []byte(c.word("schluessel")), Value: []byte(c.word("nackt"))},
		{Topic: "weiche.intake.service-bw", Partition: bus.AnyPartition, Headers: map[string]string{"ce_id": strings.Repeat(c.word("lang"), 100)}, Value: canarySubmission(t, c, file, nil)},
		{Topic: "weiche.intake.service-bw", Partition: bus.AnyPartition, Headers: map[string]string{c.word("kopf"): c.word("kopf")}, Value: canarySubmission(t, c, file, nil)},
	} {
		if err := b.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		refused++
	}
	eventually(t, 20*time.Second, func() (bool, string) {
		_, body := r.operators(t, "GET", "refusals?limit=500", nil)
		n := strings.Count(string(body), `"reason"`)
		return n == refused, fmt.Sprintf("%d of %d records are refused", n, refused)
	})
	if a := r.account(); !a.AddsUp {
		t.Errorf("%+v", a)
	}

	// What portals and operators are told.
	for _, id := range ids {
		for _, path := range []string{"/v1/submissions/" + id, "/v1/submissions/" + id + "/events"} {
			a, err := r.do("GET", path, r.Keys["service-bw"], nil, nil)
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("GET %s: %d %v", path, a.Status, err)
			}
			s.in("the portal's "+path, a.Body)
		}
		status, body := r.operators(t, "GET", "submissions/"+id, nil)
		if status != http.StatusOK {
			t.Errorf("operators' API on %s: %d", id, status)
		}
		s.in("operators' API on a submission", body)
		r.MustCLI("trace", id)
		r.MustCLI("trace", id, "--json")
	}
	for _, path := range []string{"submissions?limit=500", "dead-letters?limit=500", "unassigned?limit=500", "refusals?limit=500", "destinations", "account", "abandoned?age=1ms", "status/checkpoints"} {
		status, body := r.operators(t, "GET", path, nil)
		if status != http.StatusOK {
			t.Errorf("operators' API, %s: %d %s", path, status, body)
		}
		s.in("operators' API, "+path, body)
	}
	// The reference can be searched by, and is shown nowhere.
	status, found := r.operators(t, "GET", "submissions?limit=500&sender_reference="+url.QueryEscape(c.word("reference")), nil)
	if status != http.StatusOK || strings.Count(string(found), `"state"`) < len(ids) {
		t.Errorf("searching by reference: %d %.300s", status, found)
	}
	s.in("operators' API by reference", found)
	for _, bad := range []string{"submissions?state=" + c.word("state"), "submissions/" + c.word("id"), "submissions?" + c.word("x") + "=1", c.word("pfad")} {
		_, body := r.operators(t, "GET", bad, nil)
		s.in("operators' API, a malformed request", body)
	}
	for _, state := range []string{"dead", "unassigned", "refused"} {
		r.MustCLI("dlq", "list", "--state", state)
	}
	r.MustCLI("destinations")
	for _, path := range []string{"/metrics", "/readyz", "/livez"} {
		res, err := client.Get(r.Ops + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		s.in(path, text)
	}

	// Kafka: every record of every topic. What the router keeps is there, sealed.
	partitions, _ := filepath.Glob(filepath.Join(r.Data, "kafka/log/partitions/*"))
	topics := map[string]int{}
	for _, p := range partitions {
		name := filepath.Base(p)
		topics[name[:strings.LastIndex(name, "-")]] = 0
	}
	plain := map[string]int{}
	for name := range topics {
		readAll(t, b, name, func(rec *bus.Record) {
			topics[name]++
			for _, f := range c.findRecord(rec) {
				if strings.HasPrefix(name, "fv.") || strings.HasPrefix(name, "weiche.intake.") {
					plain[name]++
				} else {
					s.findings = append(s.findings, fmt.Sprintf("record %s/%d@%d, %s", name, rec.Partition, rec.Offset, f))
				}
			}
		})
	}
	for _, name := range []string{"weiche.claims", "weiche.submissions", "weiche.deliveries", "weiche.waiting", "weiche.unassigned", "weiche.deadletters", "weiche.events", "weiche.keys"} {
		if topics[name] == 0 {
			t.Errorf("nothing was read from %s", name)
		}
	}
	if plain["fv.stuttgart.gewerbe"] == 0 {
		t.Error("the Fachverfahren's topic does not have the word: what is searched for is not what was posted")
	}
	// The intake topics are cut soon after they were read.
	eventually(t, 20*time.Second, func() (bool, string) {
		left := 0
		readAll(t, b, "weiche.intake.service-bw", func(rec *bus.Record) { left += len(c.findRecord(rec)) })
		return left == 0, fmt.Sprintf("the intake topic still has the word %d times", left)
	})

	// A cut topic goes on after a kill where it was.
	r.Kill()
	r.Start()
	eventually(t, 20*time.Second, func() (bool, string) {
		err := b.Ping(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	state("delivered", record("after a kill", canarySubmission(t, c, file, nil)))
	eventually(t, 20*time.Second, func() (bool, string) {
		left := 0
		readAll(t, b, "weiche.intake.service-bw", func(rec *bus.Record) { left += len(c.findRecord(rec)) })
		return left == 0, fmt.Sprintf("after a kill the intake topic has the word %d times", left)
	})

	// The data directory: while the router runs, and after its end.
	database := func(when string) {
		t.Helper()
		n, err := cells(filepath.Join(r.Data, "status.db"), func(place string, b []byte) { s.in("database cell "+place+", "+when, b) })
		if err != nil || n < 100 {
			t.Errorf("%d cells of the status store, %s: %v", n, when, err)
		}
	}
	database("running")
	s.files(r.Data)
	s.files(tmp)
	r.Stop()
	database("stopped")
	s.allowed = nil
	s.files(r.Data)
	s.files(tmp)
	s.in("the log", []byte(r.Log()))
	if !strings.Contains(r.Log(), `"level":"DEBUG"`) || !strings.Contains(r.Log(), ids[0]) {
		t.Error("the log is not what was expected: no debug lines, or not of these submissions")
	}
	outbox, intake := 0, map[string]bool{}
	for _, f := range s.allowed {
		if strings.Contains(f, " outbox/") {
			outbox++
		}
		if rel := strings.TrimPrefix(f, "file "); strings.HasPrefix(rel, "kafka/log/partitions/weiche.intake.") {
			rel, _, _ = strings.Cut(rel, ":")
			intake[rel] = true
		}
	}
	if outbox == 0 {
		t.Error("the outbox does not have the word")
	}
	// Cut records have left the embedded broker's disk too. (A cluster keeps them
	// until their file is full or old, as its settings say.)
	for rel := range intake {
		t.Errorf("the cut intake topic still has the word in %s", rel)
	}
	seen := map[string]bool{}
	for _, f := range s.findings {
		if !seen[f] {
			seen[f] = true
			t.Errorf("found in %s", f)
		}
	}
	t.Logf("searched %d MB: %d submissions, %d refused records", s.bytes>>20, len(ids), refused)
}

// longName is an attachment with the longest name that a portal may send.
func longName(c *canary) map[string]any {
	content := []byte(c.word("content"))
	name := c.word("datei") + strings.Repeat("ä", 200)
	return map[string]any{"attachmentId": uuid.NewString(), "filename": name + ".pdf", "mimeType": "application/pdf", "purpose": "attachment",
		"hash": map[string]any{"type": "sha512", "content": hashOf(content)}, "content": base64.StdEncoding.EncodeToString(content)}
}

// operators asks the operators' API as the local operator.
func (r *router) operators(t *testing.T, method, path string, body io.Reader) (int, []byte) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(r.Data, "operator.token"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, r.Ops+"/api/v1/"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b
}

// hashOf is the SHA-512 that an attachment declares.
func hashOf(b []byte) string {
	s := sha512.Sum512(b)
	return hex.EncodeToString(s[:])
}
