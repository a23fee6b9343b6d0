package seal

import "container/list"

// bounded is a map that forgets what was used least recently. It is not safe
// for concurrent use.
type bounded[V any] struct {
	limit int
	order *list.List // of pair[V], most recent first
	byKey map[string]*list.Element
}

type pair[V any] struct {
	key   string
	value V
}

func newBounded[V any](limit int) *bounded[V] {
	return &bounded[V]{limit: limit, order: list.New(), byKey: map[string]*list.Element{}}
}

func (b *bounded[V]) get(key string) (v V, ok bool) {
	e, ok := b.byKey[key]
	if !ok {
		return v, false
	}
	b.order.MoveToFront(e)
	return e.Value.(pair[V]).value, true
}

func (b *bounded[V]) put(key string, v V) {
	if e, ok := b.byKey[key]; ok {
		e.Value = pair[V]{key, v}
		b.order.MoveToFront(e)
		return
	}
	b.byKey[key] = b.order.PushFront(pair[V]{key, v})
	if b.order.Len() > b.limit {
		b.drop(b.order.Back().Value.(pair[V]).key)
	}
}

func (b *bounded[V]) drop(key string) {
	if e, ok := b.byKey[key]; ok {
		b.order.Remove(e)
		delete(b.byKey, key)
	}
}

// dropAll forgets every value that is unwanted. It looks at all of them.
func (b *bounded[V]) dropAll(unwanted func(V) bool) {
	for _, e := range b.byKey {
		if p := e.Value.(pair[V]); unwanted(p.value) {
			b.drop(p.key)
		}
	}
}
