package config

import (
	"fmt"
	"time"
	_ "time/tzdata" // Berlin must be known wherever the binary runs
)

// berlin is where the calendar days of rules begin and end.
var berlin = func() *time.Location {
	l, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err) // tzdata is compiled in
	}
	return l
}()

// Berlin returns the time zone of all calendar days in the configuration.
func Berlin() *time.Location { return berlin }

// Date is a calendar day in Europe/Berlin, written 2027-01-01. The zero Date is
// no day.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// ParseDate reads "2027-01-01".
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a day: year-month-day is expected, as in 2027-01-01", clip(s))
	}
	return DateOf(time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, berlin)), nil
}

// DateOf returns the calendar day of t in Europe/Berlin.
func DateOf(t time.Time) Date {
	y, m, d := t.In(berlin).Date()
	return Date{y, m, d}
}

// IsZero says whether it is no day.
func (d Date) IsZero() bool { return d == Date{} }

// Start returns the instant the day begins in Europe/Berlin.
func (d Date) Start() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, berlin) }

// End returns the instant the next day begins.
func (d Date) End() time.Time { return time.Date(d.Year, d.Month, d.Day+1, 0, 0, 0, 0, berlin) }

// String returns "2027-01-01", or "" for no day.
func (d Date) String() string {
	if d.IsZero() {
		return ""
	}
	return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day)
}

// UnmarshalText reads what String wrote.
func (d *Date) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDate(string(b))
	return err
}

// MarshalText writes the day as String does.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Holds says whether the rule is valid at the time.
func (r Rule) Holds(at time.Time) bool {
	return (r.From.IsZero() || !at.Before(r.From.Start())) && (r.Until.IsZero() || at.Before(r.Until.End()))
}

// clip bounds what an error text repeats of its input.
func clip(s string) string {
	if r := []rune(s); len(r) > 64 {
		return string(r[:64]) + "…"
	}
	return s
}
