// Package fault classes errors by what has to happen next, with a reason out of
// a bounded set.
//
// The same reason word stands in the metric, the log line, the event and the
// dead letter. A fault's texts never carry payload: no form value, no file
// name, no address of a person. The package decides nothing about retry times
// or states; it only names what went wrong and who is at fault.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Class says who is at fault, and so what becomes of the record.
type Class uint8

const (
	// Retryable faults may go away by themselves; an unknown error is one.
	Retryable Class = iota
	// Permanent faults belong to this one message; trying again changes nothing.
	Permanent
	// Destination faults belong to the destination (refused connection, 401,
	// expired certificate); it pauses and no attempt is counted.
	Destination
	// Cancelled means the work was given up from our side (shutdown, rebalance).
	// Nothing is counted and nothing is recorded.
	Cancelled
)

// String returns the class as it stands in logs and events.
func (c Class) String() string {
	switch c {
	case Permanent:
		return "permanent"
	case Destination:
		return "destination"
	case Cancelled:
		return "cancelled"
	default:
		return "retryable"
	}
}

// Error is a classed fault. Detail is a sentence for operators; it must not
// carry payload. Err is the cause, kept for errors.Is and errors.As; its text is
// NOT part of Error(), because foreign error texts may quote payload.
type Error struct {
	Class      Class
	Reason     Reason
	Detail     string
	RetryAfter time.Duration // what the destination asked for; zero if nothing
	Err        error
}

// Error returns reason and detail, never the text of the wrapped cause.
func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes a fault; detail is formatted with args and must be free of payload.
func New(c Class, r Reason, detail string, args ...any) *Error {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Error{Class: c, Reason: r, Detail: detail}
}

// Wrap is New with a cause.
func Wrap(err error, c Class, r Reason, detail string, args ...any) *Error {
	e := New(c, r, detail, args...)
	e.Err = err
	return e
}

// Of returns err as a fault. A cancelled context is Cancelled, a deadline that
// ran out is retryable, anything unknown is retryable with ReasonUnknown.
// Of(nil) is nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var f *Error
	if errors.As(err, &f) {
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Wrap(err, Cancelled, ReasonCancelled, "")
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(err, Retryable, ReasonTimeout, "no answer in time")
	}
	return Wrap(err, Retryable, ReasonUnknown, "an error nobody has classed yet")
}
