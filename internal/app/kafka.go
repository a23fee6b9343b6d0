package app

import (
	"context"

	"weiche/internal/bus"
	"weiche/internal/config"
	"weiche/internal/delivery"
	"weiche/internal/dispatch"
	kafkadoor "weiche/internal/intake/kafka"
)

// sasl passes on who the router is to the brokers.
func (a *App) sasl(s *config.SASL) *bus.SASLConfig {
	out := &bus.SASLConfig{Mechanism: s.Mechanism, Username: s.Username, PasswordFile: a.beside(s.PasswordFile),
		TokenFile: a.beside(s.TokenFile), Extensions: s.Extensions}
	if s.TokenURL != "" {
		out.Token = &bus.TokenConfig{URL: s.TokenURL, ClientID: s.ClientID, ClientSecretFile: a.beside(s.ClientSecretFile),
			Scope: s.Scope, CAFile: a.beside(s.TokenCAFile)}
	}
	return out
}

// checkRights refuses to start where an ACL is missing that would be missed only
// later, when a submission has been accepted.
func checkRights(ctx context.Context, b *bus.Bus, cfg *config.Config) error {
	groups := []string{dispatch.Group, delivery.Group, delivery.WaitGroup}
	portals := topicPortals(cfg)
	if len(portals) > 0 {
		groups = append(groups, kafkadoor.Group)
	}
	return b.CheckRights(ctx, bus.Rights(portals, groups, false))
}
