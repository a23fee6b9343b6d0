package app

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files in the data directory that hold what the first start makes.
const (
	exampleKeysFile   = "example-keys.json"
	operatorTokenFile = "operator.token"
	addressesFile     = "addresses.json"
)

// newSecret draws 256 bits. prefix tells a person who finds it what it is.
func newSecret(prefix string) string {
	var b [32]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

func hashSecret(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// exampleKeys reads the example portals' keys from the data directory and makes
// those that are missing. made names the portals whose key is new.
func exampleKeys(data string, portals []string) (keys map[string]string, made []string, err error) {
	path := filepath.Join(data, exampleKeysFile)
	keys = map[string]string{}
	if err := readJSON(path, &keys); err != nil {
		return nil, nil, err
	}
	for _, p := range portals {
		if keys[p] == "" {
			keys[p] = newSecret("weiche_")
			made = append(made, p)
		}
	}
	if len(made) > 0 {
		if err := writeJSON(path, keys, 0o600); err != nil {
			return nil, nil, err
		}
	}
	return keys, made, nil
}

// operatorToken reads the token of the operator "local" and makes it at the
// first start.
func operatorToken(data string) (string, error) {
	path := filepath.Join(data, operatorTokenFile)
	b, err := os.ReadFile(path)
	if err == nil {
		if t := strings.TrimSpace(string(b)); t != "" {
			return t, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the local operator's token: %w", err)
	}
	token := newSecret("weiche_op_")
	return token, writeFile(path, []byte(token+"\n"), 0o600)
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s is damaged: %w; remove it and it is made anew", path, err)
	}
	return nil
}

// mustReadJSON is readJSON where a missing file is fs.ErrNotExist.
func mustReadJSON(path string, into any) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	return readJSON(path, into)
}

// removeIfSame removes a file that still says v: another process may have
// written its own.
func removeIfSame[T any](path string, v T) error {
	var now T
	if err := mustReadJSON(path, &now); err != nil {
		return nil
	}
	a, _ := json.Marshal(now)
	b, _ := json.Marshal(v)
	if string(a) != string(b) {
		return nil
	}
	return os.Remove(path)
}

func writeJSON(path string, v any, mode os.FileMode) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), mode)
}

// writeFile replaces a file as a whole: readers see the old one or the new one.
func writeFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
