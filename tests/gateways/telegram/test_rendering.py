"""What a bot writes in Markdown, as Telegram shows it. Telegram's own reading is the emulator's parser."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.telegram.rendering import LIMIT, MOST_PARTS, marked, parts, to_html, visible
from gateways.telegram.splitting import units
from tests.emulators.telegram_html import parse_html

MARKDOWN = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "```", "```py", "# Head", "- one", "  - two", "1. x", "> q", "> > qq", "---", "| a | b |", "|---|---|"]
        ),
        st.text("ab*_`~[](){}<>&!#\\|\"' \n\t1.-😀", max_size=200),
        st.text(max_size=80),
    ),
    max_size=60,
).map("\n".join)
WORDS = st.lists(st.text(string.ascii_letters + string.digits, min_size=1, max_size=30), min_size=1, max_size=3000)


@given(MARKDOWN)
def test_telegram_accepts_every_part(text):
    for part in parts(text):
        shown, _ = parse_html(part.html)  # raises for unbalanced or unknown tags
        assert shown.strip()
        assert units(shown) <= LIMIT
        assert units(part.plain) <= LIMIT


@given(MARKDOWN)
def test_a_mark_still_fits(text):
    for part in parts(text):
        doubtful = marked(part, "(possibly repeated)")
        assert units(parse_html(doubtful.html)[0]) <= LIMIT
        assert units(doubtful.plain) <= LIMIT


@given(WORDS)
def test_no_word_is_lost_on_the_way(words):
    shown = " ".join(re.sub(r"\n\n\(\d+/\d+\)$", "", visible(part.html)) for part in parts(" ".join(words)))
    assert shown.split() == words


@given(MARKDOWN)
def test_the_same_text_always_gives_the_same_parts(text):
    assert parts(text) == parts(text)


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**bold** *it* ~~gone~~ `a<b`", "<b>bold</b> <i>it</i> <s>gone</s> <code>a&lt;b</code>"),
        ("# Title **bold**", "<b>Title bold</b>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[a](https://x.de?p=1&q=2)", '<a href="https://x.de?p=1&amp;q=2">a</a>'),
        ("[here](/relative)", "here (/relative)"),
        ("- one\n- two\n  - deep", "• one\n• two\n  • deep"),
        ("3. three\n4. four", "3. three\n4. four"),
        ("> said\n> > deeper", "<blockquote>said\n\ndeeper</blockquote>"),
        ("```py\nif a < b:\n    c\n```", '<pre><code class="language-py">if a &lt; b:\n    c</code></pre>'),
        ("| a | b |\n|---|---|\n| 1 | two |", "<pre>a | b\n--+----\n1 | two</pre>"),
        ("one\ntwo", "one\ntwo"),
    ],
)
def test_markdown_becomes_telegrams_html(markdown, html):
    assert to_html(markdown) == html


def test_code_in_a_list_keeps_its_own_indentation():
    assert '<code class="language-py">a\n  b</code>' in to_html("- item\n\n  ```py\n  a\n    b\n  ```")


def test_several_parts_are_numbered():
    found = parts("word " * 3000)
    assert [part.plain[-5:] for part in found] == [f"({number}/{len(found)})" for number in range(1, len(found) + 1)]


def test_an_endless_text_ends_with_a_word_about_it():
    found = parts("word " * 1_000_000)
    assert len(found) == MOST_PARTS
    assert "in the console" in found[-1].plain


def test_a_table_too_wide_for_a_message_is_shown_as_it_was_written():
    table = "| a | b |\n|---|---|\n" + "".join(f"| {'x' * (300 if row == 1 else 2)} | {row} |\n" for row in range(60))
    assert all(units(visible(part.html)) <= LIMIT for part in parts(table))


@pytest.mark.parametrize("text", ["", "   \n", "\x00\x01"])
def test_nothing_to_say_is_still_said(text):
    assert [part.plain for part in parts(text)] == ["(no text)"]
