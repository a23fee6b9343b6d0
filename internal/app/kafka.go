package app

import (
	"weiche/internal/bus"
	"weiche/internal/config"
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
