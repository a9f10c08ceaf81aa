"""A long text is cut into pieces that Telegram takes, and nothing of it is lost."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateways.telegram.splitting import split, units

LIMIT = 200
# Lines as bots write them: prose, lists, fences of both kinds (closed or not), emoji beyond the Basic Multilingual Plane.
LINES = st.one_of(
    st.sampled_from(
        ["", "```", "```python", "~~~", "````", "# Title", "- item", "> said", "| a | b |", "    indented"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120),
    st.text("ab 😀🚀", min_size=50, max_size=400),
)
TEXTS = st.lists(LINES, max_size=40).map("\n".join)


def fences_open_at_end(markdown: str) -> bool:
    marker = ""
    for line in markdown.split("\n"):
        found = re.match(r"[ \t]*(`{3,16}(?!`)|~{3,16}(?!~))([^`]*)$", line)
        if found and not marker:
            marker = found[1]
        elif found and found[1][0] == marker[0] and len(found[1]) >= len(marker) and not found[2].strip():
            marker = ""
    return bool(marker)


@given(TEXTS)
def test_the_pieces_joined_are_the_text(text):
    assert "".join(piece.body for piece in split(text, LIMIT)) == text


@given(TEXTS)
def test_no_piece_is_longer_than_allowed(text):
    assert all(units(piece.markdown) <= LIMIT for piece in split(text, LIMIT))


@given(TEXTS)
def test_every_piece_closes_the_fences_it_opens(text):
    assert not any(fences_open_at_end(piece.markdown) for piece in split(text, LIMIT))


@given(st.text())
def test_units_are_counted_as_telegram_counts(text):
    assert units(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2


def test_a_text_that_fits_stays_whole():
    assert [piece.markdown for piece in split("short", LIMIT)] == ["short"]


def test_a_cut_goes_between_paragraphs_where_it_can():
    first, second = "a " * 60, "b " * 60
    assert [piece.body for piece in split(f"{first}\n\n{second}", LIMIT)] == [f"{first}\n\n", second]


def test_a_fence_that_fits_into_the_next_piece_is_not_cut():
    prose, code = "word " * 22, "```py\n" + "x = 1\n" * 15 + "```\n"
    pieces = split(f"{prose}\n{code}", LIMIT)
    assert [piece.markdown.strip() for piece in pieces] == [prose.strip(), code.strip()]


def test_a_long_fence_is_closed_and_opened_again_with_its_language():
    pieces = split("```python\n" + "x = 1\n" * 60 + "```\n", LIMIT)
    assert len(pieces) > 1
    assert all(piece.markdown.startswith("```python\n") and piece.markdown.rstrip().endswith("```") for piece in pieces)


def test_a_character_of_two_units_is_never_torn():
    pieces = split("😀" * 300, 101)
    assert all(units(piece.markdown) <= 101 for piece in pieces)
    assert "".join(piece.body for piece in pieces) == "😀" * 300
