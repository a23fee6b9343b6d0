// Package credential reads the files that destinations' settings name: keys,
// certificates, passwords, tokens.
package credential

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Read reads a file of at most limit bytes. The error names no path and quotes
// nothing of the file.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New("it is missing or cannot be read")
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, errors.New("it is missing or cannot be read")
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, nil
}
