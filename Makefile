# What can be done with this repository: each target calls a script or cargo, and says in its line what for.
.DEFAULT_GOAL := help
.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## installs the plain tools that the other targets need (Debian; starts no daemon)
	cluster/deps

.PHONY: cluster-up
cluster-up: ## starts a Kubernetes of three nodes on this machine (root; the first time builds it, 5 minutes)
	cluster/up

.PHONY: cluster-down
cluster-down: ## removes it, with all that belongs to it
	cluster/down

.PHONY: demo
demo: deps ## shows a Service that answers on every node, on a cluster made for it (root)
	scripts/demo

.PHONY: demo-down
demo-down: ## removes the demo and its cluster
	scripts/demo-down

.PHONY: test
test: deps ## runs every test: units, data plane with real packets, end to end on a real cluster (root)
	scripts/test

.PHONY: e2e
e2e: deps ## runs the tests against a real cluster only
	scripts/e2e

.PHONY: bench-operator
bench-operator: deps ## measures the operator's latency and memory on the cluster (10 minutes)
	scripts/bench-operator

.PHONY: bench
bench: deps ## measures the data plane against its peers, in private network namespaces (root, 20 minutes)
	scripts/bench

.PHONY: lint
lint: deps lint-scripts lint-deploy ## checks format, clippy, licences, scripts, and what is deployed
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/licences

.PHONY: images
images: deps ## builds the container images into target/images
	images/build

.PHONY: lint-scripts
lint-scripts: deps ## checks scripts with shellcheck, the cluster's Go program with gofmt and vet
	cluster/lint

.PHONY: lint-deploy
lint-deploy: deps ## checks chart, kustomize, alerts, workflows and documents (the first time builds their tools, 3 minutes)
	charts/check
	scripts/check-docs
