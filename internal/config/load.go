package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"weiche/internal/submission"
)

// The files of a Land. routes_test.yaml belongs to its folder too; it is read by
// those who test routes, and is no part of the configuration.
const (
	fileLand         = "land.yaml"
	fileAuthorities  = "authorities.yaml"
	fileDestinations = "destinations.yaml"
	fileRules        = "rules.yaml"
	filePortals      = "portals.yaml"

	// RoutesTestFile holds a Land's routing cases.
	RoutesTestFile = "routes_test.yaml"
)

var landFiles = []string{fileAuthorities, fileDestinations, fileLand, filePortals, fileRules}

// maxFile bounds one file, in bytes: far above any Land's, far below memory.
const maxFile = 64 << 20

var (
	landFolder = regexp.MustCompile(`^([0-9]{2})-([a-z0-9]+(?:-[a-z0-9]+)*)$`)
	// ids stand in labels, topic names and file names.
	idShape = regexp.MustCompile(`^[a-z0-9]+(?:[-_.][a-z0-9]+)*$`)
)

const maxID = 64

// Load reads the config directory. environ is what os.Environ returns; its
// WEICHE_ variables override router.yaml (see Overrides).
//
// Every fault is found in one go. Where router.yaml or an override is at fault
// the Config is nil. Where a Land is at fault, the Config lacks that Land alone
// (see Config.Broken) and the problems are returned beside it; Problems.Failed
// then still says true.
func Load(dir string, environ []string) (*Config, Problems) {
	l := &loader{cfg: &Config{
		Dir: dir, Lands: map[submission.Land]*Land{}, Broken: map[submission.Land]Problems{}, Portals: map[string]*Portal{},
	}}
	problems := l.router(environ)
	if problems.Failed() {
		// The Länder are read all the same, so that a person sees everything;
		// a faulty policy would be said again at each destination.
		l.cfg.Router.Delivery = Defaults().Delivery
		return nil, append(problems, l.lands()...)
	}
	return l.cfg, append(problems, l.lands()...)
}

type loader struct {
	cfg     *Config
	folders []*folder
}

// folder is a Land's folder while it is being read.
type folder struct {
	land      *Land
	problems  Problems
	portals   []*Portal
	portalsAt *decoder // nil where portals.yaml is broken
}

func (l *loader) path(parts ...string) string {
	return filepath.Join(append([]string{l.cfg.Dir}, parts...)...)
}

// read decodes a file into a struct. Where it is missing, ok is false and
// nothing is said.
func (l *loader) read(file string, into any) (d *decoder, data []byte, ok bool) {
	d = newDecoder(file)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil, false
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.Size() > maxFile {
			err = fmt.Errorf("is larger than %s", Bytes(maxFile))
		}
		f.Close()
	}
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		d.problems = append(d.problems, Pos{File: file}.Problem("cannot be read: %s", err))
		return d, nil, true
	}
	if n := d.parse(data); n != nil {
		v := reflect.ValueOf(into).Elem()
		d.decode(n, v, filepath.Base(file))
	}
	return d, data, true
}

// lands reads every Land, then what concerns several.
func (l *loader) lands() Problems {
	entries, err := os.ReadDir(l.path("lands"))
	if err != nil {
		return Problems{Pos{File: l.path("lands")}.Problem("the folder of the Länder cannot be read; it holds one folder a Land, such as 08-baden-wuerttemberg")}
	}
	var stray Problems
	byKey := map[submission.Land][]*folder{}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !isDir(l.path("lands", name)) {
			continue
		}
		m := landFolder.FindStringSubmatch(name)
		var key submission.Land
		if m != nil {
			key, err = submission.ParseLand(m[1])
		}
		if m == nil || err != nil {
			stray = append(stray, Pos{File: l.path("lands", name)}.Problem("this folder is not read: its name must be the Land's key and name in small letters, such as 08-baden-wuerttemberg"))
			continue
		}
		f := l.folder(name, key)
		l.folders = append(l.folders, f)
		byKey[key] = append(byKey[key], f)
	}
	for key, fs := range byKey {
		for _, f := range fs[1:] {
			f.problems = append(f.problems, Pos{File: f.land.Dir}.Problem("Land %s has two folders; the other is %s", key, fs[0].land.Dir))
			fs[0].problems = append(fs[0].problems, Pos{File: fs[0].land.Dir}.Problem("Land %s has two folders; the other is %s", key, f.land.Dir))
		}
	}
	l.portals()
	out := stray
	for _, f := range l.folders {
		f.problems.sort()
		out = append(out, f.problems...)
		if f.problems.Failed() {
			l.cfg.Broken[f.land.Key] = append(l.cfg.Broken[f.land.Key], f.problems...)
			delete(l.cfg.Lands, f.land.Key)
		} else {
			l.cfg.Lands[f.land.Key] = f.land
		}
	}
	return out
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// folder reads one Land, up to what concerns other Länder.
func (l *loader) folder(name string, key submission.Land) *folder {
	land := &Land{Key: key, Dir: l.path("lands", name)}
	f := &folder{land: land}
	hash := sha256.New()
	contents := map[string][]byte{}
	file := func(base string, into any) *decoder {
		d, data, ok := l.read(filepath.Join(land.Dir, base), into)
		if ok {
			contents[base] = data
		} else if base == fileLand {
			d.problems = append(d.problems, Pos{File: filepath.Join(land.Dir, base)}.Problem("the file is missing: it says which Land this is and what it offers"))
		}
		return d
	}

	var head struct {
		Land     submission.Land `yaml:"land"`
		Name     string          `yaml:"name"`
		Services []Offer         `yaml:"services"`
		Edits    Edits           `yaml:"edits"`
		Pos      Pos             `yaml:"-"`
	}
	head.Edits.Expire = DefaultEditExpire
	var authorities struct {
		Authorities []Authority `yaml:"authorities"`
	}
	var destinations struct {
		Destinations []Destination `yaml:"destinations"`
	}
	var rules struct {
		Rules []Rule `yaml:"rules"`
	}
	var portals struct {
		Portals []*Portal `yaml:"portals"`
	}

	dLand := file(fileLand, &head)
	c := &checker{land: land}
	if len(dLand.problems) == 0 || head.Land != "" {
		land.Name, land.Services, land.Edits, land.Pos = head.Name, head.Services, head.Edits, head.Pos
		around := head.Pos
		if around.Line == 0 {
			around = Pos{File: filepath.Join(land.Dir, fileLand), Line: 1} // an empty file
		}
		c.head(dLand, around, head.Land, &head.Land, &head.Name)
		dLand.positive(func(v any) Pos { return dLand.of(v, around) }, map[string]any{"expire": &head.Edits.Expire})
	}
	c.haveServices = !dLand.problems.Failed()

	dDest := file(fileDestinations, &destinations)
	l.policies(dDest, destinations.Destinations)
	land.Destinations = destinations.Destinations
	c.destinations(dDest)

	dAuth := file(fileAuthorities, &authorities)
	land.Authorities = authorities.Authorities
	c.authorities(dAuth, !dDest.problems.Failed())

	dRules := file(fileRules, &rules)
	land.Rules = rules.Rules
	c.rules(dRules, !dAuth.problems.Failed())
	if !dDest.problems.Failed() && !dAuth.problems.Failed() && !dRules.problems.Failed() {
		c.unreached(dAuth, dDest, dRules)
	}

	dPortals := file(filePortals, &portals)
	for _, p := range portals.Portals {
		if p != nil {
			p.Home = key
			f.portals = append(f.portals, p)
		}
	}
	f.portalsAt = dPortals
	c.portals(dPortals, f.portals)

	for _, d := range []*decoder{dLand, dDest, dAuth, dRules, dPortals} {
		f.problems = append(f.problems, d.problems...)
	}
	f.problems = append(f.problems, c.strangers()...)

	for _, base := range landFiles {
		if data, ok := contents[base]; ok {
			fmt.Fprintf(hash, "%s\x00%d\x00", base, len(data))
			hash.Write(data)
		}
	}
	land.Hash = hex.EncodeToString(hash.Sum(nil))
	return f
}

// portals checks what concerns several Länder, and takes over the portals of
// every sound portals.yaml.
func (l *loader) portals() {
	broken := map[submission.Land]bool{}
	known := map[submission.Land]*Land{}
	for _, f := range l.folders {
		known[f.land.Key] = f.land
		broken[f.land.Key] = broken[f.land.Key] || f.problems.Failed()
	}
	keys := map[string]*Portal{}
	dvdv := map[submission.AuthorityKey]*Portal{}
	for _, f := range l.folders {
		var found Problems
		sound := !f.portalsAt.problems.Failed()
		for _, p := range f.portals {
			at := func(v any) Pos { return f.portalsAt.of(v, p.Pos) }
			if first, again := l.cfg.Portals[p.ID]; again && p.ID != "" {
				found = append(found, at(&p.ID).Problem("portal %q exists already, in %s; portals are named once for all Länder", p.ID, first.Pos.FileLine()))
				continue
			}
			if first, again := dvdv[p.Key]; again && p.Key != "" {
				found = append(found, at(&p.Key).Problem("key %s is that of portal %q already, in %s", p.Key, first.ID, first.Pos.FileLine()))
			}
			for i := range p.Auth.APIKeySHA256 {
				k := strings.ToLower(p.Auth.APIKeySHA256[i])
				if first, again := keys[k]; again {
					found = append(found, at(&p.Auth.APIKeySHA256[i]).Problem("this API key is that of portal %q already, in %s; a key must tell one portal", first.ID, first.Pos.FileLine()))
				}
				keys[k] = p
			}
			dvdv[p.Key] = p
			offered, unsure := map[submission.Service]bool{}, false
			for i, land := range p.Lands {
				switch served, ok := known[land]; {
				case !ok:
					found = append(found, at(&p.Lands[i]).Problem("portal %q sends for Land %s, which has no folder here", p.ID, land))
				case broken[land]:
					unsure = true
					if land != f.land.Key {
						found = append(found, at(&p.Lands[i]).Warning("portal %q sends for Land %s, whose configuration is refused at the moment", p.ID, land))
					}
				default:
					for _, o := range served.Services {
						offered[o.Service] = true
					}
				}
			}
			for i, s := range p.Services {
				if !unsure && !offered[s] && s != AnyService {
					found = append(found, at(&p.Services[i]).Warning("portal %q may send service %s, which none of its Länder offers", p.ID, s))
				}
			}
		}
		f.problems = append(f.problems, found...)
		if sound && !found.Failed() {
			f.land.Portals = f.portals
			for _, p := range f.portals {
				l.cfg.Portals[p.ID] = p
			}
		}
	}
}
