package receiver

import (
	"fmt"
	"strconv"
	"strings"
)

// Answers is a sequence of status codes to answer proper messages with; the last
// one stays. The zero Answers are 204 always. Not safe for concurrent use.
type Answers struct {
	steps []step
}

type step struct{ status, times int }

// ParseAnswers reads "503", or "503x3,200": three times 503, then 200 for good. A
// message is stored only where its answer is 2xx.
func ParseAnswers(text string) (Answers, error) {
	var a Answers
	if text == "" {
		return a, nil
	}
	for _, part := range strings.Split(text, ",") {
		code, times, repeated := strings.Cut(strings.TrimSpace(part), "x")
		s := step{times: 1}
		var err error
		if s.status, err = strconv.Atoi(code); err == nil && repeated {
			s.times, err = strconv.Atoi(times)
		}
		if err != nil || s.status < 200 || s.status > 599 || s.times < 1 {
			return Answers{}, fmt.Errorf("%q is not an answer: a status from 200 to 599 is expected, as in 503, or 503x3,200 for three times 503 and then 200", part)
		}
		a.steps = append(a.steps, s)
	}
	return a, nil
}

func (a *Answers) next() int {
	if len(a.steps) == 0 {
		return 204
	}
	s := &a.steps[0]
	status := s.status
	if s.times--; s.times <= 0 && len(a.steps) > 1 {
		a.steps = a.steps[1:]
	}
	return status
}
