package console

import (
	"context"
	"net/http"
	"time"

	"weiche/internal/status"
)

// unfolded is how far back every hour of the account has a line of its own where
// since is not given; older ones that add up are one line.
const unfolded = 24 * time.Hour

func (a *API) reconcile(c *call) (int, any, error) { return a.reconciled(c, a.Projector.Reconcile) }

// recount reads the topics, and trusts no store.
func (a *API) recount(c *call) (int, any, error) { return a.reconciled(c, a.Projector.Recount) }

func (a *API) reconciled(c *call, do func(context.Context, status.ReconcileFilter) (status.Reconciliation, error)) (int, any, error) {
	base, err := c.filter(a.Now())
	if err != nil {
		return 0, nil, err
	}
	f := status.ReconcileFilter{Lands: base.Lands, Land: base.Land, Service: base.Service}
	for name, to := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if v := c.URL.Query().Get(name); v != "" {
			if *to, err = time.Parse(time.RFC3339, v); err != nil {
				return 0, nil, invalid(name + " is a time as RFC 3339 writes it.")
			}
		}
	}
	out, err := do(c.Context(), f)
	if err == nil && f.Since.IsZero() {
		out.Fold(a.Now().Add(-unfolded))
	}
	return http.StatusOK, out, err
}
