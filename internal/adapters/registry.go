package adapters

import (
	"strings"

	"weiche/internal/adapters/file"
	"weiche/internal/adapters/http"
	"weiche/internal/adapters/kafka"
	"weiche/internal/adapters/sftp"
	"weiche/internal/adapters/smtp"
	"weiche/internal/adapters/xta"
	"weiche/internal/config"
)

// Kinds returns every kind, in the order of the reference page.
func Kinds() []Kind {
	return []Kind{
		kafka.Kind(),
		http.Kind(),
		sftp.Kind(),
		smtp.Kind(),
		xta.Kind(),
		file.Kind(),
	}
}

// Check says what is wrong with a destination's adapter and settings, with file
// and line. Nothing is opened or connected.
func Check(dest config.Destination) config.Problems {
	k, ps := kindOf(dest)
	if ps != nil {
		return ps
	}
	_, ps = k.Decode(dest.Settings)
	return ps
}

// New makes the adapter of a destination. name is the destination's name over
// all Länder (submission.DestinationName). It touches neither network nor disk.
// Settings that Check refuses are refused here too, as config.Problems.
func New(name string, dest config.Destination, deps Deps) (Adapter, error) {
	k, ps := kindOf(dest)
	if ps != nil {
		return nil, ps
	}
	v, ps := k.Decode(dest.Settings)
	if err := ps.Err(); err != nil {
		return nil, err
	}
	return k.New(name, v, deps.WithDefaults())
}

// Describe lists a destination's settings for people, secrets masked.
func Describe(dest config.Destination) ([]Setting, config.Problems) {
	k, ps := kindOf(dest)
	if ps != nil {
		return nil, ps
	}
	v, ps := k.Decode(dest.Settings)
	return v.Masked(), ps
}

func kindOf(dest config.Destination) (Kind, config.Problems) {
	var names []string
	for _, k := range Kinds() {
		if k.Name == dest.Adapter {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, config.Problems{dest.Pos.Problem("adapter %q is not known; one of %s is expected", dest.Adapter, strings.Join(names, ", "))}
}
