package transform

import (
	"regexp"
	"sync"
)

var patterns sync.Map // written → *regexp.Regexp, nil where it does not compile

// compilePattern compiles a pattern of a form's schema as the form's validator
// does, once.
func compilePattern(s string) (*regexp.Regexp, error) {
	if re, ok := patterns.Load(s); ok {
		return re.(*regexp.Regexp), nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, err
	}
	patterns.Store(s, re)
	return re, nil
}
