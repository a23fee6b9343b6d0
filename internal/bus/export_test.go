package bus

// Settings returns what a topic is created with.
func Settings(cfg Config, t Topic) map[string]string {
	out := map[string]string{}
	for k, v := range t.entries(cfg.withDefaults()) {
		out[k] = *v
	}
	return out
}

// Reads is how often Fetch has asked a broker.
func (b *Bus) Reads() int {
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	return b.shelf.reads
}
