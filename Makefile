# One command brings Fleet up: make run. `make help` lists the others.
PYTHON ?= python3
VENV := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run stop migrate seed reset test soak check fix bench diagrams

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv (needs python3 3.11 to 3.13, nothing else)
	@$(PYTHON) tools/bootstrap.py

setup-dev:
	@$(PYTHON) tools/bootstrap.py --dev

run: setup ## start Fleet and follow its logs; Ctrl-C stops it
	@$(VENV) -m fleet.platform up

stop: setup ## stop the Fleet that runs from var/
	@$(VENV) -m fleet.platform stop

migrate: setup ## migrate the database of the running Fleet (make run does it by itself)
	@$(VENV) manage.py migrate $(ARGS)

seed: setup ## load the sample fleet of the running Fleet again (make run does it once)
	@$(VENV) manage.py seed_fleet $(ARGS)

reset: setup ## remove every bot, conversation and key in var/, after asking
	@$(VENV) -m fleet.platform reset

test: setup-dev ## run the tests in several processes; ARGS="-k lanes" chooses, ARGS="-n 0" runs them in one
	@$(VENV) tools/emulators.py
	@$(VENV) -m pytest -n auto $(ARGS)

soak: setup-dev ## kill real processes at 50 random points of paid turns and count what must never happen (about five minutes)
	@$(VENV) tools/emulators.py
	@$(VENV) manage.py chaos execution --rounds 50 $(ARGS)

check: setup-dev ## lint, types, ladder, migrations, deployment, diagrams, templates, secrets
	@$(VENV) tools/check.py $(ARGS)

fix: setup-dev ## let the formatters correct what they can
	@$(VENV) -m ruff check --fix --quiet . || true
	@$(VENV) -m ruff format --quiet .
	@git ls-files -z -- '*.html' | xargs -0 -r .venv/bin/djade || true

bench: setup-dev ## measure, print a table, write bench/results/
	@$(VENV) tools/emulators.py
	@$(VENV) -m bench $(ARGS)

diagrams: setup-dev ## draw docs/states/ from the transition tables
	@$(VENV) manage.py state_diagrams
