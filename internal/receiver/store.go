package receiver

import (
	"bufio"
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"weiche/internal/adapters/wire"
	"weiche/internal/foreignxml"
	"weiche/internal/submission"
)

const (
	maxParts   = 1000
	maxContent = 64 << 20 // bytes
)

// store is the directory: <id>.xml (.csv, .pdf), <id>/ with the attachments, .seen with one
// id a line, .work for what is not complete.
type store struct {
	dir  string
	mu   sync.Mutex // of keep
	seen map[string]bool
	log  *os.File
}

func openStore(dir string) (*store, error) {
	work := filepath.Join(dir, ".work")
	if err := os.RemoveAll(work); err != nil { // of an earlier run
		return nil, err
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, ".seen"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, seen: map[string]bool{}, log: log}
	r := bufio.NewReader(log)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if line != "" {
				// A crash tore the last line; its message was never answered. Its
				// own line's end keeps the next id whole.
				_, err = log.WriteString("\n")
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, errors.Join(err, log.Close())
			}
			return s, nil
		}
		s.seen[strings.TrimSuffix(line, "\n")] = true
	}
}

func (s *store) close() error { return s.log.Close() }

// message is a request on its way into the directory.
type message struct {
	id, work    string
	content     []byte
	attachments int
	size        int64 // bytes of the body
	format      submission.Format
	checked     string
}

func (s *store) begin(id string) (*message, error) {
	work, err := os.MkdirTemp(filepath.Join(s.dir, ".work"), "")
	if err != nil {
		return nil, err
	}
	return &message{id: id, work: work}, nil
}

func (m *message) remove() { _ = os.RemoveAll(m.work) }

func (m *message) body() string   { return filepath.Join(m.work, "body") }
func (m *message) folder() string { return filepath.Join(m.work, "attachments") }

// spool writes the body to disk and to the signature's check.
func (m *message) spool(r io.Reader, proof io.Writer, limit int64) error {
	f, err := os.OpenFile(m.body(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	in := &watched{r: io.LimitReader(r, limit+1)}
	m.size, err = io.Copy(io.MultiWriter(f, proof), in)
	err = errors.Join(err, f.Close())
	switch {
	case m.size > limit:
		return refusal{http.StatusRequestEntityTooLarge, "too-large"}
	case in.err != nil:
		return refusal{http.StatusBadRequest, "interrupted"}
	}
	return err
}

// watched remembers a failure to read, to tell it from one to write.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// unpack takes the spooled body apart.
func (m *message) unpack(contentType string) error {
	f, err := os.Open(m.body())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	mediaType, params, err := mime.ParseMediaType(contentType)
	switch {
	case err == nil && slices.Contains([]string{"application/xml", "text/xml", "text/csv", "application/pdf"}, mediaType):
		m.content, err = readContent(f)
		return err
	case err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "":
		return refusal{http.StatusUnsupportedMediaType, "media-type"}
	}
	if err := os.Mkdir(m.folder(), 0o700); err != nil {
		return err
	}
	parts := multipart.NewReader(f, params["boundary"])
	for n := 0; ; n++ {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n > maxParts {
			return refusal{http.StatusBadRequest, "malformed"}
		}
		if n == 0 {
			if m.content, err = readContent(p); err != nil {
				return err
			}
			continue
		}
		if err := m.attachment(p); err != nil {
			return err
		}
	}
	if m.content == nil {
		return refusal{http.StatusBadRequest, "malformed"}
	}
	return syncFile(m.folder())
}

func readContent(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxContent+1))
	if err != nil {
		return nil, refusal{http.StatusBadRequest, "malformed"}
	}
	if len(b) > maxContent {
		return nil, refusal{http.StatusRequestEntityTooLarge, "too-large"}
	}
	return b, nil
}

func (m *message) attachment(p *multipart.Part) error {
	// The name is made safe here again: a receiver trusts no sender's word for it.
	name := strings.TrimPrefix(p.FileName(), fmt.Sprintf("%02d-", m.attachments+1))
	name = wire.SafeName(name, m.attachments)
	m.attachments++
	f, err := os.OpenFile(filepath.Join(m.folder(), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sum := sha512.New()
	in := &watched{r: p}
	_, err = io.Copy(io.MultiWriter(f, sum), in)
	err = errors.Join(err, f.Sync(), f.Close())
	switch digest := p.Header.Get("Content-Digest"); {
	case in.err != nil:
		return refusal{http.StatusBadRequest, "malformed"}
	case err != nil:
		return err
	case digest != "" && digest != "sha-512=:"+base64.StdEncoding.EncodeToString(sum.Sum(nil))+":":
		return refusal{http.StatusUnprocessableEntity, "hash-mismatch"}
	}
	return nil
}

// keep moves the message into place and notes its id, all of it fsynced. It says
// whether the message is new.
func (s *store) keep(m *message) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[m.id] {
		return false, nil
	}
	target := filepath.Join(s.dir, m.id)
	if m.attachments > 0 {
		if err := os.RemoveAll(target); err != nil { // of a try that was never answered
			return false, err
		}
		if err := os.Rename(m.folder(), target); err != nil {
			return false, err
		}
	}
	whole := filepath.Join(m.work, "message"+m.format.Extension())
	if err := os.WriteFile(whole, m.content, 0o600); err != nil {
		return false, err
	}
	if err := syncFile(whole); err != nil {
		return false, err
	}
	if err := os.Rename(whole, target+m.format.Extension()); err != nil {
		return false, err
	}
	if err := syncFile(s.dir); err != nil {
		return false, err
	}
	if _, err := s.log.WriteString(m.id + "\n"); err != nil {
		return false, err
	}
	if err := s.log.Sync(); err != nil {
		return false, err
	}
	s.seen[m.id] = true
	return true, nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func precheck(xml []byte) error {
	return foreignxml.Check(bytes.NewReader(xml), foreignxml.Limits{Bytes: maxContent})
}
