package embedded

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// The broker's state files, as kfake writes them (format 1). Only what the check
// needs is read.
const stateFormat = 1

type topicState struct {
	Name       string            `json:"name"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs"`
}

func (t topicState) compacted() bool { return t.Configs["cleanup.policy"] == "compact" }

// unlimited says that nothing but the router deletes records of the topic, and
// the router always leaves the last one.
func (t topicState) unlimited() bool {
	return t.Configs["retention.ms"] == "-1" && t.Configs["retention.bytes"] == "-1"
}

// snapshot is a partition's state at the last orderly stop, or at the last check.
// The end of a log never moves back, so HighWatermark is a lower bound of it.
type snapshot struct {
	Version          int           `json:"version"`
	HighWatermark    int64         `json:"high_watermark"`
	LastStableOffset int64         `json:"last_stable_offset"`
	LogStartOffset   int64         `json:"log_start_offset"`
	Epoch            int32         `json:"epoch"`
	MaxTimestamp     int64         `json:"max_timestamp"`
	CreatedAt        string        `json:"created_at,omitempty"`
	Segments         []segmentSize `json:"segments"`
}

type segmentSize struct {
	BaseOffset int64 `json:"base_offset"`
	Size       int64 `json:"size"`
}

// optional are the state files that the router can do without: what they hold is
// unused here, set anew at every start, or only saves work after a restart.
var optional = []string{"acls.json", "sasl.json", "quotas.json", "broker_configs.json", "seq_windows.json", "session_state.json"}

// readJSON returns false without an error when there is no such file.
func readJSON(name string, v any) (bool, error) {
	raw, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, unreadable{err}
	}
	return true, nil
}

// unreadable marks content that cannot be understood, as opposed to a file that
// cannot be read.
type unreadable struct{ error }

// where is the byte at which the content stops making sense.
func (u unreadable) where() int64 {
	switch e := u.error.(type) { //nolint:errorlint // what json.Unmarshal returns, unwrapped
	case *json.SyntaxError:
		return e.Offset
	case *json.UnmarshalTypeError:
		return e.Offset
	}
	return 0
}

// groups.log and pids.log are frames: length (4 bytes, of what follows the CRC),
// CRC-32C (4), version (2), JSON.
const frameHeader = 10

func frameAt(raw []byte) (size int, ok bool) {
	if len(raw) < frameHeader {
		return 0, false
	}
	length := int64(binary.LittleEndian.Uint32(raw))
	if length < 2 || 8+length > int64(len(raw)) {
		return 0, false
	}
	size = int(8 + length)
	return size, crc32.Checksum(raw[8:size], castagnoli) == binary.LittleEndian.Uint32(raw[4:])
}

// scanFrames calls fn with each good frame's JSON. keep are the good runs of
// bytes, flaws where bytes between or behind them are bad, and torn the length of
// an unfinished write at the end.
func scanFrames(raw []byte, fn func([]byte)) (keep []stretch, flaws []flaw, torn int64) {
	for pos := 0; pos < len(raw); {
		if n, ok := frameAt(raw[pos:]); ok {
			if last := len(keep) - 1; last >= 0 && keep[last].to == int64(pos) {
				keep[last].to += int64(n)
			} else {
				keep = append(keep, stretch{from: int64(pos), to: int64(pos + n)})
			}
			fn(raw[pos+frameHeader : pos+n])
			pos += n
			continue
		}
		resume := pos + 1
		for resume < len(raw) {
			if _, ok := frameAt(raw[resume:]); ok {
				break
			}
			resume++
		}
		tail := raw[pos:]
		if resume == len(raw) && (zero(tail) || len(tail) < frameHeader || 8+int64(binary.LittleEndian.Uint32(tail)) > int64(len(tail))) {
			return keep, flaws, int64(len(tail))
		}
		flaws = append(flaws, flaw{int64(pos), "an entry's CRC-32C does not match"})
		pos = resume
	}
	return keep, flaws, 0
}

type slotKey struct {
	topic     string
	partition int32
}

// committed follows groups.log and keeps the latest commit of each group.
type committed map[string]map[slotKey]int64

func (c committed) apply(entry []byte) {
	var e struct {
		Type, G, T string
		P          int32
		O          int64
	}
	if json.Unmarshal(entry, &e) != nil {
		return
	}
	k := slotKey{e.T, e.P}
	switch e.Type {
	case "commit":
		if c[e.G] == nil {
			c[e.G] = map[slotKey]int64{}
		}
		c[e.G][k] = e.O
	case "delete":
		delete(c[e.G], k)
	}
}

// of returns how far the group that is furthest has read a partition.
func (c committed) of(topic string, partition int) (group string, offset int64) {
	for g, at := range c {
		if o := at[slotKey{topic, int32(partition)}]; o > offset {
			group, offset = g, o
		}
	}
	return group, offset
}

// replace writes a file so that it is the old or the new one, whenever the
// machine stops.
func replace(name string, content []byte) error {
	tmp := name + ".tmp" // what is left behind kfake removes at its start
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// cut shortens a file, and syncs it.
func cut(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("shorten %s: %w", name, err)
	}
	return f.Sync()
}
