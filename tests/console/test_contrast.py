"""Every pair of colours that carries meaning can be read: WCAG 2.2 AA, recomputed from the token file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOKENS = Path("static/css/tokens.css").read_text()
_PAIR = re.compile(r"--([\w-]+): light-dark\((#[0-9A-F]{6}), (#[0-9A-F]{6})\);")
COLOURS = {name: (light, dark) for name, light, dark in _PAIR.findall(TOKENS)}
COLOURS["on-solid"] = ("#FFFFFF", "#FFFFFF")
THEMES = {"light": 0, "dark": 1}
STATUSES = ("ok", "running", "waiting", "failed", "held", "human", "unknown")
GROUNDS = ("canvas", "surface", "sunken")


def luminance(colour: str) -> float:
    """Return the relative luminance of `#RRGGBB` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str, theme: str) -> float:
    """Return the contrast of two tokens in a theme."""
    lights = sorted((luminance(COLOURS[name][THEMES[theme]]) for name in (one, other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize(("ink", "least"), [("text", 13.0), ("muted", 5.9), ("link", 6.5)])
def test_text_can_be_read_on_every_ground(ink: str, least: float, ground: str, theme: str) -> None:
    assert contrast(ink, ground, theme) >= least


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("status", STATUSES)
def test_a_status_can_be_read_on_its_tint(status: str, theme: str) -> None:
    assert contrast(status, f"{status}-tint", theme) >= 6.1


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("ground", GROUNDS)
def test_the_edge_of_a_control_and_the_focus_ring_stand_out(ground: str, theme: str) -> None:
    assert contrast("edge", ground, theme) >= 3.0
    assert contrast("focus", ground, theme) >= 3.0


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("button", ["solid", "solid-hover", "danger", "danger-hover"])
def test_the_words_on_a_filled_button_can_be_read(button: str, theme: str) -> None:
    assert contrast("on-solid", button, theme) >= 4.5


def test_only_the_token_file_names_colours() -> None:
    sheets = [sheet for sheet in Path("static/css").rglob("*.css") if sheet.name != "tokens.css"]
    named = {sheet.name: re.findall(r"#[0-9A-Fa-f]{3,8}\b", sheet.read_text()) for sheet in sheets}
    assert {name: found for name, found in named.items() if found} == {}


def test_the_style_sheets_stay_small() -> None:
    assert sum(sheet.stat().st_size for sheet in Path("static/css").rglob("*.css")) < 40_000
