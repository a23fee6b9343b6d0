package config

import (
	"cmp"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"weiche/internal/submission"
)

// checker finds what is wrong with one Land beyond the shape of its files. It
// writes into the decoder of the file at fault.
type checker struct {
	land         *Land
	haveServices bool // land.yaml could be read
}

func (d *decoder) add(p Problem) { d.problems = append(d.problems, p) }

func (c *checker) head(d *decoder, around Pos, key submission.Land, keyAt *submission.Land, nameAt *string) {
	switch {
	case key == "":
		d.add(around.Problem("land is missing: the Land's key of two digits"))
	case key != c.land.Key:
		d.add(d.of(keyAt, around).Problem("land is %s, but the folder's name begins with %s", key, c.land.Key))
	}
	if strings.TrimSpace(c.land.Name) == "" {
		d.add(d.of(nameAt, around).Problem("name is missing: the Land's name"))
	}
	if len(c.land.Services) == 0 {
		d.add(around.Warning("services is empty: the Land offers nothing"))
	}
	seen := map[submission.Service]Pos{}
	for i := range c.land.Services {
		o := &c.land.Services[i]
		at := d.of(&o.Service, o.Pos)
		switch first, again := seen[o.Service]; {
		case o.Service == "":
			if at == o.Pos { // else its shape was refused already
				d.add(at.Problem("service is missing: the LeiKa key of 14 digits"))
			}
		case o.Service == AnyService:
			d.add(at.Problem("a Land offers services by name; * is not one"))
		case again:
			d.add(at.Problem("service %s stands here for the second time, first in line %d", o.Service, first.Line))
		default:
			seen[o.Service] = at
		}
		if o.Process != "" {
			c.id(d, "process", &o.Process, o.Pos)
		}
	}
}

// id checks the shape of an id and says whether it may be used.
func (c *checker) id(d *decoder, what string, id *string, around Pos) bool {
	switch {
	case *id == "":
		d.add(around.Problem("%s is missing", what))
	case len(*id) > maxID:
		d.add(d.of(id, around).Problem("%s %q is longer than %d characters", what, clip(*id), maxID))
	case !idShape.MatchString(*id):
		d.add(d.of(id, around).Problem("%s %q: small letters and digits are expected, joined by -, _ or .", what, clip(*id)))
	default:
		return true
	}
	return false
}

func (c *checker) destinations(d *decoder) {
	seen := map[string]Pos{}
	for i := range c.land.Destinations {
		t := &c.land.Destinations[i]
		if c.id(d, "id", &t.ID, t.Pos) {
			if first, again := seen[t.ID]; again {
				d.add(d.of(&t.ID, t.Pos).Problem("destination %q stands here for the second time, first in line %d", t.ID, first.Line))
			} else {
				seen[t.ID] = d.of(&t.ID, t.Pos)
			}
		}
		if t.Adapter == "" {
			d.add(d.of(&t.Adapter, t.Pos).Problem("destination %q names no adapter", t.ID))
		}
		if t.Name == "" {
			t.Name = t.ID
		}
		if t.Settings.node == nil {
			t.Settings.pos = t.Pos
		}
		if len(t.Formats) == 0 {
			d.add(d.of(&t.Formats, t.Pos).Problem("destination %q takes no format: formats lists standard/version/message, the preferred one first", t.ID))
		}
		for j := range t.Formats {
			if f := t.Formats[j]; f.String() != "" && slices.Index(t.Formats, f) < j {
				d.add(d.of(&t.Formats[j], t.Pos).Problem("format %s stands here for the second time", f))
			}
		}
	}
}

func (c *checker) authorities(d *decoder, haveDestinations bool) {
	seen := map[string]Pos{}
	for i := range c.land.Authorities {
		a := &c.land.Authorities[i]
		if c.id(d, "id", &a.ID, a.Pos) {
			if first, again := seen[a.ID]; again {
				d.add(d.of(&a.ID, a.Pos).Problem("authority %q stands here for the second time, first in line %d", a.ID, first.Line))
			} else {
				seen[a.ID] = d.of(&a.ID, a.Pos)
			}
		}
		if a.Key == "" && d.of(&a.Key, a.Pos) == a.Pos {
			d.add(a.Pos.Problem("authority %q has no key: its DVDV key, such as bab:08115003", a.ID))
		}
		if strings.TrimSpace(a.Name) == "" {
			d.add(d.of(&a.Name, a.Pos).Problem("authority %q has no name", a.ID))
		}
		if a.Region != "" && a.Region.Land() != c.land.Key {
			d.add(d.of(&a.Region, a.Pos).Problem("region %s lies in Land %s, not in Land %s", a.Region, a.Region.Land(), c.land.Key))
		}
		for _, service := range sortedServices(a.Destinations) {
			ids := a.Destinations[service]
			at := a.Pos
			if len(ids) > 0 {
				at = d.of(&ids[0], a.Pos)
			}
			if c.haveServices && service != AnyService && !c.land.Offers(service) {
				d.add(at.Problem("authority %q has destinations for service %s, which the Land does not offer", a.ID, service))
			}
			for j := range ids {
				at := d.of(&ids[j], a.Pos)
				switch {
				case slices.Index(ids, ids[j]) < j:
					d.add(at.Problem("destination %q stands here for the second time", clip(ids[j])))
				case haveDestinations && c.land.Destination(ids[j]) == nil:
					d.add(at.Problem("there is no destination %q in %s%s", clip(ids[j]), fileDestinations, suggest(ids[j], c.destinationIDs())))
				}
			}
		}
	}
}

func sortedServices(m map[submission.Service][]string) []submission.Service {
	out := make([]submission.Service, 0, len(m))
	for s := range m {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func (c *checker) destinationIDs() (ids []string) {
	for _, d := range c.land.Destinations {
		ids = append(ids, d.ID)
	}
	return ids
}

func (c *checker) rules(d *decoder, haveAuthorities bool) {
	known := map[string]bool{}
	var ids []string
	for _, a := range c.land.Authorities {
		known[a.ID] = true
		ids = append(ids, a.ID)
	}
	for i := range c.land.Rules {
		r := &c.land.Rules[i]
		if len(r.Services) == 0 {
			d.add(d.of(&r.Services, r.Pos).Problem("the rule names no service: services lists LeiKa keys, or \"*\" for every service"))
		}
		for j := range r.Services {
			s := r.Services[j]
			at := d.of(&r.Services[j], r.Pos)
			switch {
			case s == "" || s == AnyService:
			case slices.Index(r.Services, s) < j:
				d.add(at.Problem("service %s stands here for the second time", s))
			case c.haveServices && !c.land.Offers(s):
				d.add(at.Problem("service %s is not offered by the Land (%s)", s, fileLand))
			}
		}
		switch at := d.of(&r.Region, r.Pos); {
		case r.Region == "" && at == r.Pos:
			d.add(at.Problem("the rule names no region: an ARS of 2, 3, 5, 9 or 12 digits"))
		case r.Region != "" && r.Region.Land() != c.land.Key:
			d.add(at.Problem("region %s lies in Land %s, not in Land %s", r.Region, r.Region.Land(), c.land.Key))
		}
		switch at := d.of(&r.Authority, r.Pos); {
		case r.Authority == "":
			d.add(at.Problem("the rule names no authority"))
		case haveAuthorities && !known[r.Authority]:
			d.add(at.Problem("there is no authority %q in %s%s", clip(r.Authority), fileAuthorities, suggest(r.Authority, ids)))
		}
		if !r.From.IsZero() && !r.Until.IsZero() && r.Until.Start().Before(r.From.Start()) {
			d.add(d.of(&r.Until, r.Pos).Problem("the rule ends on %s, before it begins on %s", r.Until, r.From))
		}
	}
	if !d.problems.Failed() {
		c.overlaps(d)
	}
}

// overlaps warns of rules that name different authorities for the same service,
// region and day: submissions there are held for an operator.
func (c *checker) overlaps(d *decoder) {
	type area struct {
		service submission.Service
		region  submission.Region
	}
	byArea := map[area][]*Rule{}
	var order []area
	for i := range c.land.Rules {
		r := &c.land.Rules[i]
		for _, s := range r.Services {
			k := area{s, r.Region}
			if byArea[k] == nil {
				order = append(order, k)
			}
			byArea[k] = append(byArea[k], r)
		}
	}
	forever := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	ends := func(r *Rule) time.Time {
		if r.Until.IsZero() {
			return forever
		}
		return r.Until.End()
	}
	begins := func(r *Rule) time.Time {
		if r.From.IsZero() {
			return time.Time{}
		}
		return r.From.Start()
	}
	for _, k := range order {
		rules := byArea[k]
		if len(rules) < 2 {
			continue
		}
		slices.SortStableFunc(rules, func(a, b *Rule) int { return begins(a).Compare(begins(b)) })
		// The two rules that end last, of different authorities: whoever begins
		// before they end overlaps with one of them.
		var last, other *Rule
		for _, r := range rules {
			for _, before := range []*Rule{last, other} {
				if before == nil || before.Authority == r.Authority || !begins(r).Before(ends(before)) {
					continue
				}
				first, second := before, r
				if first.Pos.Line > second.Pos.Line {
					first, second = second, first
				}
				d.add(second.Pos.Warning("several authorities: from %s on, %q (line %d) and %q are both responsible for service %s in region %s; such submissions will be held as unassigned",
					cmp.Or(r.From.String(), "the beginning"), first.Authority, first.Pos.Line, second.Authority, k.service, k.region))
				break
			}
			switch {
			case last == nil || (last.Authority == r.Authority && ends(r).After(ends(last))):
				last = r
			case last.Authority == r.Authority:
			case ends(r).After(ends(last)):
				last, other = r, last
			case other == nil || ends(r).After(ends(other)):
				other = r
			}
		}
	}
}

// unreached warns of what can never work: a rule whose authority has no
// destination for its service, a destination and an authority nobody names.
func (c *checker) unreached(dAuth, dDest, dRules *decoder) {
	type pair struct {
		authority string
		service   submission.Service
	}
	byID := map[string]*Authority{}
	for i := range c.land.Authorities {
		byID[c.land.Authorities[i].ID] = &c.land.Authorities[i]
	}
	test := map[string]bool{}
	for _, d := range c.land.Destinations {
		test[d.ID] = d.Test
	}
	said := map[pair]bool{}
	ruled := map[string]bool{}
	for i := range c.land.Rules {
		ruled[c.land.Rules[i].Authority] = true
	}
	for r, s := range c.land.Reach() {
		k := pair{r.Authority, s}
		productive := slices.ContainsFunc(byID[r.Authority].For(s), func(id string) bool { return !test[id] })
		if !productive && !said[k] {
			said[k] = true
			dRules.add(r.Pos.Warning("authority %q is responsible for service %s but has no destination for it; such submissions will be held", r.Authority, s))
		}
	}
	named := map[string]bool{}
	for i := range c.land.Authorities {
		a := &c.land.Authorities[i]
		for _, ids := range a.Destinations {
			for _, id := range ids {
				named[id] = true
			}
		}
		if !ruled[a.ID] {
			dAuth.add(a.Pos.Warning("authority %q stands in no rule; submissions reach it only when an operator assigns them", a.ID))
		}
	}
	for i := range c.land.Destinations {
		if t := &c.land.Destinations[i]; !named[t.ID] {
			dDest.add(t.Pos.Warning("destination %q belongs to no authority; nothing reaches it", t.ID))
		}
	}
}

// For returns the ids of the authority's destinations for a service: those under
// its own key, else those under AnyService.
func (a *Authority) For(s submission.Service) []string {
	if ids, ok := a.Destinations[s]; ok {
		return ids
	}
	return a.Destinations[AnyService]
}

var portalKey = regexp.MustCompile(`^[a-z]{3}:[0-9]{12}$`)

// tokenAlgorithms are the signatures a portal's tokens may carry (RFC 7518, RFC
// 8037): public keys only, so that no portal's verifier can also sign.
var tokenAlgorithms = []string{"ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

func (c *checker) portals(d *decoder, portals []*Portal) {
	seen := map[string]Pos{}
	for _, p := range portals {
		if c.id(d, "id", &p.ID, p.Pos) {
			if first, again := seen[p.ID]; again {
				d.add(d.of(&p.ID, p.Pos).Problem("portal %q stands here for the second time, first in line %d", p.ID, first.Line))
			} else {
				seen[p.ID] = d.of(&p.ID, p.Pos)
			}
		}
		if strings.TrimSpace(p.Name) == "" {
			d.add(d.of(&p.Name, p.Pos).Problem("portal %q has no name", p.ID))
		}
		switch at := d.of(&p.Key, p.Pos); {
		case p.Key == "" && at == p.Pos:
			d.add(at.Problem("portal %q has no key: its DVDV key, such as bap:080000000001", p.ID))
		case p.Key != "" && !portalKey.MatchString(string(p.Key)):
			d.add(at.Problem("key %s is not a portal's: prefix, colon and 12 digits are expected, as in bap:080000000001", p.Key))
		}
		if len(p.Lands) == 0 {
			d.add(d.of(&p.Lands, p.Pos).Problem("portal %q sends for no Land: lands lists their keys", p.ID))
		}
		for i := range p.Lands {
			if p.Lands[i] != "" && slices.Index(p.Lands, p.Lands[i]) < i {
				d.add(d.of(&p.Lands[i], p.Pos).Problem("Land %s stands here for the second time", p.Lands[i]))
			}
		}
		for i := range p.Services {
			switch at := d.of(&p.Services[i], p.Pos); {
			case p.Services[i] == AnyService:
				d.add(at.Problem("a portal that may send every service lists none; * is not one"))
			case p.Services[i] != "" && slices.Index(p.Services, p.Services[i]) < i:
				d.add(at.Problem("service %s stands here for the second time", p.Services[i]))
			}
		}
		c.auth(d, p)
	}
}

func (c *checker) auth(d *decoder, p *Portal) {
	a := &p.Auth
	at := d.of(a, p.Pos)
	if len(a.APIKeySHA256) == 0 && !a.ExampleKey && a.JWT == nil {
		d.add(at.Problem("portal %q has no way to prove who it is: auth needs api_key_sha256, jwt or example_key", p.ID))
	}
	for i := range a.APIKeySHA256 {
		if !isSHA256(a.APIKeySHA256[i]) {
			d.add(d.of(&a.APIKeySHA256[i], at).Problem("an API key stands here as 64 hex digits, its SHA-256; never the key itself"))
		}
	}
	j := a.JWT
	if j == nil {
		return
	}
	at = d.of(j, at)
	if j.Issuer == "" {
		d.add(d.of(&j.Issuer, at).Problem("jwt names no issuer"))
	}
	if j.Audience == "" {
		d.add(d.of(&j.Audience, at).Problem("jwt names no audience; a token meant for another service would be taken"))
	}
	switch {
	case j.JWKSFile == "" && j.JWKSURL == "":
		d.add(at.Problem("jwt has no keys: jwks_file or jwks_url"))
	case j.JWKSFile != "" && j.JWKSURL != "":
		d.add(at.Problem("jwt has keys from two places: jwks_file or jwks_url, not both"))
	case j.JWKSURL != "":
		u, err := url.Parse(j.JWKSURL)
		if err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
			d.add(d.of(&j.JWKSURL, at).Problem("jwks_url must begin with https://; plain http is for loopback only"))
		}
	}
	if len(j.Algorithms) == 0 {
		d.add(d.of(&j.Algorithms, at).Problem("jwt allows no algorithm: algorithms lists some of %s", strings.Join(tokenAlgorithms, ", ")))
	}
	for i, alg := range j.Algorithms {
		if !slices.Contains(tokenAlgorithms, alg) {
			d.add(d.of(&j.Algorithms[i], at).Problem("algorithm %q cannot be allowed; these can: %s", clip(alg), strings.Join(tokenAlgorithms, ", ")))
		}
	}
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// strangers finds YAML files that nobody reads: most likely a misspelt name.
func (c *checker) strangers() (out Problems) {
	entries, _ := os.ReadDir(c.land.Dir)
	for _, e := range entries {
		name := e.Name()
		ext := strings.ToLower(filepath.Ext(name))
		if (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".") && name != RoutesTestFile && !slices.Contains(landFiles, name) {
			out = append(out, Pos{File: filepath.Join(c.land.Dir, name)}.Problem("this file is not read; a Land's files are %s%s", strings.Join(landFiles, ", "), suggest(name, landFiles)))
		}
	}
	return out
}
