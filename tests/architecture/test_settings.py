"""What is read from the environment, docs/settings.md and .env.example name the same variables, with the same defaults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from fleet.platform import bounds
from identities.actions.declared import _LIMITS as LIMITS
from identities.validators import BOUNDS
from tests.architecture.source import ROOT

READERS = [*(ROOT / "fleet/settings").glob("*.py"), *(ROOT / "fleet/platform").glob("*.py")]
# In the table, and not offered for copying: the one shows Fleet's code to everybody, the other is not used any more.
NOT_TO_BE_COPIED = {"FLEET_DEBUG", "FLEET_CLAUDE_LOGIN_DIR", "DJANGO_SETTINGS_MODULE"}
BY_BOT = "FLEET_TELEGRAM_<BOT>_TOKEN"
USUAL = {
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
}  # read as every program reads them
_ROW = re.compile(r"^\| `([A-Z][A-Z_<>]+)` \|\s*(.*?)\s*\| .+ \|$", re.MULTILINE)
_LIMIT = re.compile(r"^\| `([a-z_]+)` \| (\d+) \| (\d+) \| (.+) \|$", re.MULTILINE)
_EXAMPLE = re.compile(r"^#?([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)
_COMPOSED = re.compile(r"\$\{([A-Z_]+):")


def reads() -> Iterator[tuple[str, object]]:
    """Yield every variable that settings and the launcher read, with its default; Ellipsis where that is computed."""
    for path in READERS:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            name = call.args[0]
            if isinstance(call.func.value, ast.Name) and call.func.value.id == "env" and isinstance(name, ast.Constant):
                yield str(name.value), _default(call)


def _default(call: ast.Call) -> object:
    given = next((word.value for word in call.keywords if word.arg == "default"), None)
    try:
        return ast.literal_eval(given) if given is not None else ...
    except ValueError:
        return ...


READ = dict(reads())
TABLE = dict(_ROW.findall((ROOT / "docs/settings.md").read_text()))
EXAMPLE = dict(_EXAMPLE.findall((ROOT / ".env.example").read_text()))
COMPOSED = set(_COMPOSED.findall((ROOT / "docker-compose.yml").read_text()))


def test_what_reads_the_environment_was_found() -> None:
    assert {"ANTHROPIC_API_KEY", "FLEET_HOST", "DATABASE_URL"} <= READ.keys()
    assert len(READ) > 40


def test_every_variable_that_is_read_stands_in_the_table_and_none_else() -> None:
    assert sorted(TABLE) == sorted({*READ, *COMPOSED, *USUAL, BY_BOT})


def test_the_usual_variables_of_the_table_reach_a_cli() -> None:
    settings = (ROOT / "fleet/settings/base.py").read_text()
    assert [name for name in sorted(USUAL) if f'"{name}"' not in settings] == []


def test_every_variable_of_the_table_can_be_copied_and_none_else() -> None:
    assert {re.sub("_ADA_", "_<BOT>_", name) for name in EXAMPLE} == TABLE.keys() - NOT_TO_BE_COPIED


@pytest.mark.parametrize("name", sorted(name for name, default in READ.items() if default not in (..., "", [])))
def test_the_table_tells_the_default_that_holds(name: str) -> None:
    if name in ("DATABASE_URL", "REDIS_URL"):
        assert TABLE[name] == "embedded"
    else:
        assert TABLE[name] == f"`{READ[name]}`"


@pytest.mark.parametrize("name", sorted(name for name, default in READ.items() if default in ("", [])))
def test_what_is_empty_by_itself_shows_no_value(name: str) -> None:
    assert "`" not in TABLE[name] or name == "FLEET_PUBLIC_URL"


def test_the_example_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []


def test_the_limits_of_a_bot_are_those_that_hold() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    told = {name: (int(least), int(most), "0:" in what) for name, least, most, what in _LIMIT.findall(text)}
    assert told == {
        name: (BOUNDS[field].least, BOUNDS[field].most, bool(BOUNDS[field].zero)) for name, field in LIMITS.items()
    }


def test_bounds_are_of_settings_that_are_read_and_allow_their_defaults() -> None:
    assert bounds.LEAST.keys() <= READ.keys()
    assert bounds.complaint({name: READ[name] for name in bounds.LEAST if READ[name] is not ...}) == ""
    assert bounds.complaint({name: least for name, (least, _) in bounds.LEAST.items()}) == ""
    assert bounds.complaint({}) == ""


@pytest.mark.parametrize("name", sorted(bounds.LEAST))
@pytest.mark.parametrize("text", ["below", "many", "nan", "-1"])
def test_a_number_that_nothing_works_with_is_refused_with_what_to_write(name: str, text: str) -> None:
    least, instead = bounds.LEAST[name]
    said = bounds.complaint({name: str(least - 1) if text == "below" else text})
    assert said.startswith(f"{name} is “") and f"from {least:g} on" in said and instead in said
