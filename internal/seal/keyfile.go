package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const maxKeyFileBytes = 64 << 10

// readKeyFile reads a secret file. It refuses one that others than owner and
// group can read, or others than the owner can write: such a key must be taken
// for known.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o027 != 0 {
		return nil, fmt.Errorf("key file %s has mode %04o, so others can read or change it: replace the key where it may have been read, then chmod 600 the file", path, perm)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKeyFileBytes {
		return nil, fmt.Errorf("key file %s has more than %d bytes", path, maxKeyFileBytes)
	}
	return b, nil
}

// readOrMakeKeyFile reads a secret file, making it (mode 0600, durable) with the
// content that fresh gives where it is missing. Of several processes that make
// it at once one wins, and all read the winner's.
func readOrMakeKeyFile(path string, fresh func() ([]byte, error)) ([]byte, error) {
	b, err := readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	content, err := fresh()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	// A hard link, not a rename: it never replaces the key another process made.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// The key has to survive what it seals, so its name is made durable first.
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return readKeyFile(path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes the directory of the keys, for the owner only, and makes every
// directory it made durable.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func freshSecretFile() ([]byte, error) {
	return append(base64.StdEncoding.AppendEncode(nil, newSecret()), '\n'), nil
}

// parseSecrets reads a secret file: 32 bytes in base64 a line.
func parseSecrets(path string, content []byte) ([][]byte, error) {
	var keys [][]byte
	for line := range bytes.Lines(content) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		key, err := base64.StdEncoding.AppendDecode(nil, line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("key file %s is malformed: each line must be %d random bytes in base64 (openssl rand -base64 %d)", path, keyBytes, keyBytes)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("key file %s is empty: %d random bytes in base64 are expected (openssl rand -base64 %d)", path, keyBytes, keyBytes)
	}
	return keys, nil
}
