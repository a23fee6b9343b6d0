package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockData keeps a second router off the data directory: the status store, the
// addresses and the local operator's token are one process's. The lock goes with
// the process, however it ends.
func lockData(dir string) (func(context.Context) error, error) {
	f, err := os.OpenFile(filepath.Join(dir, "router.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be used: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by another router; stop it, or name another directory with --data", dir)
		}
		return nil, fmt.Errorf("the data directory %s cannot be locked: %w", dir, err)
	}
	return func(context.Context) error { return f.Close() }, nil
}
