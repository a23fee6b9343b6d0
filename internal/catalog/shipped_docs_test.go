package catalog_test

import (
	"os"
	"strings"
	"testing"
)

// docs/services.md lists every process with its service and its formats.
func TestShippedServicesAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(cells[1]), "`"), "`")
			rows[name] = line
		}
	}
	for _, p := range shipped(t).Processes() {
		words := []string{string(p.Service)}
		for _, f := range p.Formats {
			words = append(words, "`"+f.String()+"`")
		}
		for _, word := range words {
			if !strings.Contains(rows[p.ID], word) {
				t.Errorf("docs/services.md: the row of %s lacks %s", p.ID, word)
			}
		}
	}
}
