package status

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"weiche/internal/submission"
)

// writeEdits keeps a row for each edit whose bytes are held: there are few of
// them, and they are found by it without looking through all submissions.
func (b *batch) writeEdits(w *work, was *submission.Account) error {
	for _, e := range w.now.acct.Edits {
		if old := was.Edit(e.ID); e.Held == nil || old != nil && old.State == e.State {
			continue
		}
		if err := b.exec(b.g.putEdit, e.ID[:], w.now.row, string(e.State), millis(e.At)); err != nil {
			return err
		}
	}
	return nil
}

// Proposal is an edit that waits for a second operator.
type Proposal struct {
	Submission uuid.UUID          `json:"submission"`
	CaseID     uuid.UUID          `json:"caseId"`
	Portal     string             `json:"portal"`
	Land       submission.Land    `json:"land"`
	Service    submission.Service `json:"service"`
	Edit       *submission.Edit   `json:"edit"`
}

// Proposals lists the edits that wait for a second operator, those whose time
// has passed included, the oldest first.
func (s *Store) Proposals(ctx context.Context, f Filter) (list []Proposal, next string, err error) {
	var w where
	w.add("e.state = 'proposed'")
	w.lands("s.land", f.Lands)
	w.equal("s.land", string(f.Land))
	w.equal("s.service", string(f.Service))
	w.equal("s.portal", f.Portal)
	if !f.Before.IsZero() {
		w.add("e.at < ?", millis(f.Before))
	}
	if err := w.after(f.After, "e.at, e.id", ">"); err != nil {
		return nil, "", err
	}
	limit := f.limit()
	var cursors []string
	err = s.query(ctx, "SELECT s.n, s.body, e.at, e.id FROM {}edits e JOIN {}submissions s ON s.n = e.submission"+w.String()+
		" ORDER BY e.at, e.id LIMIT "+strconv.Itoa(limit+1), w.args, func(rows *sql.Rows) error {
		var at int64
		var id uuid.UUID
		entry, err := scanEntry(rows, &at, (*rawID)(&id))
		if err != nil {
			return err
		}
		a := entry.acct
		list = append(list, Proposal{a.ID, a.CaseID, a.Portal, a.Land, a.Service, a.Edit(id)})
		cursors = append(cursors, cursor(at, id))
		return nil
	})
	if len(list) > limit {
		list, next = list[:limit], cursors[limit-1]
	}
	return list, next, wrap(err)
}

// edited calls fn with the places of both forms of every edit that was made at
// from or later, or whose submission is not finished.
func (s *Store) edited(ctx context.Context, from time.Time, fn func(submission.Held)) error {
	err := s.query(ctx, `SELECT s.n, s.body, e.id FROM {}edits e JOIN {}submissions s ON s.n = e.submission
		WHERE e.at >= ? OR s.state NOT IN ('delivered', 'rejected')`, []any{millis(from)}, func(rows *sql.Rows) error {
		var id uuid.UUID
		entry, err := scanEntry(rows, (*rawID)(&id))
		if err != nil {
			return err
		}
		if e := entry.acct.Edit(id); e != nil {
			for _, h := range slices.DeleteFunc([]*submission.Held{e.Held, e.Original}, func(h *submission.Held) bool { return h == nil }) {
				fn(*h)
			}
		}
		return nil
	})
	return wrap(err)
}
