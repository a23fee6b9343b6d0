package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"weiche/internal/app"
	"weiche/internal/dispatch"
	"weiche/internal/routing"
	"weiche/internal/submission"
	"weiche/internal/transform/standard"
)

// mapper is what the pipeline does to a submission, without the pipeline:
// decide, map, check.
type mapper struct{ lib *app.Library }

// message returns the destination and the XML of a submission as it was posted.
func (m mapper) message(form []byte) (destination string, xml []byte, err error) {
	var env submission.Envelope
	if err := json.Unmarshal(form, &env); err != nil {
		return "", nil, err
	}
	region, err := submission.ParseRegion(env.Region)
	if err != nil {
		return "", nil, err
	}
	now := time.Now()
	meta := submission.Meta{ID: uuid.New(), Portal: portal, Land: region.Land(), Service: service, Region: region, Revision: 1, AcceptedAt: now}
	meta.CaseID = submission.NewCaseID(meta.ID)
	rules, ok := m.lib.Rules(meta.Land)
	if !ok {
		return "", nil, fmt.Errorf("no rules for Land %s", meta.Land)
	}
	out := rules.Table.Decide(routing.Facts{Service: service, Region: region, Land: meta.Land, At: now})
	if out.Reason != "" {
		return "", nil, fmt.Errorf("not decided: %s", out.Reason)
	}
	p, _ := m.lib.Portal(portal)
	to := out.Destinations[0]
	xml, err = m.lib.Message(dispatch.Job{Meta: meta, Envelope: &env, Authority: out.Authority, Portal: p, Format: to.Format,
		MessageID: submission.NewDeliveryID(meta.ID, to.Destination, 1), CreatedAt: now})
	return submission.DestinationName(meta.Land, to.Destination), xml, err
}

// standardPlan is what item 5 asks for: 20,000 rules, 8 topics.
func standardPlan() plan {
	p := plan{rules: 20_000}
	for i := range 8 {
		p.destinations = append(p.destinations, topicDestination(i))
	}
	return p
}

func topicDestination(i int) destination {
	return destination{"kafka", fmt.Sprintf("{topic: %s, partitions: 8}", outTopic(i))}
}

func outTopic(i int) string { return fmt.Sprintf("bench.fv.%d", i) }

// installStandards imports XBau from ../shared into a data directory. Nothing of
// it is kept in the repository.
func installStandards(ctx context.Context, repo, data string) error {
	shared := filepath.Join(repo, "..", "shared")
	all := filepath.Join(data, "standards-all")
	if _, err := standard.Import(ctx, filepath.Join(shared, "standards", "xbau", "2.6"), all, []string{filepath.Join(shared, "codelists", "xbau-2.6")}); err != nil {
		return err
	}
	// The router reads no more than it has to.
	if err := os.MkdirAll(app.StandardsDir(data), 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(all, "xbau-kernmodul"), filepath.Join(app.StandardsDir(data), "xbau-kernmodul"))
}
