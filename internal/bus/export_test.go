package bus

// WithLanes sets how many producers stand side by side.
func (c Config) WithLanes(n int) Config {
	c.lanes = n
	return c
}
