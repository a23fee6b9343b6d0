package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"weiche/internal/bus"
	"weiche/internal/fault"
	"weiche/internal/jobs"
	"weiche/internal/submission"
)

func conflict(kind, detail string) *Problem {
	return &Problem{Status: http.StatusConflict, Type: kind, Title: "The submission is not in a state for that", Detail: detail}
}

func (a *API) redrive(c *call) (int, any, error) {
	var in struct {
		Force      bool      `json:"force"`
		DeliveryID uuid.UUID `json:"deliveryId"`
		AsNew      bool      `json:"asNew"`
	}
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	acct, err := a.fresh(c)
	if err != nil {
		return 0, nil, err
	}
	ins := &submission.Instruction{Kind: submission.InstructRedrive, Operator: c.operator.Name, Force: in.Force, At: a.Now().UTC()}
	var orders []jobs.Order
	often := func(n int) error {
		if n+1 >= jobs.ForceFrom && !in.Force {
			return conflict("redriven-often", "It was redriven twice and died again. Mend the cause first, or say force.")
		}
		return nil
	}
	if in.AsNew && in.DeliveryID == uuid.Nil && acct.State == submission.Dead {
		if err := often(acct.Redrives); err != nil {
			return 0, nil, err
		}
		o, err := a.order(jobs.Renew(c.Context(), a.Log, acct, ins))
		if err != nil {
			return 0, nil, err
		}
		return a.carry(c, acct, "redrive as new", []jobs.Order{o})
	}
	if jobs.Held(acct) && in.DeliveryID == uuid.Nil {
		if err := often(acct.Redrives); err != nil {
			return 0, nil, err
		}
		o, err := a.order(jobs.Renew(c.Context(), a.Log, acct, ins))
		if err != nil {
			return 0, nil, err
		}
		orders = append(orders, o)
	}
	for _, d := range acct.Deliveries {
		if d.State != submission.Dead || d.Held == nil || in.DeliveryID != uuid.Nil && in.DeliveryID != d.ID {
			continue
		}
		if err := often(d.Redrives); err != nil {
			return 0, nil, err
		}
		o, err := a.order(jobs.Again(c.Context(), a.Log, d, ins))
		if err != nil {
			return 0, nil, err
		}
		orders = append(orders, o)
	}
	if len(orders) == 0 {
		return 0, nil, conflict("not-redrivable", "Only what is dead or unassigned can be redriven; this is "+string(acct.State)+".")
	}
	return a.carry(c, acct, "redrive", orders)
}

// order makes the problem of an order that cannot be made one an operator
// understands.
func (a *API) order(o jobs.Order, err error) (jobs.Order, error) {
	return o, unmakeable(err)
}

func (a *API) close(c *call) (int, any, error) {
	var in struct {
		Reason     string    `json:"reason"`
		DeliveryID uuid.UUID `json:"deliveryId"`
	}
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	reason, err := words("reason", in.Reason, true)
	if err != nil {
		return 0, nil, err
	}
	acct, err := a.fresh(c)
	if err != nil {
		return 0, nil, err
	}
	partition, err := a.Store.Partition(c.Context(), acct.ID)
	if err != nil {
		return 0, nil, err
	}
	ins := &submission.Instruction{Kind: submission.InstructClose, Operator: c.operator.Name, Reason: reason, At: a.Now().UTC()}
	var orders []jobs.Order
	if (acct.Own == submission.Dead || acct.Own == submission.Unassigned) && in.DeliveryID == uuid.Nil {
		orders = append(orders, jobs.CloseSubmission(acct, partition, ins))
	}
	for _, d := range acct.Deliveries {
		if d.State != submission.Dead && d.State != submission.Waiting || in.DeliveryID != uuid.Nil && in.DeliveryID != d.ID {
			continue
		}
		orders = append(orders, jobs.CloseDelivery(acct, d, partition, ins))
	}
	if len(orders) == 0 {
		return 0, nil, conflict("not-closable", "Only what is unassigned, dead or waiting can be closed; this is "+string(acct.State)+".")
	}
	return a.carry(c, acct, "close", orders)
}

func unknownAuthority(land submission.Land) *Problem {
	return &Problem{Status: http.StatusUnprocessableEntity, Type: "unknown-authority", Title: "There is no such authority", Detail: "The configuration of Land " + string(land) + " names no authority with this id."}
}

func (a *API) assign(c *call) (int, any, error) {
	var in struct {
		Authority string `json:"authority"`
	}
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	authority, err := words("authority", in.Authority, true)
	if err != nil {
		return 0, nil, err
	}
	acct, err := a.fresh(c)
	if err != nil {
		return 0, nil, err
	}
	if acct.State != submission.Unassigned && acct.State != submission.Dead {
		return 0, nil, conflict("not-assignable", "Only what is unassigned or dead can be assigned; this is "+string(acct.State)+".")
	}
	if a.Authority != nil && !a.Authority(acct.Land, authority) {
		return 0, nil, unknownAuthority(acct.Land)
	}
	o, err := a.order(jobs.Renew(c.Context(), a.Log, acct, &submission.Instruction{Kind: submission.InstructAssign, Operator: c.operator.Name,
		Authority: authority, At: a.Now().UTC()}))
	if err != nil {
		return 0, nil, err
	}
	return a.carry(c, acct, "assign", []jobs.Order{o})
}

// fresh is find by everything that stands in the log now: an order must not be
// given to a state that has passed.
func (a *API) fresh(c *call) (*submission.Account, error) {
	if err := a.Projector.WaitAsked(c.Context()); err != nil {
		return nil, err
	}
	return a.find(c)
}

// carry appends the orders and waits until the projection shows what became of
// them. The answer is 200 with the new account, or 202 with the present one when
// the owner of the partition has not come to it in time.
func (a *API) carry(c *call, acct *submission.Account, deed string, orders []jobs.Order) (int, any, error) {
	recs := make([]*bus.Record, len(orders))
	for i, o := range orders {
		recs[i] = o.Record
	}
	audit := []any{"operator", c.operator.Name, "deed", deed, "submission", acct.ID, "land", string(acct.Land), "service", string(acct.Service),
		"state", string(acct.State), "orders", len(orders)}
	if err := a.Log.Append(c.Context(), recs...); err != nil {
		a.Logger.Error("an operator's order could not be appended", append(audit, "reason", string(fault.Of(err).Reason))...)
		return 0, nil, err
	}
	a.Logger.Info("an operator's order was given", audit...)
	ctx, cancel := context.WithTimeout(c.Context(), a.Wait)
	defer cancel()
	for {
		changed := a.Store.Changed()
		now, err := a.Store.Get(ctx, acct.ID)
		if err != nil {
			return 0, nil, err
		}
		all := true
		for _, o := range orders {
			all = all && o.Done(now)
		}
		if all {
			return a.story(c, acct.ID, http.StatusOK)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if c.Context().Err() != nil {
				return 0, nil, c.Context().Err()
			}
			return a.story(c, acct.ID, http.StatusAccepted)
		}
	}
}

// destination finds a destination the operator may see.
func (a *API) destination(c *call) (string, error) {
	id := c.PathValue("id")
	for _, d := range a.Destinations.Destinations() {
		if d.ID == id && c.sees(d.Land) {
			return id, nil
		}
	}
	return "", errNotFound
}

func (a *API) pause(c *call) (int, any, error) {
	var in struct {
		Reason string `json:"reason"`
		For    string `json:"for"` // a duration; empty: until resumed
	}
	if err := c.body(&in); err != nil {
		return 0, nil, err
	}
	reason, err := words("reason", in.Reason, false)
	if err != nil {
		return 0, nil, err
	}
	var until time.Time
	if in.For != "" {
		d, err := time.ParseDuration(in.For)
		if err != nil || d <= 0 {
			return 0, nil, invalid("for is a duration such as 30m.")
		}
		until = a.Now().Add(d).UTC()
	}
	id, err := a.destination(c)
	if err != nil {
		return 0, nil, err
	}
	if err := a.Destinations.Pause(c.Context(), id, c.operator.Name, reason, until); err != nil {
		return 0, nil, err
	}
	a.Logger.Info("an operator's order was given", "operator", c.operator.Name, "deed", "pause", "destination", id, "until", until)
	return a.destinationNow(c, id)
}

func (a *API) resume(c *call) (int, any, error) {
	id, err := a.destination(c)
	if err != nil {
		return 0, nil, err
	}
	if err := a.Destinations.Resume(c.Context(), id, c.operator.Name); err != nil {
		return 0, nil, err
	}
	a.Logger.Info("an operator's order was given", "operator", c.operator.Name, "deed", "resume", "destination", id)
	return a.destinationNow(c, id)
}

func (a *API) destinationNow(_ *call, id string) (int, any, error) {
	for _, d := range a.Destinations.Destinations() {
		if d.ID == id {
			return http.StatusOK, d, nil
		}
	}
	return 0, nil, errNotFound
}

// rebuild goes on when the asker has gone: half a rebuild is work for nothing.
func (a *API) rebuild(c *call) (int, any, error) {
	a.Logger.Info("an operator's order was given", "operator", c.operator.Name, "deed", "rebuild")
	began := time.Now()
	err := a.Projector.Rebuild(context.WithoutCancel(c.Context()))
	var f *fault.Error
	if errors.As(err, &f) && f.Reason == fault.ReasonBusy {
		return 0, nil, conflict("busy", "A rebuild is under way already.")
	}
	if err != nil {
		return 0, nil, err
	}
	took := time.Since(began)
	a.Logger.Info("the status store was rebuilt", "operator", c.operator.Name, "milliseconds", took.Milliseconds())
	return http.StatusOK, map[string]any{"milliseconds": took.Milliseconds()}, nil
}

// reload takes the configuration directory, the process library and the
// standards up as they are now. What is refused is listed and changes nothing.
func (a *API) reload(c *call) (int, any, error) {
	a.Logger.Info("an operator's order was given", "operator", c.operator.Name, "deed", "reload")
	if a.Reload == nil {
		return 0, nil, conflict("not-reloadable", "This router cannot read its configuration again.")
	}
	if err := a.Reload(); err != nil {
		return 0, nil, &Problem{Status: http.StatusUnprocessableEntity, Type: "config-broken", Title: "Something in the configuration is refused", Detail: err.Error()}
	}
	return http.StatusNoContent, nil, nil
}
