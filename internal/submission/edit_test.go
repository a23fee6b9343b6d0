package submission

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func mustForm(t interface{ Fatal(...any) }, text string) any {
	form, err := (&Envelope{Data: json.RawMessage(text)}).Form()
	if err != nil {
		t.Fatal(text, err)
	}
	return form
}

func TestChanges(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`{"a":1}`, `{"a":1}`, ``},
		{`{"a":1,"b":"x"}`, `{"b":"y","a":1}`, `/b "x" "y"`},
		{`{"a":1}`, `{"a":1.0}`, `/a 1 1.0`},
		{`{"a":12345678901234567890}`, `{"a":12345678901234567891}`, `/a 12345678901234567890 12345678901234567891`},
		{`{"a":null}`, `{}`, `/a null -`},
		{`{}`, `{"a":null}`, `/a - null`},
		{`{"l":["x","y"]}`, `{"l":["x"]}`, `/l/1 "y" -`},
		{`{"l":["x"]}`, `{"l":["z","y"]}`, `/l/0 "x" "z"; /l/1 - "y"`},
		{`{"g":{"h":{"i":1}}}`, `{"g":{"h":{"i":true}}}`, `/g/h/i 1 true`},
		{`{"g":{"h":1}}`, `{"g":[1]}`, `/g {"h":1} [1]`},
		{`{"g":[]}`, `{"g":{}}`, `/g [] {}`},
		{`{"a/b":{"c~d":1}}`, `{"a/b":{"c~d":2}}`, `/a~1b/c~0d 1 2`},
		{`"x"`, `{}`, ` "x" {}`},
		{`{"":1}`, `{"":2}`, `/ 1 2`},
	} {
		var got []string
		for _, ch := range Changes(mustForm(t, c.before), mustForm(t, c.after)) {
			side := func(v json.RawMessage) string {
				if v == nil {
					return "-"
				}
				return string(v)
			}
			got = append(got, ch.At+" "+side(ch.Old)+" "+side(ch.New))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s to %s: %s, want %s", c.before, c.after, s, c.want)
		}
	}
}

// Forms differ exactly where one of them says something else: what is taken over
// at the named places makes one of the other.
func TestChangesAreComplete(t *testing.T) {
	value := rapid.Custom(func(rt *rapid.T) any {
		var draw func(depth int) any
		draw = func(depth int) any {
			switch k := rapid.IntRange(0, 5).Draw(rt, "kind"); {
			case k == 0 && depth < 4:
				m := map[string]any{}
				for range rapid.IntRange(0, 3).Draw(rt, "members") {
					m[rapid.SampledFrom([]string{"a", "b", "c/d", "~"}).Draw(rt, "name")] = draw(depth + 1)
				}
				return m
			case k == 1 && depth < 4:
				l := []any{}
				for range rapid.IntRange(0, 3).Draw(rt, "items") {
					l = append(l, draw(depth+1))
				}
				return l
			case k == 2:
				return nil
			case k == 3:
				return rapid.Bool().Draw(rt, "bool")
			case k == 4:
				return json.Number(rapid.SampledFrom([]string{"1", "2", "1.0"}).Draw(rt, "number"))
			}
			return rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "text")
		}
		return draw(0)
	})
	rapid.Check(t, func(rt *rapid.T) {
		x, y := value.Draw(rt, "before"), value.Draw(rt, "after")
		there, back := Changes(x, y), Changes(y, x)
		same := string(raw(x)) == string(raw(y))
		if same != (len(there) == 0) || len(there) != len(back) {
			rt.Fatalf("%s and %s: %d changes, %d back", raw(x), raw(y), len(there), len(back))
		}
		for i, c := range there {
			if string(c.Old) == string(c.New) || string(c.Old) != string(back[i].New) || c.At != back[i].At {
				rt.Fatalf("%+v, back %+v", c, back[i])
			}
		}
	})
}

func TestWithDataForgetsTheFormBefore(t *testing.T) {
	e := &Envelope{Data: json.RawMessage(`{"a":1}`), Region: "08"}
	if _, err := e.Form(); err != nil {
		t.Fatal(err)
	}
	n := e.WithData(json.RawMessage(`{"a":2}`))
	form, err := n.Form()
	if err != nil || form.(map[string]any)["a"] != json.Number("2") || n.Region != "08" || string(e.Data) != `{"a":1}` {
		t.Errorf("%v, %v", form, err)
	}
}

// Operators' deeds on the desk change no state and no time, and repeats change
// nothing.
func TestDesk(t *testing.T) {
	s, a := &story{}, Account{}
	for _, e := range []Event{s.accepted(), s.event(EventDead, Event{Revision: 1, Reason: "mapping-failed", Held: &Held{Topic: "d"}})} {
		a.Apply(e)
	}
	was := *a.Clone()
	id := uuid.New()
	ed := &Edit{ID: id, Revision: 2, Operator: "anna", Reason: "typo", Fields: []string{"/a"}, Expires: t0.Add(time.Hour), Held: &Held{Topic: "d", Offset: 1}}
	propose := s.event(EventProposed, Event{Revision: 2, Edit: ed})
	for _, e := range []Event{propose, s.event(EventLooked, Event{ID: uuid.New()})} {
		if !a.Apply(e) {
			t.Fatalf("%s changes nothing", e.Type)
		}
		if a.Apply(e) {
			t.Fatalf("%s again changes something", e.Type)
		}
	}
	if a.State != was.State || !a.UpdatedAt.Equal(was.UpdatedAt) || a.Held == nil || a.Looks != 1 || a.Proposed() == nil {
		t.Fatalf("%+v", a)
	}
	if a.Apply(s.event(EventProposed, Event{Revision: 2, Edit: &Edit{ID: uuid.New(), Revision: 2}})) {
		t.Error("a second proposal stands beside the first")
	}
	if p := a.Proposed(); p.Expired(t0.Add(time.Hour)) || !p.Expired(t0.Add(time.Hour+1)) {
		t.Error("it expires at the wrong time")
	}
	// The copy shares nothing.
	c := a.Clone()
	c.Edits[0].Fields[0], c.Edits[0].State, c.Edits[0].Held.Offset, c.Looked[0] = "/b", EditDone, 9, uuid.Nil
	if a.Edits[0].Fields[0] != "/a" || a.Edits[0].State != EditProposed || a.Edits[0].Held.Offset != 1 || a.Looked[0] == uuid.Nil {
		t.Error("a copy shares its edits")
	}
	// A decision of that revision overtakes it; approved before, it is done.
	c = a.Clone()
	c.Apply(s.event(EventRedriven, Event{Revision: 2}))
	c.Apply(s.decided(2, "a"))
	if got := c.Edit(id); got.State != EditDeclined || got.Cause != CauseOvertaken || got.Closed.IsZero() {
		t.Errorf("%+v", got)
	}
	done := *ed
	done.By, done.Word = "bert", "seen"
	a.Apply(s.event(EventEdited, Event{Revision: 2, Edit: &done}))
	a.Apply(s.decided(2, "a"))
	if got := a.Edit(id); got.State != EditDone || got.By != "bert" || got.Operator != "anna" || a.Redrives != 0 || len(a.Edits) != 1 {
		t.Errorf("%+v", got)
	}
	if a.Apply(propose) || a.Apply(s.event(EventDeclined, Event{Revision: 2, Edit: ed})) {
		t.Error("what is done is proposed or declined again")
	}
}

// Looks are counted however many there are; only the newest are remembered.
func TestManyLooks(t *testing.T) {
	s, a := &story{}, Account{}
	a.Apply(s.accepted())
	var last Event
	for range 100 {
		last = s.event(EventLooked, Event{ID: uuid.New()})
		a.Apply(last)
	}
	if a.Looks != 100 || len(a.Looked) != lookedKept || a.Apply(last) {
		t.Errorf("%d looks, %d remembered", a.Looks, len(a.Looked))
	}
}

func TestEditTravelsInHeaders(t *testing.T) {
	m := Meta{ID: uuid.New(), CaseID: uuid.New(), Append: uuid.New(), Portal: "p", Land: "08", Service: "99050012104000", Region: "08", AcceptedAt: t0, Revision: 2,
		Instruction: &Instruction{Kind: InstructPropose, Operator: "anna", ID: uuid.New(), At: t0, Edit: &Edit{ID: uuid.New(), Revision: 2, Operator: "anna", Reason: "Größe",
			At: t0, Fields: []string{"/a", "/ü/*"}, More: 3, Expires: t0.Add(time.Hour), Held: &Held{Topic: "d", Partition: 1, Offset: 2}}}}
	h := m.Headers(TypeControl)
	got, err := ParseMeta(h)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(m.Instruction)
	if b, _ := json.Marshal(got.Instruction); string(b) != string(want) {
		t.Errorf("%s, want %s", b, want)
	}
	for _, bad := range []string{"x", "{}", `{"id":"x"}`} {
		h["ce_edit"] = bad
		if _, err := ParseMeta(h); err == nil || !strings.Contains(err.Error(), "ce_edit") || strings.Contains(err.Error(), bad) && bad != "x" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
