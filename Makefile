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

.PHONY: images
images: deps ## builds the container images into target/images
	images/build

.PHONY: lint-scripts
lint-scripts: deps ## checks scripts with shellcheck, the cluster's Go program with gofmt and vet
	cluster/lint
