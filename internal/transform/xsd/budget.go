package xsd

// Bounds of what a schema may ask of the compiler, whatever it holds: official
// standards take a twentieth of each at most.
const (
	maxEffort  = 2_000_000 // steps
	maxNodes   = 1_000_000 // elements of all schema documents
	maxNesting = 200       // types derived from each other, heads of substitution groups
	maxWeight  = 10_000    // member types of unions and of their members
)

// spend counts steps of work; an error says that the schema takes too many.
func (c *compiler) spend(n *node, steps int) error {
	if c.effort += steps; c.effort > maxEffort {
		return n.fail("the schema is too large: it takes too many steps to compile")
	}
	return nil
}

// enter counts declarations that are built for the sake of each other.
func (c *compiler) enter(n *node) error {
	if c.nesting++; c.nesting > maxNesting {
		return n.fail("declarations depend on each other too deeply")
	}
	return nil
}

func (c *compiler) leave() { c.nesting-- }

// size counts an element and those in it.
func (n *node) size() int {
	size := 1
	for _, k := range n.kids {
		size += k.size()
	}
	return size
}

// patternBudget bounds the patterns of one schema together.
type patternBudget struct {
	instructions int // of programs; beyond them a pattern is refused
	work, table  int // of automata; beyond them patterns are simulated
}

func newPatternBudget() *patternBudget {
	return &patternBudget{instructions: 1_000_000, work: 200_000_000, table: 32 << 20}
}
