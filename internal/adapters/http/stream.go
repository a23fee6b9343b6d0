package http

import (
	"bytes"
	"context"
	"errors"
	"io"

	"weiche/internal/adapters/wire"
	"weiche/internal/submission"
)

// stream is the body as a reader. With attachments a writer runs beside the
// transport; it ends with stop.
type stream struct {
	io.Reader
	pipe *io.PipeReader // nil without attachments
	done chan struct{}
	src  *wire.SourceError // valid when done is closed
}

func newStream(ctx context.Context, d *submission.Delivery, body *wire.Body) *stream {
	if len(d.Attachments) == 0 {
		return &stream{Reader: bytes.NewReader(d.XML)}
	}
	r, w := io.Pipe()
	s := &stream{Reader: r, pipe: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := body.WriteTo(ctx, w)
		s.src, _ = errors.AsType[*wire.SourceError](err)
		_ = w.CloseWithError(err)
	}()
	return s
}

// Close implements io.Closer; the transport calls it.
func (s *stream) Close() error {
	if s.pipe == nil {
		return nil
	}
	return s.pipe.Close()
}

// stop ends the writer, waits for it and returns what went wrong at the source.
func (s *stream) stop() *wire.SourceError {
	if s.pipe == nil {
		return nil
	}
	_ = s.pipe.Close()
	<-s.done
	return s.src
}
