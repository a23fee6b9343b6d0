package trip

import (
	"bytes"
	"context"
	"errors"
	"io"

	"weiche/internal/adapters/wire"
)

// Stream is a body as a reader. What is written as it goes out has a writer that
// runs beside the transport; it ends with Stop.
type Stream struct {
	io.Reader
	pipe *io.PipeReader // nil for a whole body
	done chan struct{}
	src  *wire.SourceError // valid when done is closed
}

// Whole is a body that is in memory already.
func Whole(body []byte) *Stream { return &Stream{Reader: bytes.NewReader(body)} }

// NewStream is a body that write writes as it goes out.
func NewStream(ctx context.Context, write func(context.Context, io.Writer) error) *Stream {
	r, w := io.Pipe()
	s := &Stream{Reader: r, pipe: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := write(ctx, w)
		s.src, _ = errors.AsType[*wire.SourceError](err)
		_ = w.CloseWithError(err)
	}()
	return s
}

// Close implements io.Closer; the transport calls it.
func (s *Stream) Close() error {
	if s.pipe == nil {
		return nil
	}
	return s.pipe.Close()
}

// Stop ends the writer, waits for it and returns what went wrong at the source.
func (s *Stream) Stop() *wire.SourceError {
	if s.pipe == nil {
		return nil
	}
	_ = s.pipe.Close()
	<-s.done
	return s.src
}
