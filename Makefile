# The development targets of this repository. Each target calls a script or cargo. `make help` prints the text after ##.
.DEFAULT_GOAL := help
.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## installs the packages that the other targets need (Debian; starts no daemon)
	cluster/deps

.PHONY: cluster-up
cluster-up: ## starts a Kubernetes cluster of three nodes on this machine (root; the first run builds it, 5 minutes)
	cluster/up

.PHONY: cluster-down
cluster-down: ## removes the cluster
	cluster/down

.PHONY: demo
demo: deps ## starts a cluster with the operator and a Service that answers on every node (root)
	scripts/demo

.PHONY: demo-down
demo-down: ## removes the demo and its cluster
	scripts/demo-down

.PHONY: test
test: deps ## runs all tests: unit tests, packets through the data plane, a real cluster (root)
	scripts/test

.PHONY: e2e
e2e: deps ## runs only the end-to-end tests, on a real cluster
	scripts/e2e

.PHONY: conformance
conformance: deps ## runs Kubernetes' own specs for Services on the cluster (root, more than an hour)
	scripts/deploy
	scripts/conformance

.PHONY: bench-operator
bench-operator: deps ## measures the operator's latency and memory on the cluster (10 minutes)
	scripts/bench-operator

.PHONY: bench
bench: deps ## compares the data plane and the node agent with other proxies, in private network namespaces (root, 35 minutes)
	scripts/bench

.PHONY: scale
scale: deps ## measures the operator and the agents with 1,000 Services on 100 nodes without machines (root, 10 minutes)
	scripts/scale

.PHONY: soak
soak: deps ## runs changes and faults on 200 Services for 30 minutes (root)
	scripts/soak

.PHONY: lint
lint: deps lint-scripts lint-source lint-prose lint-deploy ## checks format, clippy, licences, scripts, prose, chart and documents
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/licences

.PHONY: images
images: deps ## builds the container images into target/images
	images/build

.PHONY: lint-scripts
lint-scripts: deps ## checks the scripts with shellcheck, and the cluster's Go programs with gofmt and go vet
	cluster/lint

.PHONY: lint-source
lint-source: ## checks that there are no circular imports and no long files
	cargo test --locked --quiet --package source-check
	cargo run --locked --quiet --package source-check

.PHONY: lint-prose
lint-prose: deps ## checks the English of documents, comments and messages
	scripts/lint-prose

.PHONY: lint-deploy
lint-deploy: deps ## checks chart, kustomize, alerts, workflows and documents (the first run builds the tools, 5 minutes)
	charts/check
	scripts/check-docs
