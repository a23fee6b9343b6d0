package transform

import (
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// domain is a set of texts that an expression may come to.
type domain struct {
	kind   domainKind
	values []string // of domainFinite
	words  words    // of domainWords and domainDate
	number number   // of domainNumber
	// loose: there may be fewer texts than it says, so that one of them that is
	// refused proves nothing.
	loose bool
	why   string // of domainUnknown
	text  string // where it comes from, for an author
}

type domainKind uint8

const (
	domainUnknown  domainKind = iota
	domainFinite              // one of values
	domainWords               // texts
	domainNumber              // decimal numbers
	domainDate                // 2026-11-22
	domainDateTime            // 2026-11-22T10:15:30.123+01:00
	domainTrusted             // the configuration's: checked with it
)

// number is a range of decimal numbers. Bounds are nil where there is none.
type number struct {
	lo, hi, step *big.Rat
	above, below bool
	integer      bool
	digits       int  // behind the point, -1: as many as there are
	written      bool // as the form writes it: 1.0 for 1
}

func unknownOf(why string) []domain { return []domain{{kind: domainUnknown, why: why}} }
func finite(values ...string) []domain {
	return []domain{{kind: domainFinite, values: values}}
}

func wordsOf(patterns ...string) []domain {
	d := domain{kind: domainWords, words: words{max: -1}}
	for _, p := range patterns {
		d.addPattern(p)
	}
	return []domain{d}
}

func (d *domain) addPattern(s string) {
	p, ok := newPattern(s)
	if !ok {
		d.loose = true
		return
	}
	d.words.patterns = append(d.words.patterns, p)
}

const uuidPattern = `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`

// contextDomains are the router's own values (docs/reference/mapping-language.md,
// Variables).
func contextDomains(p *place) ([]domain, bool) {
	switch p.key {
	case "message.id", "submission.id", "submission.caseId":
		return wordsOf(uuidPattern), true
	case "message.createdAt", "submission.acceptedAt":
		return []domain{{kind: domainDateTime}}, true
	case "submission.service":
		return wordsOf(`^99[0-9]{12}$`), true
	case "submission.serviceURN":
		return wordsOf(`^urn:de:fim:leika:leistung:99[0-9]{12}$`), true
	case "submission.region":
		return wordsOf(`^(0[1-9]|1[0-6])(|[0-9]|[0-9]{3}|[0-9]{7}|[0-9]{10})$`), true
	case "submission.land":
		return finite("01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16"), true
	case "submission.test":
		return finite("true", "false"), true
	case "message.type":
		return []domain{{kind: domainTrusted}}, true
	case "submission.applicationDate":
		return []domain{{kind: domainDate, loose: true, words: words{max: -1}, text: p.text}}, true
	case "submission.senderReference":
		return []domain{{kind: domainWords, loose: true, words: words{min: 1, max: 255}, text: p.text}}, true
	case "submission.trustLevel":
		return []domain{{kind: domainFinite, loose: true, text: p.text,
			values: []string{"STORK-QAA-Level-1", "STORK-QAA-Level-2", "STORK-QAA-Level-3", "STORK-QAA-Level-4"}}}, true
	}
	if strings.HasPrefix(p.key, "authority.") || strings.HasPrefix(p.key, "portal.") {
		return []domain{{kind: domainTrusted}}, true
	}
	if p.up == nil || !p.up.attachment {
		return nil, false
	}
	switch p.name {
	case "attachmentId":
		return wordsOf(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`), true
	case "sha512":
		return wordsOf(`^[0-9a-f]{128}$`), true
	case "purpose":
		return finite("form", "attachment", "report", "data"), true
	case "size":
		return []domain{{kind: domainNumber, number: number{lo: new(big.Rat), hi: big.NewRat(2_000_000_000, 1), integer: true, digits: 0}}}, true
	case "filename":
		return []domain{{kind: domainWords, loose: true, words: words{min: 1, max: 255}, text: p.text}}, true
	case "description":
		return []domain{{kind: domainWords, loose: true, words: words{min: 1, max: 1000}, text: p.text}}, true
	case "mimeType":
		d := wordsOf(`^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$`)
		d[0].words.max, d[0].loose = 127, true
		return d, true
	}
	return unknownOf(p.text + " is a file's, not the form's"), true
}

// domains are what a template may come to, where it is not empty.
func (t *template) domains() []domain {
	if len(t.parts) == 1 && t.parts[0].expr != nil {
		n, r := read(t.parts[0].expr)
		return r.domains(n)
	}
	out := finite("")
	for _, p := range t.parts {
		next := finite(p.text)
		if p.expr != nil {
			n, r := read(p.expr)
			next = r.domains(n)
		}
		out = concat(out, next)
	}
	return out
}

// concat is one text behind another: exact for lists of values and for texts of
// one whole pattern.
func concat(a, b []domain) []domain {
	if len(a) != 1 || len(b) != 1 {
		return unknownOf("it is put together from parts")
	}
	x, y := a[0], b[0]
	if x.kind == domainFinite && y.kind == domainFinite && len(x.values)*len(y.values) <= 1000 {
		var out []string
		for _, v := range x.values {
			for _, w := range y.values {
				out = append(out, v+w)
			}
		}
		return finite(out...)
	}
	left, okLeft := x.expression()
	right, okRight := y.expression()
	if !okLeft || !okRight {
		return unknownOf("it is put together from parts")
	}
	return wordsOf("^(?:" + left + ")(?:" + right + ")$")
}

// expression is the domain as one regular expression.
func (d domain) expression() (string, bool) {
	switch {
	case d.kind == domainFinite:
		quoted := make([]string, len(d.values))
		for i, v := range d.values {
			quoted[i] = regexp.QuoteMeta(v)
		}
		return strings.Join(quoted, "|"), true
	case d.kind == domainWords && !d.loose && len(d.words.patterns) == 1 && d.words.max < 0 && d.words.min == 0:
		s, whole := strings.CutPrefix(d.words.patterns[0].source, "^")
		s, end := strings.CutSuffix(s, "$")
		return s, whole && end && !strings.Contains(s, "^") && !strings.HasSuffix(s, `\`)
	case d.kind == domainNumber && d.number.integer && !d.number.written && d.number.lo != nil && d.number.lo.Sign() >= 0:
		return "[0-9]+", false
	}
	return "", false
}

// domains are what an expression may come to, where it is not empty.
func (r *reading) domains(n ast.Node) []domain {
	switch x := n.(type) {
	case *ast.NilNode:
		return nil
	case *ast.StringNode, *ast.IntegerNode, *ast.BoolNode:
		s, _ := constantText(x)
		return finite(s)
	case *ast.ConditionalNode:
		if x1, ok := x.Exp1.(*ast.ConditionalNode); ok && r.truth(x.Cond).isNever() {
			return r.domains(x1)
		}
		return append(r.narrowed(x.Cond, x.Exp1), r.domains(x.Exp2)...)
	case *ast.UnaryNode:
		if x.Operator == "!" || x.Operator == "not" {
			return finite("true", "false")
		}
	case *ast.BinaryNode:
		return r.binaryDomains(x)
	case *ast.CallNode:
		return r.callDomains(x)
	case *ast.BuiltinNode:
		switch x.Name {
		case "any", "all", "none", "one":
			return finite("true", "false")
		case "len", "count":
			return []domain{{kind: domainNumber, number: number{lo: new(big.Rat), integer: true, digits: 0}, loose: true}}
		}
	case *ast.IdentifierNode:
		if s := r.scope.find(x.Value); s != nil && s.def != nil {
			inner, ir := read(s.def)
			return ir.domains(inner)
		}
		if s := r.scope.find(x.Value); s != nil && s.counts() {
			return []domain{{kind: domainNumber, number: number{lo: new(big.Rat), hi: big.NewRat(100_000, 1), integer: true, digits: 0}, loose: true}}
		}
	}
	if p := r.place(n); p != nil {
		return p.domains()
	}
	return unknownOf("nothing is known of " + clip(n.String()))
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// narrowed are the domains of an expression where a condition holds that says
// which pattern it matches.
func (r *reading) narrowed(cond, n ast.Node) []domain {
	out := r.domains(n)
	p := r.place(n)
	if p == nil || len(out) != 1 {
		return out
	}
	var look func(c ast.Node)
	look = func(c ast.Node) {
		b, ok := c.(*ast.BinaryNode)
		if !ok {
			return
		}
		switch b.Operator {
		case "and", "&&":
			look(b.Left)
			look(b.Right)
		case ">":
			bound, isNumber := b.Right.(*ast.IntegerNode)
			if q := r.place(b.Left); isNumber && q != nil && q.key == p.key && out[0].kind == domainNumber {
				d := out[0]
				d.number.lo, d.number.above = big.NewRat(int64(bound.Value), 1), true
				out = []domain{d}
			}
		case "matches":
			pattern, ok := b.Right.(*ast.StringNode)
			if q := r.place(b.Left); ok && q != nil && q.key == p.key && out[0].kind == domainWords {
				d := out[0]
				d.words.patterns = slices.Clone(d.words.patterns)
				d.addPattern(pattern.Value)
				out = []domain{d}
			}
		}
	}
	look(cond)
	return out
}

func (r *reading) binaryDomains(x *ast.BinaryNode) []domain {
	switch x.Operator {
	case "+":
		if r.isText(x.Left) || r.isText(x.Right) {
			return concat(r.domains(x.Left), r.domains(x.Right))
		}
		return r.arithmetic(x)
	case "-", "*":
		return r.arithmetic(x)
	case "/", "%", "**", "^":
		return []domain{{kind: domainNumber, number: number{digits: -1}, loose: true}}
	case "??":
		return append(r.domains(x.Left), r.domains(x.Right)...)
	}
	return finite("true", "false")
}

// arithmetic is exact for a number of the form and a constant.
func (r *reading) arithmetic(x *ast.BinaryNode) []domain {
	whatever := []domain{{kind: domainNumber, number: number{digits: -1}, loose: true}}
	left := r.domains(x.Left)
	c, ok := constantText(x.Right)
	by, isNumber := new(big.Rat).SetString(c)
	if len(left) != 1 || left[0].kind != domainNumber || !ok || !isNumber {
		return whatever
	}
	d := left[0]
	d.number.written = false
	apply := func(v *big.Rat) *big.Rat {
		switch {
		case v == nil:
			return nil
		case x.Operator == "*":
			return new(big.Rat).Mul(v, by)
		case x.Operator == "-":
			return new(big.Rat).Sub(v, by)
		}
		return new(big.Rat).Add(v, by)
	}
	d.number.lo, d.number.hi = apply(d.number.lo), apply(d.number.hi)
	if x.Operator == "*" {
		if by.Sign() <= 0 {
			return whatever
		}
		d.number.step = apply(d.number.step)
	}
	d.number.integer = d.number.integer && by.IsInt()
	d.loose = true // a float's rounding
	return []domain{d}
}

func (r *reading) callDomains(x *ast.CallNode) []domain {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok || len(x.Arguments) == 0 {
		return unknownOf("nothing is known of " + clip(x.String()))
	}
	first := x.Arguments[0]
	switch id.Value {
	case "has":
		return finite("true", "false")
	case "default":
		return append(r.domains(first), r.domains(x.Arguments[1])...)
	case "uuid5":
		return wordsOf(uuidPattern)
	case "text", "number":
		return r.domains(first)
	case "din91379":
		return r.normalised(first)
	case "date":
		return r.dates(first)
	case "datetime":
		return []domain{{kind: domainDateTime}}
	case "decimal":
		return r.decimals(x)
	case "lookup":
		if t := tableIn(x); t != nil {
			return r.looked(t, x)
		}
		var out []domain
		for _, v := range tableValues(x) {
			out = append(out, r.domains(v)...)
		}
		return out
	}
	return unknownOf("nothing is known of " + clip(x.String()))
}

// normalised are the texts of DIN 91379's data type C. None is longer than what it
// is made of.
func (r *reading) normalised(n ast.Node) []domain {
	d := wordsOf(din91379Pattern)[0]
	d.words.min, d.loose = 1, true
	in := r.domains(n)
	if len(in) == 1 && in[0].kind == domainWords {
		from := in[0].words
		d.words.max, d.text = from.max, in[0].text
		d.loose = in[0].loose || from.min > 1 || len(from.patterns) > 0 || len(from.excluded) > 0
	}
	return []domain{d}
}

// dates are days; of a form's field with that format, its own.
func (r *reading) dates(n ast.Node) []domain {
	in := r.domains(n)
	if len(in) == 1 && in[0].kind == domainDate {
		return in
	}
	if len(in) == 1 && in[0].kind == domainDateTime {
		return []domain{{kind: domainDate, words: words{max: -1}, loose: true, text: "a time of the router's"}}
	}
	return []domain{{kind: domainDate, words: words{max: -1}, loose: true}}
}

func (r *reading) decimals(x *ast.CallNode) []domain {
	digits := -1
	if len(x.Arguments) > 1 {
		if n, ok := x.Arguments[1].(*ast.IntegerNode); ok {
			digits = n.Value
		}
	}
	in := r.domains(x.Arguments[0])
	if len(in) != 1 || in[0].kind != domainNumber {
		return []domain{{kind: domainNumber, number: number{digits: digits}, loose: true}}
	}
	d := in[0]
	if digits >= 0 {
		d.number.digits, d.number.written = digits, false
		d.number.integer = d.number.integer || digits == 0
	}
	return []domain{d}
}

// domains are the texts that a place's schema allows.
func (p *place) domains() []domain {
	if out, ok := contextDomains(p); ok {
		return out
	}
	if len(p.nodes) == 0 {
		return unknownOf("the form's schema says nothing of " + p.text)
	}
	if p.loose && len(p.nodes) > 1 {
		var out []domain
		for _, n := range p.nodes {
			one := *p
			one.nodes, one.loose = []*formNode{n}, false
			out = append(out, loosen(one.domains())...)
		}
		return out
	}
	one := *p
	one.loose = false
	if values, ok := constants(&one); ok {
		return []domain{{kind: domainFinite, values: slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" }), text: p.text}}
	}
	switch formShape(p.nodes).kind {
	case kindText:
		return []domain{one.texts()}
	case kindNumber:
		return []domain{one.numbers()}
	case kindBoolean:
		return []domain{{kind: domainFinite, values: []string{"true", "false"}, text: p.text}}
	}
	return unknownOf("the form's schema does not say what " + p.text + " is")
}

func loosen(in []domain) []domain {
	for i := range in {
		in[i].loose = true
	}
	return in
}

func (p *place) texts() domain {
	d := domain{kind: domainWords, words: words{min: 1, max: -1}, text: p.text}
	for _, n := range conjuncts(p.nodes) {
		d.words.min = max(d.words.min, n.minLength)
		if n.maxLength >= 0 && (d.words.max < 0 || n.maxLength < d.words.max) {
			d.words.max = n.maxLength
		}
		for _, s := range n.patterns {
			d.addPattern(s)
		}
		switch n.format {
		case "":
		case "date":
			d.kind = domainDate
		case "date-time":
			d.kind = domainUnknown
			d.why = "a date-time of the form may have any zone; write datetime(" + p.text + ")"
		case "uuid":
			d.addPattern(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
		default:
			d.loose = true
		}
		if n.not != nil && !d.exclude(n.not) || len(n.anyOf) > 0 || len(n.oneOf) > 0 || n.on != nil {
			d.loose = true
		}
	}
	return d
}

// exclude takes out the texts of a schema that is nothing but a pattern.
func (d *domain) exclude(n *formNode) bool {
	if len(n.patterns) != 1 || len(n.parts) > 0 || n.ref != nil || n.minLength >= 0 || n.maxLength >= 0 || len(n.choices) > 0 {
		return false
	}
	p, ok := newPattern(n.patterns[0])
	if ok {
		d.words.excluded = append(d.words.excluded, p)
	}
	return ok
}

func (p *place) numbers() domain {
	d := domain{kind: domainNumber, number: number{digits: -1, written: true}, text: p.text}
	for _, n := range conjuncts(p.nodes) {
		if slices.Contains(n.types, "integer") && !slices.Contains(n.types, "number") {
			d.number.integer = true
		}
		if n.minimum != nil && (d.number.lo == nil || n.minimum.Cmp(d.number.lo) > 0) {
			d.number.lo, d.number.above = n.minimum, n.above
		}
		if n.maximum != nil && (d.number.hi == nil || n.maximum.Cmp(d.number.hi) < 0) {
			d.number.hi, d.number.below = n.maximum, n.below
		}
		if n.multiple != nil {
			d.number.step = n.multiple
		}
		if len(n.anyOf) > 0 || len(n.oneOf) > 0 || n.not != nil || n.on != nil {
			d.loose = true
		}
	}
	return d
}
