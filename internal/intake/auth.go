package intake

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"weiche/internal/config"
	"weiche/internal/fault"
	"weiche/internal/filestamp"
)

// Bounds of tokens and key sets.
const (
	maxToken     = 16 << 10
	maxJWKS      = 1 << 20
	maxJWKSKeys  = 100
	tokenLeeway  = 60 * time.Second
	jwksLifetime = 10 * time.Minute
	jwksPause    = 30 * time.Second // between two fetches, however many unknown kids come
	jwksTimeout  = 10 * time.Second
	minRSABits   = 2048
)

// algorithms are the signatures a token may ever have: asymmetric ones. A
// symmetric algorithm with a public key as its secret, or "none", would let
// anybody sign.
var algorithms = map[string]jose.SignatureAlgorithm{
	"RS256": jose.RS256, "RS384": jose.RS384, "RS512": jose.RS512,
	"PS256": jose.PS256, "PS384": jose.PS384, "PS512": jose.PS512,
	"ES256": jose.ES256, "ES384": jose.ES384, "ES512": jose.ES512,
	"EdDSA": jose.EdDSA,
}

// defaultAlgorithms hold where a portal's configuration names none.
var defaultAlgorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}

// Authenticator finds the portal behind a bearer token. It is immutable but for
// its cache of issuers' keys, and safe for concurrent use.
type Authenticator struct {
	keys    []apiKey
	issuers []issuer
	now     func() time.Time
}

type apiKey struct {
	portal string
	hash   [sha256.Size]byte
}

type issuer struct {
	portal, iss, aud string
	algs             []jose.SignatureAlgorithm
	keys             *keySet
}

// NewAuthenticator reads how portals prove who they are. example adds the
// SHA-256 (hex) of a key to a portal: of the keys the first start made. client
// fetches key sets; nil is a client that follows no redirect.
func NewAuthenticator(cfg *config.Config, example map[string]string, client *http.Client, now func() time.Time) (*Authenticator, error) {
	if client == nil {
		client = &http.Client{
			Timeout:       jwksTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if now == nil {
		now = time.Now
	}
	a := &Authenticator{now: now}
	sets := map[string]*keySet{} // portals of one issuer share its keys
	ids := make([]string, 0, len(cfg.Portals))
	for id := range cfg.Portals {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		auth := cfg.Portals[id].Auth
		hashes := slices.Clone(auth.APIKeySHA256)
		if h := example[id]; h != "" {
			hashes = append(hashes, h)
		}
		for _, h := range hashes {
			b, err := hex.DecodeString(h)
			if err != nil || len(b) != sha256.Size {
				return nil, fmt.Errorf("portal %s: api_key_sha256 is not 64 hex digits", id)
			}
			a.keys = append(a.keys, apiKey{id, [sha256.Size]byte(b)})
		}
		if j := auth.JWT; j != nil {
			is := issuer{portal: id, iss: j.Issuer, aud: j.Audience}
			names := j.Algorithms
			if len(names) == 0 {
				names = defaultAlgorithms
			}
			for _, n := range names {
				alg, ok := algorithms[n]
				if !ok {
					return nil, fmt.Errorf("portal %s: algorithm %q is not allowed for tokens", id, n)
				}
				is.algs = append(is.algs, alg)
			}
			if is.iss == "" || is.aud == "" {
				return nil, fmt.Errorf("portal %s: jwt needs issuer and audience", id)
			}
			source := j.JWKSURL
			if j.JWKSFile != "" {
				source = j.JWKSFile
				if !filepath.IsAbs(source) {
					source = filepath.Join(cfg.Dir, source)
				}
			}
			if sets[source] == nil {
				sets[source] = &keySet{source: source, file: j.JWKSFile != "", client: client, now: now}
			}
			is.keys = sets[source]
			a.issuers = append(a.issuers, is)
		}
	}
	return a, nil
}

// Authenticate returns the portal that the value of an Authorization header
// proves. The error is a *Problem: token-missing, token-expired,
// unauthenticated, or broker-unavailable's kin where an issuer's keys cannot be
// had.
func (a *Authenticator) Authenticate(ctx context.Context, authorization string) (string, error) {
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", NewProblem(fault.ReasonTokenMissing)
	}
	if len(token) > maxToken {
		return "", NewProblem(fault.ReasonUnauthenticated)
	}
	// All hashes are compared, so that the time says nothing about which.
	sum, found := sha256.Sum256([]byte(token)), ""
	for _, k := range a.keys {
		if subtle.ConstantTimeCompare(sum[:], k.hash[:]) == 1 {
			found = k.portal
		}
	}
	if found != "" {
		return found, nil
	}
	if len(a.issuers) > 0 && strings.Count(token, ".") == 2 {
		return a.token(ctx, token)
	}
	return "", NewProblem(fault.ReasonUnauthenticated)
}

func (a *Authenticator) token(ctx context.Context, raw string) (string, error) {
	unknown := NewProblem(fault.ReasonUnauthenticated)
	var all []jose.SignatureAlgorithm
	for _, alg := range algorithms {
		all = append(all, alg)
	}
	tok, err := jwt.ParseSigned(raw, all)
	if err != nil || len(tok.Headers) != 1 {
		return "", unknown
	}
	// Issuer and audience choose whose keys to verify with; nothing else is
	// believed before that.
	var claims jwt.Claims
	if err := tok.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return "", unknown
	}
	h := tok.Headers[0]
	for _, is := range a.issuers {
		if is.iss != claims.Issuer || !slices.Contains(claims.Audience, is.aud) {
			continue
		}
		if !slices.Contains(is.algs, jose.SignatureAlgorithm(h.Algorithm)) {
			continue
		}
		keys, err := is.keys.find(ctx, h.KeyID, h.Algorithm)
		if err != nil {
			p := NewProblem(fault.ReasonOverloaded)
			p.detail, p.Err = issuerUnreachable, err
			return "", p
		}
		for _, k := range keys {
			var verified jwt.Claims
			if tok.Claims(k.Key, &verified) != nil {
				continue
			}
			return is.portal, a.valid(verified, is)
		}
	}
	return "", unknown
}

func (a *Authenticator) valid(c jwt.Claims, is issuer) error {
	if c.Expiry == nil {
		return NewProblem(fault.ReasonUnauthenticated) // a token for ever is none of ours
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: is.iss, AnyAudience: jwt.Audience{is.aud}, Time: a.now()}, tokenLeeway)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return NewProblem(fault.ReasonTokenExpired)
	}
	return NewProblem(fault.ReasonUnauthenticated)
}

// keySet is an issuer's public keys, from a file or a URL. A set that cannot be
// had again stays in use; a key it does not know makes it look again, but not
// more often than every jwksPause.
type keySet struct {
	source string
	file   bool
	client *http.Client
	now    func() time.Time

	fetching sync.Mutex // one fetch at a time
	tried    time.Time  // under fetching

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	seen    filestamp.Stamps // of the file
	fetched time.Time        // last success
}

func (s *keySet) find(ctx context.Context, kid, alg string) ([]jose.JSONWebKey, error) {
	now := s.now()
	s.mu.Lock()
	none, stale := s.keys == nil, s.file || now.Sub(s.fetched) > jwksLifetime
	s.mu.Unlock()
	switch {
	case none:
		if err := s.refresh(ctx, now); err != nil {
			s.mu.Lock()
			none = s.keys == nil
			s.mu.Unlock()
			if none {
				return nil, err
			}
		}
	case stale && s.fetching.TryLock():
		// Who comes meanwhile goes on with the keys there are.
		_ = s.refreshLocked(ctx, now) // the keys there are stay in use
		s.fetching.Unlock()
	}
	found := s.match(kid, alg)
	if len(found) == 0 && kid != "" && !s.file && s.refresh(ctx, now) == nil {
		found = s.match(kid, alg)
	}
	return found, nil
}

func (s *keySet) match(kid, alg string) []jose.JSONWebKey {
	s.mu.Lock()
	keys := s.keys // replaced as a whole, never changed
	s.mu.Unlock()
	var out []jose.JSONWebKey
	for _, k := range keys {
		if (kid == "" || k.KeyID == kid) && (k.Algorithm == "" || k.Algorithm == alg) && suits(k.Key, alg) {
			out = append(out, k)
		}
	}
	return out
}

// suits keeps a key from being used with another kind of algorithm.
func suits(key any, alg string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && k.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return strings.HasPrefix(alg, "ES")
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

var errTooSoon = errors.New("the keys were asked for a moment ago")

func (s *keySet) refresh(ctx context.Context, now time.Time) error {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	return s.refreshLocked(ctx, now)
}

func (s *keySet) refreshLocked(ctx context.Context, now time.Time) error {
	if s.file {
		return s.read()
	}
	if !s.tried.IsZero() && now.Sub(s.tried) < jwksPause {
		return errTooSoon
	}
	s.tried = now
	// The set is everybody's: a portal that hangs up must not spoil the fetch.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jwksTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.source, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the issuer's keys: status %d", resp.StatusCode)
	}
	keys, err := parseKeys(resp.Body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.keys, s.fetched = keys, now
	s.mu.Unlock()
	return nil
}

func (s *keySet) read() error {
	now := filestamp.Of(s.source)
	s.mu.Lock()
	same := s.keys != nil && now.Same(s.seen)
	s.mu.Unlock()
	if same {
		return nil
	}
	f, err := os.Open(s.source)
	if err != nil {
		return err
	}
	defer f.Close()
	keys, err := parseKeys(f)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.keys, s.seen = keys, now
	s.mu.Unlock()
	return nil
}

func parseKeys(r io.Reader) ([]jose.JSONWebKey, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxJWKS {
		return nil, errors.New("the issuer's keys are too large")
	}
	// Keys one by one: a kind we do not know must not hide those we do.
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("the issuer's keys are not a JWK set")
	}
	keys := []jose.JSONWebKey{}
	for _, raw := range set.Keys[:min(len(set.Keys), maxJWKSKeys)] {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) == nil && k.Valid() && k.IsPublic() && (k.Use == "" || k.Use == "sig") {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the issuer's keys hold no public signing key")
	}
	return keys, nil
}
