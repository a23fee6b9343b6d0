package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"weiche/internal/fault"
	"weiche/internal/seal"
)

const subject = "6f1c2a34-5b6d-5e7f-8a9b-0c1d2e3f4a5b"

func someBox() *seal.Box {
	return &seal.Box{
		Subject: subject,
		Key:     seal.Wrapped{Land: "08", DayKey: "08/2026-11-22/0123456789abcdef0123456789abcdef", Bytes: bytes.Repeat([]byte{1, 2}, 30)},
		Sections: []seal.Section{
			{Name: "submission", Data: bytes.Repeat([]byte("s"), 4096)},
			{Name: "xml", Data: []byte{}},
		},
	}
}

func marshal(t testing.TB, b *seal.Box) []byte {
	t.Helper()
	out, err := b.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestABoxComesBackAsItWas(t *testing.T) {
	want := someBox()
	value := marshal(t, want)
	got, err := seal.ParseBox(value, subject)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	copied, before := new(seal.Box), bytes.Clone(value)
	if err := copied.UnmarshalBinary(value); err != nil {
		t.Fatal(err)
	}
	if d, ok := got.Section("submission"); !ok || len(d) != 4096 {
		t.Error("section submission is missing")
	}
	if _, ok := got.Section("other"); ok {
		t.Error("there is a section that nobody put")
	}
	got.Put("xml", []byte("new"))
	got.Put("third", []byte("3"))
	if d, _ := got.Section("xml"); string(d) != "new" || len(got.Sections) != 3 {
		t.Error("Put does not replace and add")
	}
	if marshal(t, got); !bytes.Equal(value, before) {
		t.Error("the record's bytes were changed through its box")
	}
	clear(value) // what UnmarshalBinary reads keeps nothing of the buffer
	if !reflect.DeepEqual(copied, want) {
		t.Error("the box changed with the bytes it was read from")
	}
}

func TestABoxOfAnotherSubmissionIsRefused(t *testing.T) {
	_, err := seal.ParseBox(marshal(t, someBox()), "another")
	wantFault(t, err, fault.Permanent, fault.ReasonUndecryptable)
}

func TestHostileBoxes(t *testing.T) {
	good := marshal(t, someBox())
	for i := range good {
		if i > 300 && i < len(good)-20 {
			continue
		}
		_, err := seal.ParseBox(good[:i], subject)
		wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)
	}
	_, err := seal.ParseBox(append(bytes.Clone(good), 0), subject)
	wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)
	next := bytes.Clone(good)
	next[0] = 2
	_, err = seal.ParseBox(next, subject)
	wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)

	// A length of 4 GB over a few bytes must cost nothing.
	huge := []byte{1, 0, 2, '0', '8', 0, 0, 0, 1, 1, 'x', 0xff, 0xff, 0xff, 0xff, 'y'}
	if n := testing.AllocsPerRun(10, func() { _, err = seal.ParseBox(huge, "") }); n > 20 {
		t.Errorf("%v allocations for a hostile length", n)
	}
	wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)
	twice := []byte{1, 0, 2, '0', '8', 0, 0, 0, 2, 1, 'x', 0, 0, 0, 0, 1, 'x', 0, 0, 0, 0}
	_, err = seal.ParseBox(twice, "")
	wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)
}

func TestABoxThatNobodyCouldReadIsNotWritten(t *testing.T) {
	for name, spoil := range map[string]func(*seal.Box){
		"subject":       func(b *seal.Box) { b.Subject = strings.Repeat("x", 65) },
		"Land":          func(b *seal.Box) { b.Key.Land = "" },
		"day key":       func(b *seal.Box) { b.Key.DayKey = strings.Repeat("x", 65) },
		"wrapped key":   func(b *seal.Box) { b.Key.Bytes = make([]byte, 257) },
		"unnamed":       func(b *seal.Box) { b.Sections[0].Name = "" },
		"long name":     func(b *seal.Box) { b.Sections[0].Name = strings.Repeat("x", 65) },
		"same name":     func(b *seal.Box) { b.Sections[0].Name = "xml" },
		"many sections": func(b *seal.Box) { b.Sections = make([]seal.Section, 33) },
		"size":          func(b *seal.Box) { b.Sections[0].Data = make([]byte, 65<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			b := someBox()
			spoil(b)
			_, err := b.MarshalBinary()
			var f *fault.Error
			if !errors.As(err, &f) || f.Class != fault.Permanent {
				t.Errorf("error %v; want a permanent fault", err)
			}
		})
	}
}

func FuzzBox(f *testing.F) {
	f.Add(marshal(f, someBox()))
	f.Add([]byte{1, 0, 2, '0', '8', 0, 0, 0, 1, 1, 'x', 0xff, 0xff, 0xff, 0xff, 'y'})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, value []byte) {
		var b seal.Box
		if err := b.UnmarshalBinary(value); err != nil {
			wantFault(t, err, fault.Permanent, fault.ReasonUndecodable)
			if !reflect.DeepEqual(b, seal.Box{}) {
				t.Error("a refused box left something behind")
			}
			return
		}
		if again := marshal(t, &b); !bytes.Equal(again, value) {
			t.Errorf("a box has two encodings: %x and %x", value, again)
		}
	})
}

// TestGoldenRecord opens a record, a stream and a key log entry of release 1: what
// lies in Kafka for years has to stay readable.
func TestGoldenRecord(t *testing.T) {
	golden := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "master-08.key"), golden("master-08.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &keyLog{entries: []entry{{string(golden("day-key-id")), golden("day-key")}}}
	box, err := seal.ParseBox(golden("box"), subject)
	if err != nil {
		t.Fatal(err)
	}
	key, err := open(t, dir, log).OpenDataKey(t.Context(), box.Key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _ := box.Section("submission")
	plain, err := key.Open(subject+"/submission", sealed)
	if err != nil || string(plain) != "Grüße aus Böblingen" {
		t.Errorf("section: %q, %v", plain, err)
	}
	plain, err = decrypt(key, "08/2026-11-22/a/b/1", golden("stream"))
	if err != nil || string(plain) != "Lageplan" {
		t.Errorf("stream: %q, %v", plain, err)
	}
}
