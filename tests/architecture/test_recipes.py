"""What the recipe for providers names is there, and the suite it sends one to runs for every provider."""

from __future__ import annotations

import re

from execution import ports
from tests.architecture.source import ROOT

RECIPE = (ROOT / "docs/recipes/add-a-provider.md").read_text()
PROMISES = (ports.Run, ports.ExecutionProvider)


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:execution|tests|fleet|budgets)/[\w/.]+|pyproject\.toml|uv\.lock)`", RECIPE))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_it_names_every_promise_of_the_port() -> None:
    promised = {name for port in PROMISES for name in vars(port) if not name.startswith("_")}
    assert {name for name in promised if f"`{name}" not in RECIPE} == set()


def test_the_capabilities_it_names_exist() -> None:
    known = ports.Capabilities.__dataclass_fields__
    named = re.search(r"`capabilities`: data such as (.*?);", RECIPE, re.DOTALL)
    assert named and all(name in known for name in re.findall(r"`(\w+)`", named[1]))


def test_every_provider_of_ours_has_a_readme_and_stands_alone() -> None:
    folders = {path.parent.name for path in (ROOT / "execution/providers").glob("*/provider.py")}
    independent = re.search(
        r'name = "Providers do not know each other".*?modules = \[(.*?)\]',
        (ROOT / "pyproject.toml").read_text(),
        re.DOTALL,
    )
    assert folders >= {"acp", "claude", "codex", "mock"}
    assert independent and set(re.findall(r"providers\.(\w+)", independent[1])) == folders
    assert {name for name in folders if not (ROOT / "execution/providers" / name / "README.md").exists()} == set()
