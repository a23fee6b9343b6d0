package status_test

import (
	"path/filepath"
	"testing"

	"weiche/internal/status"
	"weiche/internal/status/statustest"
)

func TestSQLite(t *testing.T) {
	statustest.Run(t, func(dir string) (statustest.Store, error) { return status.Open(filepath.Join(dir, "status.db")) })
}
