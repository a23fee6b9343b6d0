package config

import (
	"testing"

	"weiche/internal/submission"
)

func TestPortalSendsWhatItNames(t *testing.T) {
	all, one := &Portal{}, &Portal{Services: []submission.Service{"99012012042000"}}
	for _, c := range []struct {
		portal  *Portal
		service submission.Service
		want    bool
	}{
		{all, "99012008001000", true}, {one, "99012012042000", true}, {one, "99012008001000", false},
	} {
		if got := c.portal.Sends(c.service); got != c.want {
			t.Errorf("%v sends %s: %v", c.portal.Services, c.service, got)
		}
	}
}
