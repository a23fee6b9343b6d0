package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// service is what every submission is for: the process of the library whose
// message is XBau's smallest, so that the size can be set by the form.
const idHeader = "ce_subject"

const service = "99012002012000"

// shape is how large a form is.
type shape struct {
	Applicants int // 1 to 50
	Extra      int // letters that each text has more than it needs, up to 230
	Parcels    int // 1 to 2,500, at most 50 in a plot
}

// standardShape makes 4.3 KB of JSON without spaces that become 6 KB of XML.
var standardShape = shape{Applicants: 2, Extra: 197, Parcels: 1}

// formOf writes the n-th submission for a region. No two are the same.
func formOf(n int, region string, s shape) []byte {
	text := func(t string) string { return t + filler[:s.Extra] }
	address := func(i int) map[string]any {
		return map[string]any{"strasse": text("Königsallee"), "hausnummer": fmt.Sprint(1 + (n+i)%99), "postleitzahl": "71032",
			"ort": text("Böblingen"), "ortsteil": text("Dagersheim"), "zusatz": text("Haus B")}
	}
	var applicants, plots, parcels []any
	for i := range s.Applicants {
		p := map[string]any{"anrede": "Frau", "titel": "Dr.", "vorname": text("Änne Đurđa"), "familienname": fmt.Sprintf("Müller-Łukasz %d", n), "anschrift": address(i)}
		if i == 0 {
			p["email"], p["telefon"] = fmt.Sprintf("aenne.%d@example.de", n), fmt.Sprintf("+49 7031 %07d", n%10_000_000)
		}
		applicants = append(applicants, map[string]any{"person": p})
	}
	for i := range s.Parcels {
		f := map[string]any{"gemarkungsnummer": "2710", "flur": "0", "zaehler": fmt.Sprint(1 + (n+i)%9999), "nenner": "5"}
		if i > 0 {
			delete(f, "gemarkungsnummer") // either the number or the name
			f["gemarkung"], f["folge"] = text("Dagersheim"), "01"
		}
		if parcels = append(parcels, f); len(parcels) == 50 || i == s.Parcels-1 {
			plots = append(plots, map[string]any{"anschrift": address(7 + i), "flurstuecke": parcels})
			parcels = nil
		}
	}
	b, err := json.Marshal(map[string]any{
		"publicService":           map[string]any{"identifier": "urn:de:fim:leika:leistung:" + service, "name": "Abgeschlossenheitsbescheinigung"},
		"region":                  "DE" + region,
		"additionalReferenceInfo": map[string]any{"senderReference": fmt.Sprintf("BENCH/2026/%07d", n), "applicationDate": "2026-11-22"},
		"trustLevel":              "STORK-QAA-Level-3",
		"submissionSchema":        map[string]any{"schemaUri": "urn:weiche:formular:universeller-antrag:1.0.0", "mimeType": "application/json"},
		"replyChannel":            map[string]any{"fink": map[string]any{"finkPostfachRef": "2f9c1e0a-7a53-4b0e-9a35-0c8c3f1f6c11", "host": "inbox.example.de"}},
		"data": map[string]any{"artDesAntrags": "03", "aktenzeichen": text(fmt.Sprintf("BRA-2026/%07d", n)),
			"antragsteller": applicants, "grundstuecke": plots},
	})
	if err != nil {
		panic(err) // strings and maps
	}
	return b
}

// filler has one letter a byte, so that it can be cut anywhere.
var filler = strings.Repeat(" Hinterhaus, Zugang durch den Hof, zweites Tor links", 5)
