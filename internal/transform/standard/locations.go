package standard

import (
	"io/fs"
	"path"
	"strings"
)

// resolveLocation finds the file a schemaLocation names, never outside fsys.
func resolveLocation(fsys fs.FS, from, location string, locations map[string]string) (string, bool) {
	if to, ok := locations[location]; ok {
		return to, true
	}
	if strings.Contains(location, "://") || strings.HasPrefix(location, "/") {
		return "", false
	}
	file := path.Join(path.Dir(from), location)
	if !fs.ValidPath(file) {
		return "", false
	}
	if to, ok := locations[file]; ok {
		return to, true
	}
	if info, err := fs.Stat(fsys, file); err != nil || info.IsDir() {
		return "", false
	}
	return file, true
}
