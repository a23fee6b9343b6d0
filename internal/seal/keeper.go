package seal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	aead "github.com/tink-crypto/tink-go/v2/aead/subtle"

	"weiche/internal/failpoint"
	"weiche/internal/fault"
	"weiche/internal/submission"
)

const (
	// maxOpened bounds the day keys kept open: 17 Länder, two months, one
	// process. Others are opened again from their wrapped form.
	maxOpened = 1024
	// maxDataKeys bounds the data keys kept open, 2 KB each: a submission is
	// opened up to four times within seconds (dispatch, delivery).
	maxDataKeys = 4096
	// maxUnknown bounds the ids remembered as unknown, for unknownFor each.
	maxUnknown = 1024
	unknownFor = time.Minute

	dayLayout   = "2006-01-02"
	masterIDLen = 8
	// dayRecordVersion begins a day key's value in the key log.
	dayRecordVersion = 1
)

// KeyLog is the durable, compacted log of day keys. An empty value is a
// tombstone: the key is destroyed.
type KeyLog interface {
	// Append returns once the entry is durable.
	Append(ctx context.Context, key string, value []byte) error
	// Load calls back for everything up to the present end, oldest first.
	Load(ctx context.Context, fn func(key string, value []byte) error) error
}

// Keeper makes and opens data keys. It is safe for concurrent use.
type Keeper struct {
	dir       string
	files     map[submission.Land]string
	log       KeyLog
	reference []byte

	mastersMu sync.Mutex
	masters   map[submission.Land][]master // the first wraps, all open

	// making serialises the making of day keys, one Land and day at a time.
	makingMu sync.Mutex
	making   map[string]*sync.Mutex

	mu      sync.Mutex
	index   map[string]entry  // every day key of the log, wrapped
	seq     uint64            // counts changes of index by this process
	current map[string]string // land/day → id of the key this process made
	opened  *bounded[*aead.AESGCM]
	data    *bounded[*DataKey] // by wrapped bytes; none of a destroyed day
	unknown *bounded[time.Time]

	loading    chan struct{} // held by the one that reads the log
	loadsBegun uint64
	lastLoad   uint64 // number of the last load that succeeded
}

// entry is a day key as the log has it. A nil value means destroyed.
type entry struct {
	value []byte
	seq   uint64
}

type master struct {
	id   []byte // tells keys apart without telling anything of them
	aead *aead.AESGCM
}

// Sensitive marks the type for the log's redaction.
func (*Keeper) Sensitive() {}

// Format prints a placeholder, whatever the verb.
func (*Keeper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[seal.Keeper]") }

// Open readies the keys. A Land's master key is the file that masterKeyFiles
// names (it has to exist), or master-<land>.key in dir, made (mode 0600) when a
// data key of that Land is first asked for. A file holds 32 random bytes in
// base64 a line: the first wraps, further ones are older and only open. All
// replicas need the same keys, so the same dir or the same named files.
func Open(dir string, masterKeyFiles map[submission.Land]string, log KeyLog) (*Keeper, error) {
	k := &Keeper{
		dir: dir, files: map[submission.Land]string{}, log: log,
		masters: map[submission.Land][]master{}, making: map[string]*sync.Mutex{},
		index: map[string]entry{}, current: map[string]string{},
		opened: newBounded[*aead.AESGCM](maxOpened), data: newBounded[*DataKey](maxDataKeys), unknown: newBounded[time.Time](maxUnknown),
		loading: make(chan struct{}, 1),
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("the directory of the keys cannot be made: %w", err)
	}
	for land, file := range masterKeyFiles {
		if file == "" {
			continue
		}
		k.files[land] = file
	}
	present, err := filepath.Glob(filepath.Join(dir, "master-[0-9][0-9].key"))
	if err != nil {
		return nil, err
	}
	// What can be wrong with a key file shows now, not at the first submission.
	lands := map[submission.Land]bool{}
	for land := range k.files {
		lands[land] = true
	}
	for _, file := range present {
		lands[submission.Land(filepath.Base(file)[len("master-"):][:2])] = true
	}
	for land := range lands {
		if _, err := k.readMasters(land); err != nil {
			return nil, fmt.Errorf("the master key of Land %s cannot be opened: %w", land, err)
		}
	}
	path := filepath.Join(dir, "reference.key")
	content, err := readOrMakeKeyFile(path, freshSecretFile)
	if err != nil {
		return nil, fmt.Errorf("the key of the reference hashes cannot be opened: %w", err)
	}
	secrets, err := parseSecrets(path, content)
	if err != nil {
		return nil, err
	}
	k.reference = secrets[0]
	return k, nil
}

// HashReference returns the keyed hash (HMAC-SHA256, hex) under which a
// portal's own reference is searched for, so that it need not be stored.
func (k *Keeper) HashReference(portal, reference string) string {
	mac := hmac.New(sha256.New, k.reference)
	mac.Write(bind("weiche/reference/v1", portal, reference))
	return hex.EncodeToString(mac.Sum(nil))
}

// NewDataKey makes the key of one submission, wrapped by the key of its Land
// and of the UTC day of at. A day key made for it is durable in the key log
// before it is used. Errors are faults: those of the log, and Retryable with
// misconfigured or storage where the Land's master key is not at hand.
func (k *Keeper) NewDataKey(ctx context.Context, land submission.Land, at time.Time) (*DataKey, error) {
	for {
		id, day, err := k.dayKey(ctx, land, at.UTC().Format(dayLayout))
		if err != nil {
			return nil, err
		}
		secret := newSecret()
		wrapped, err := day.Encrypt(secret, bind(purposeDataKey, string(land), id))
		if err != nil {
			return nil, err
		}
		key, err := newDataKey(Wrapped{Land: land, DayKey: id, Bytes: wrapped}, secret)
		if err != nil {
			return nil, err
		}
		if k.remember(key) {
			return key, nil
		}
		// The day was destroyed this moment: nothing may be sealed under it.
	}
}

// remember keeps an opened data key; it refuses one whose day was destroyed
// since it was opened.
func (k *Keeper) remember(key *DataKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.index[key.wrapped.DayKey].value == nil {
		return false
	}
	k.data.put(string(key.wrapped.Bytes), key)
	return true
}

// known returns a data key that this process has made or opened before.
func (k *Keeper) known(w Wrapped) (*DataKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.data.get(string(w.Bytes))
	// What else the record says of its key is bound to it.
	if !ok || key.wrapped.Land != w.Land || key.wrapped.DayKey != w.DayKey {
		return nil, false
	}
	return key, true
}

// OpenDataKey opens a record's key. A day key not seen before is looked for in
// the log once. Destroyed, unknown or forged is a fault, Permanent and
// undecryptable; a master key that is not at hand is Retryable and
// misconfigured, because then the records are well and the set-up is not.
func (k *Keeper) OpenDataKey(ctx context.Context, w Wrapped) (*DataKey, error) {
	if key, ok := k.known(w); ok {
		return key, nil
	}
	if land, _, ok := splitID(w.DayKey); !ok || land != w.Land {
		return nil, undecryptable("the record names no day key of its Land")
	}
	day, err := k.openDayKey(ctx, w.DayKey)
	if err != nil {
		return nil, err
	}
	secret, err := day.Decrypt(w.Bytes, bind(purposeDataKey, string(w.Land), w.DayKey))
	if err != nil || len(secret) != keyBytes {
		return nil, undecryptable("the record's key does not open under its day key: damaged, forged, or of another place")
	}
	w.Bytes = bytes.Clone(w.Bytes) // they are a piece of the record, which need not stay
	key, err := newDataKey(w, secret)
	if err != nil {
		return nil, err
	}
	if !k.remember(key) {
		return nil, undecryptable("the record's day key is destroyed or was never made")
	}
	return key, nil
}

// Refresh reads the key log anew, so that keys which others destroyed are
// destroyed here too. Call it from time to time.
func (k *Keeper) Refresh(ctx context.Context) error { return k.load(ctx) }

// Destroy ends all keys of a Land and day (yyyy-mm-dd, UTC) for ever: tombstones
// are durable in the log when it returns. Records of that day cannot be opened
// any more; a running process that knows a key learns of it by Refresh. It
// returns how many keys it destroyed.
func (k *Keeper) Destroy(ctx context.Context, land submission.Land, day string) (int, error) {
	if err := k.load(ctx); err != nil {
		return 0, err
	}
	// While it destroys, this process must make no key of the day.
	defer k.lockMaking(string(land) + "/" + day)()
	k.mu.Lock()
	var ids []string
	for id, e := range k.index {
		if l, d, ok := splitID(id); ok && l == land && d == day && e.value != nil {
			ids = append(ids, id)
		}
	}
	k.mu.Unlock()
	for i, id := range ids {
		if err := k.log.Append(ctx, id, nil); err != nil {
			return i, logFault(err)
		}
		k.mu.Lock()
		k.set(id, nil)
		k.mu.Unlock()
	}
	return len(ids), nil
}

// dayKey returns this process's key of a Land and day, making it at first need.
func (k *Keeper) dayKey(ctx context.Context, land submission.Land, day string) (string, *aead.AESGCM, error) {
	scope := string(land) + "/" + day
	if id, a, ok := k.currentKey(scope); ok {
		return id, a, nil
	}
	defer k.lockMaking(scope)()
	if id, a, ok := k.currentKey(scope); ok {
		return id, a, nil
	}
	m, err := k.wrappingMaster(ctx, land)
	if err != nil {
		return "", nil, err
	}
	id := scope + "/" + hex.EncodeToString(newSecret()[:16])
	secret := newSecret()
	a, err := aead.NewAESGCM(secret)
	if err != nil {
		return "", nil, err
	}
	sealed, err := m.aead.Encrypt(secret, bind(purposeDayKey, string(land), id))
	if err != nil {
		return "", nil, err
	}
	value := append(append([]byte{dayRecordVersion}, m.id...), sealed...)
	if err := k.log.Append(ctx, id, value); err != nil {
		return "", nil, logFault(err)
	}
	failpoint.Hit("seal.key-appended")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set(id, value)
	k.opened.put(id, a)
	if len(k.current) > maxOpened/4 {
		clear(k.current) // days long past; a key made anew does no harm
	}
	k.current[scope] = id
	return id, a, nil
}

func (k *Keeper) currentKey(scope string) (string, *aead.AESGCM, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, ok := k.current[scope]
	if !ok || k.index[id].value == nil {
		return "", nil, false
	}
	a, ok := k.opened.get(id)
	return id, a, ok
}

func (k *Keeper) lockMaking(scope string) (unlock func()) {
	k.makingMu.Lock()
	mu := k.making[scope]
	if mu == nil {
		if len(k.making) > maxOpened {
			clear(k.making) // at worst two keys are made for one day
		}
		mu = new(sync.Mutex)
		k.making[scope] = mu
	}
	k.makingMu.Unlock()
	mu.Lock()
	return mu.Unlock
}

// openDayKey returns an opened day key, from memory or from the log.
func (k *Keeper) openDayKey(ctx context.Context, id string) (*aead.AESGCM, error) {
	k.mu.Lock()
	a, isOpen := k.opened.get(id)
	e, known := k.index[id]
	missed, isUnknown := k.unknown.get(id)
	k.mu.Unlock()
	if isOpen {
		return a, nil
	}
	if !known && isUnknown && time.Since(missed) < unknownFor {
		return nil, undecryptable("the record's day key is destroyed or was never made")
	}
	if !known {
		if err := k.load(ctx); err != nil {
			return nil, err
		}
		k.mu.Lock()
		if e, known = k.index[id]; !known {
			k.unknown.put(id, time.Now())
		}
		k.mu.Unlock()
	}
	if !known || e.value == nil {
		return nil, undecryptable("the record's day key is destroyed or was never made")
	}
	land, _, _ := splitID(id)
	if len(e.value) < 1+masterIDLen || e.value[0] != dayRecordVersion {
		return nil, undecryptable("the record's day key is malformed in the key log")
	}
	m, err := k.masterByID(land, e.value[1:1+masterIDLen])
	if err != nil {
		return nil, err
	}
	secret, err := m.aead.Decrypt(e.value[1+masterIDLen:], bind(purposeDayKey, string(land), id))
	if err != nil {
		return nil, undecryptable("the record's day key does not open under its Land's master key: damaged or forged")
	}
	if a, err = aead.NewAESGCM(secret); err != nil {
		return nil, undecryptable("the record's day key is malformed in the key log")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.index[id].value == nil {
		return nil, undecryptable("the record's day key is destroyed or was never made")
	}
	k.opened.put(id, a)
	return a, nil
}

// set notes a day key of the log; nil destroys it. k.mu is held.
func (k *Keeper) set(id string, value []byte) {
	k.seq++
	k.index[id] = entry{value: value, seq: k.seq}
	k.unknown.drop(id)
	if value == nil {
		k.forget(id)
	}
}

// forget drops a day key and every data key that was opened with it. k.mu is
// held.
func (k *Keeper) forget(id string) {
	k.opened.drop(id)
	k.data.dropAll(func(d *DataKey) bool { return d.wrapped.DayKey == id })
}

// load replaces the index by what the log holds. Concurrent callers share a
// read, but only one that began after they asked: an older one may have passed
// the end before their key was there.
func (k *Keeper) load(ctx context.Context) error {
	k.mu.Lock()
	asked := k.loadsBegun
	k.mu.Unlock()
	select {
	case k.loading <- struct{}{}:
		defer func() { <-k.loading }()
	case <-ctx.Done():
		return fault.Of(ctx.Err())
	}
	k.mu.Lock()
	if k.lastLoad > asked {
		k.mu.Unlock()
		return nil
	}
	k.loadsBegun++
	began := k.seq
	k.mu.Unlock()

	fresh := map[string][]byte{}
	err := k.log.Load(ctx, func(key string, value []byte) error {
		if _, _, ok := splitID(key); !ok {
			return nil // not ours to judge
		}
		fresh[key] = nil
		if len(value) > 0 {
			fresh[key] = bytes.Clone(value)
		}
		return nil
	})
	if err != nil {
		return logFault(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.adopt(fresh, began)
	k.lastLoad = k.loadsBegun
	return nil
}

// adopt takes over what a load found. Entries this process appended while it
// ran are newer than what it saw. k.mu is held.
func (k *Keeper) adopt(fresh map[string][]byte, began uint64) {
	for id, e := range k.index {
		if _, ok := fresh[id]; !ok && e.seq <= began {
			delete(k.index, id) // compacted away: destroyed long ago
			k.forget(id)
		}
	}
	for id, value := range fresh {
		if e, ok := k.index[id]; ok && (e.seq > began || bytes.Equal(e.value, value)) {
			continue
		}
		_, changed := k.index[id]
		k.index[id] = entry{value: value, seq: began}
		k.unknown.drop(id)
		if changed {
			k.forget(id)
		}
	}
}

func (k *Keeper) masterFile(land submission.Land) (file string, configured bool) {
	if file, ok := k.files[land]; ok {
		return file, true
	}
	return filepath.Join(k.dir, "master-"+string(land)+".key"), false
}

// readMasters reads a Land's master keys from their file.
func (k *Keeper) readMasters(land submission.Land) ([]master, error) {
	file, _ := k.masterFile(land)
	content, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	return k.adoptMasters(land, file, content)
}

func (k *Keeper) adoptMasters(land submission.Land, file string, content []byte) ([]master, error) {
	secrets, err := parseSecrets(file, content)
	if err != nil {
		return nil, err
	}
	var ms []master
	for _, s := range secrets {
		a, err := aead.NewAESGCM(s)
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, s)
		mac.Write([]byte("weiche/master-key-id/v1"))
		ms = append(ms, master{id: mac.Sum(nil)[:masterIDLen], aead: a})
	}
	k.mastersMu.Lock()
	defer k.mastersMu.Unlock()
	k.masters[land] = ms
	return ms, nil
}

func (k *Keeper) knownMasters(land submission.Land) []master {
	k.mastersMu.Lock()
	defer k.mastersMu.Unlock()
	return k.masters[land]
}

// wrappingMaster returns the master key that wraps a Land's new day keys,
// making one in dir only where the Land never had any.
func (k *Keeper) wrappingMaster(ctx context.Context, land submission.Land) (master, error) {
	if ms := k.knownMasters(land); len(ms) > 0 {
		return ms[0], nil
	}
	if land != submission.LandNone {
		if _, err := submission.ParseLand(string(land)); err != nil {
			return master{}, fault.Wrap(err, fault.Permanent, fault.ReasonMalformed, "a data key is asked for something that is not a Land")
		}
	}
	file, configured := k.masterFile(land)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && !configured {
		// Its day keys would be lost, or it is another replica's: making one
		// here would turn what others accepted unreadable.
		if err := k.load(ctx); err != nil {
			return master{}, err
		}
		if k.hasDayKeys(land) {
			// Another replica may have made the file, then a day key, since the
			// first look; day keys are only written when the file is there.
			if _, err := os.Stat(file); err == nil {
				return k.firstMaster(land)
			}
			return master{}, misconfigured(land, "%s is missing, but the key log has day keys of this Land: bring the file back, or share it between all replicas", filepath.Base(file))
		}
		content, err := readOrMakeKeyFile(file, freshSecretFile)
		if err != nil {
			return master{}, fault.Wrap(err, fault.Retryable, fault.ReasonStorage, "the master key of Land %s cannot be made in the keys' directory", land)
		}
		failpoint.Hit("seal.master-made")
		ms, err := k.adoptMasters(land, file, content)
		if err != nil {
			return master{}, misconfigured(land, "its file is malformed")
		}
		return ms[0], nil
	}
	return k.firstMaster(land)
}

func (k *Keeper) firstMaster(land submission.Land) (master, error) {
	ms, err := k.readMasters(land)
	if err != nil {
		return master{}, masterFault(land, err)
	}
	return ms[0], nil
}

func (k *Keeper) hasDayKeys(land submission.Land) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.index {
		if l, _, ok := splitID(id); ok && l == land && e.value != nil {
			return true
		}
	}
	return false
}

// masterByID returns the master key that wrapped a day key. The file is read
// again where the key is not known: it may have been added since.
func (k *Keeper) masterByID(land submission.Land, id []byte) (master, error) {
	find := func(ms []master) (master, bool) {
		for _, m := range ms {
			if bytes.Equal(m.id, id) {
				return m, true
			}
		}
		return master{}, false
	}
	if m, ok := find(k.knownMasters(land)); ok {
		return m, nil
	}
	ms, err := k.readMasters(land)
	if err != nil {
		return master{}, masterFault(land, err)
	}
	if m, ok := find(ms); ok {
		return m, nil
	}
	return master{}, misconfigured(land, "a day key was wrapped by another master key (%s): all replicas need the same file, and an older key stays in it on a line of its own", hex.EncodeToString(id))
}

// splitID takes a day key's id apart.
func splitID(id string) (land submission.Land, day string, ok bool) {
	p := strings.Split(id, "/")
	if len(id) > maxDayKeyBytes || len(p) != 3 || len(p[0]) != 2 || p[2] == "" {
		return "", "", false
	}
	if _, err := time.Parse(dayLayout, p[1]); err != nil {
		return "", "", false
	}
	return submission.Land(p[0]), p[1], true
}

func undecryptable(detail string) error {
	return fault.New(fault.Permanent, fault.ReasonUndecryptable, detail)
}

func misconfigured(land submission.Land, detail string, args ...any) error {
	return fault.New(fault.Retryable, fault.ReasonMisconfigured, "the master key of Land "+string(land)+": "+detail, args...)
}

func masterFault(land submission.Land, err error) error {
	return fault.Wrap(err, fault.Retryable, fault.ReasonMisconfigured, "the master key of Land %s cannot be read: %s", land, err)
}

// logFault keeps the log's own fault; an unclassed one is retryable.
func logFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Of(err)
	}
	return fault.Wrap(err, fault.Retryable, fault.ReasonBrokerUnavailable, "the log of day keys does not answer")
}
