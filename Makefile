# Weiche. `make run` and `make test` do everything, their own set-up included.
GO        ?= go
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -X weiche/internal/telemetry.version=$(VERSION)
LINT      := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONFIG    ?= config
DATA      ?= data

# What runs goroutines of its own, or is called from many: under the race
# detector too.
CONCURRENT := $(addprefix ./internal/,adapters/... blob bus/... console delivery dispatch intake/... jobs receiver seal status telemetry)

.DEFAULT_GOAL := help
.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## bin/router
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/router ./cmd/router

.PHONY: run
run: build ## The router on its embedded broker, with example Länder, on 127.0.0.1:8080 and :8081
	@exec bin/router serve --config $(CONFIG) --data $(DATA)

.PHONY: test
test: deps build lint ## Everything that has to pass
	$(GO) vet ./...
	$(GO) test -timeout 25m ./...
	$(GO) test -tags failpoints ./internal/failpoint
	$(GO) test -race -short -timeout 15m $(CONCURRENT)

.PHONY: lint
lint: ## Import rules and the rest of .golangci.yml
	$(GO) run $(LINT) run ./...

.PHONY: soak
soak: deps build ## The long forms of the tests
	WEICHE_SOAK=1 $(GO) test -count=1 -timeout 4h -v ./test/... ./internal/catalog/...
	WEICHE_SOAK=1 $(GO) test -count=1 -timeout 1h -v -run GeneratedForms ./internal/app
	WEICHE_SOAK=1 $(GO) test -count=1 -timeout 1h -v -run 'Lane' ./internal/delivery
	WEICHE_SOAK=1 $(GO) test -race -count=1 -timeout 1h -run Universal ./internal/bus/
	WEICHE_SOAK=1 $(GO) test -count=1 -timeout 1h -v -run Judges ./internal/transform/xsd

# Flags go in ARGS, such as ARGS="-rounds 1 -only raw-sarama,bus-trivial".
.PHONY: bench
bench: deps ## The bus and the pipeline on Apache Kafka, against others; docs/benchmarks.md
	$(GO) run ./test/bench $(ARGS)
	$(GO) run ./test/bench -isolation -rounds 3

.PHONY: bench-isolation
bench-isolation: deps ## What a faulty destination costs the others
	$(GO) run ./test/bench -isolation $(ARGS)

.PHONY: bench-growth
bench-growth: deps ## How cost grows with records, partitions, destinations and sizes; an hour or more
	$(GO) run ./test/bench -growth $(ARGS)

.PHONY: bench-micro
bench-micro: ## The parts, each alone
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

.PHONY: docs
docs: ## Write the generated references anew
	WEICHE_UPDATE_DOCS=1 $(GO) test -count=1 -run 'Reference' ./...

.PHONY: fuzz
fuzz: ## A minute for each fuzz target
	@for p in $$($(GO) list ./internal/...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 1m $$p || exit 1; \
	  done; \
	done

# What the tests need beyond Go: installed on Debian as root, named elsewhere.
.PHONY: deps
deps:
	@sh test/deps.sh

.PHONY: clean
clean: ## Remove what was built; keeps data
	rm -rf bin
