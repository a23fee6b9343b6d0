package seal

import (
	"bytes"
	"errors"
	"io"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"

	"weiche/internal/fault"
)

const (
	// segmentBytes is the size of a ciphertext segment of a stream: what has to
	// be in memory, twice, to encrypt or to verify.
	segmentBytes = 1 << 20

	// smallStream is the longest plain text in bytes that gets a segment of its
	// own size, in place of buffers for a whole one. A stream of one segment has
	// the same bytes whatever the size of the segment that it does not fill.
	smallStream = 64 << 10

	// streamOverhead is how many bytes a stream of one segment is longer than its
	// plain text: header and tag.
	streamOverhead = 1 + keyBytes + subtle.AESGCMHKDFNoncePrefixSizeInBytes + subtle.AESGCMHKDFTagSizeInBytes
)

// EncryptTo returns a writer that encrypts to w (AES-GCM-HKDF in segments of
// 1 MB). Nothing is complete before its Close, which leaves w open. Errors of w
// come back as they are.
func (k *DataKey) EncryptTo(w io.Writer, aad string) (io.WriteCloser, error) {
	return &sealing{key: k, w: w, aad: k.streamAAD(aad)}, nil
}

// DecryptFrom reads what EncryptTo wrote with the same aad. Every byte it
// returns is authentic; that the stream is whole is known at io.EOF only. A
// damaged, forged or cut stream is a fault, Permanent and undecryptable; errors
// of r come back as they are. An error stays.
func (k *DataKey) DecryptFrom(r io.Reader, aad string) (io.Reader, error) {
	src := &source{r: r}
	begin, err := io.ReadAll(io.LimitReader(src, smallStream+streamOverhead+1))
	if err != nil {
		return nil, src.classed(err)
	}
	segment, rest := segmentBytes, io.MultiReader(bytes.NewReader(begin), src)
	if len(begin) <= smallStream+streamOverhead {
		segment, rest = oneSegment(len(begin)-streamOverhead), bytes.NewReader(begin)
	}
	s, err := k.streaming(segment)
	if err != nil {
		return nil, err
	}
	plain, err := s.NewDecryptingReader(rest, k.streamAAD(aad))
	if err != nil {
		return nil, src.classed(err)
	}
	return &opening{src: src, plain: plain}, nil
}

// oneSegment is the size of a segment that takes n bytes of plain text; a stream
// needs room for one byte at least.
func oneSegment(n int) int { return max(1, n) + streamOverhead }

func (k *DataKey) streaming(segment int) (*subtle.AESGCMHKDF, error) {
	return subtle.NewAESGCMHKDF(derive(k.secret, purposeStream), "SHA256", keyBytes, segment, 0)
}

func (k *DataKey) streamAAD(aad string) []byte {
	return bind(purposeStream, string(k.wrapped.Land), k.wrapped.DayKey, aad)
}

// sealing holds plain text back until it is known to be small or not.
type sealing struct {
	key    *DataKey
	w      io.Writer
	aad    []byte
	held   []byte
	stream io.WriteCloser // nil: all there is is held
}

func (s *sealing) Write(p []byte) (int, error) {
	if s.stream == nil {
		if len(s.held)+len(p) <= smallStream {
			s.held = append(s.held, p...)
			return len(p), nil
		}
		if err := s.begin(segmentBytes); err != nil {
			return 0, err
		}
	}
	return s.stream.Write(p)
}

func (s *sealing) Close() error {
	if s.stream == nil {
		if err := s.begin(oneSegment(len(s.held))); err != nil {
			return err
		}
	}
	return s.stream.Close()
}

// begin writes what was held to a stream of such segments.
func (s *sealing) begin(segment int) error {
	a, err := s.key.streaming(segment)
	if err != nil {
		return err
	}
	stream, err := a.NewEncryptingWriter(s.w, s.aad)
	if err != nil {
		return err
	}
	if _, err := stream.Write(s.held); err != nil {
		return err
	}
	s.stream, s.held = stream, nil
	return nil
}

// source remembers whether the reader below failed, to tell a broken disk from
// a broken ciphertext.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *source) classed(err error) error {
	if s.err != nil {
		return s.err
	}
	return fault.Wrap(err, fault.Permanent, fault.ReasonUndecryptable, "a sealed stream is damaged, cut, forged, or of another place")
}

// opening makes errors stay: the reader below answers io.EOF after a last
// segment that did not verify.
type opening struct {
	src   *source
	plain io.Reader
	err   error
}

func (o *opening) Read(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.plain.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = o.src.classed(err)
	}
	o.err = err
	return n, err
}
