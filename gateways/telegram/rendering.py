"""Markdown as bots write it, as the HTML that Telegram shows (core.telegram.org/bots/api#html-style).

Tags are always balanced because they follow the parser's tree; text is always escaped; unknown things become their text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from gateways.telegram.splitting import split, units

LIMIT = 4096  # units of visible text in one message
# Room for the number of a part and for the mark of a repetition.
_BODY_LIMIT = LIMIT - 96
_SMALLEST_BODY = 400
MOST_PARTS = 30
_CUT_SHORT = "The answer is longer than fits here; all of it stands in the console."
_NO_TEXT = "(no text)"
_LINK_SCHEMES = ("http://", "https://", "mailto:", "tg://")
_TAG = re.compile(r"<[^>]*>")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Part:
    """One message: as HTML, and as plain text for the case that Telegram does not accept the HTML."""

    html: str
    plain: str


def parts(text: str) -> list[Part]:
    """Return `text` as messages, in order and numbered when there are several; the same text always gives the same parts."""
    enough = text[: (MOST_PARTS + 1) * LIMIT]  # a piece has at most LIMIT characters: what follows can never be shown
    bodies = _bodies(_UNPRINTABLE.sub("", enough), _BODY_LIMIT) or [Part(_NO_TEXT, _NO_TEXT)]
    if len(bodies) > MOST_PARTS:
        bodies = [*bodies[: MOST_PARTS - 1], Part(f"<i>{_CUT_SHORT}</i>", _CUT_SHORT)]
    if len(bodies) < 2:
        return bodies
    return [_with_end(body, f"({number}/{len(bodies)})") for number, body in enumerate(bodies, 1)]


def marked(part: Part, mark: str) -> Part:
    """Return the part with a line before it that everybody sees."""
    return Part(f"<i>{html.escape(mark)}</i>\n{part.html}", f"{mark}\n{part.plain}")


def visible(source: str) -> str:
    """Return the text that Telegram shows for this HTML."""
    return html.unescape(_TAG.sub("", source)).strip()


def _with_end(part: Part, line: str) -> Part:
    return Part(f"{part.html}\n\n{line}", f"{part.plain}\n\n{line}")


def _bodies(text: str, limit: int) -> list[Part]:
    """Cut and render; what grows beyond the limit by rendering (a wide table) is cut smaller, and in the end shown as it was written."""
    found = []
    for piece in split(text, limit):
        plain = piece.markdown.strip()
        rendered = to_html(plain)
        if units(visible(rendered)) <= _BODY_LIMIT:
            found.append(Part(rendered, plain) if visible(rendered) else Part(html.escape(plain), plain))
        elif limit > _SMALLEST_BODY:
            found.extend(_bodies(plain, limit // 2))
        else:
            found.append(Part(html.escape(plain), plain))
    return [part for part in found if part.plain]


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


def to_html(markdown: str) -> str:
    """Return the HTML of one piece of Markdown."""
    return _blocks(SyntaxTreeNode(_parser().parse(markdown)).children)


def _blocks(nodes: list[SyntaxTreeNode], *, quoted: bool = False) -> str:
    return "\n\n".join(filter(None, (_block(node, quoted) for node in nodes)))


def _block(node: SyntaxTreeNode, quoted: bool) -> str:
    render = _BLOCKS.get(node.type)
    return render(node, quoted) if render else _inlines(node.children, frozenset())


def _heading(node: SyntaxTreeNode, quoted: bool) -> str:
    return f"<b>{_inlines(node.children, frozenset({'b'}))}</b>"


def _code(node: SyntaxTreeNode, quoted: bool) -> str:
    code = html.escape(node.content.rstrip("\n"), quote=False)
    language = re.sub(r"[^\w+#.-]", "", node.info.split()[0]) if node.info.split() else ""
    return f'<pre><code class="language-{language}">{code}</code></pre>' if language else f"<pre>{code}</pre>"


def _quote(node: SyntaxTreeNode, quoted: bool) -> str:
    inside = _blocks(node.children, quoted=True)
    return inside if quoted else f"<blockquote>{inside}</blockquote>"  # Telegram refuses a quote in a quote


def _list(node: SyntaxTreeNode, quoted: bool) -> str:
    first = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
    items = []
    for position, item in enumerate(node.children):
        mark = "•" if first is None else f"{first + position}."
        items.append(f"{mark} {_item(item, quoted)}".rstrip())
    return "\n".join(items)


def _item(item: SyntaxTreeNode, quoted: bool) -> str:
    """Return an item's blocks; what follows the first line is indented, except inside of code."""
    text = "\n".join(filter(None, (_block(node, quoted) for node in item.children)))
    segments = re.split(r"(<pre>.*?</pre>)", text, flags=re.DOTALL)
    return "".join(segment if segment.startswith("<pre>") else segment.replace("\n", "\n  ") for segment in segments)


def _table(node: SyntaxTreeNode, quoted: bool) -> str:
    """Return a table as aligned columns; Telegram has no tables."""
    rows = [
        [visible(_inlines(cell.children, frozenset())) for cell in row.children]
        for group in node.children
        for row in group.children
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return f"<pre>{html.escape(chr(10).join(lines), quote=False)}</pre>"


def _rule(node: SyntaxTreeNode, quoted: bool) -> str:
    return "———"


_BLOCKS: dict[str, Callable[[SyntaxTreeNode, bool], str]] = {
    "heading": _heading,
    "fence": _code,
    "code_block": _code,
    "blockquote": _quote,
    "bullet_list": _list,
    "ordered_list": _list,
    "table": _table,
    "hr": _rule,
}
_SIMPLE = {"strong": "b", "em": "i", "s": "s"}


def _inlines(nodes: list[SyntaxTreeNode], inside: frozenset[str]) -> str:
    return "".join(_inline(node, inside) for node in nodes)


def _inline(node: SyntaxTreeNode, inside: frozenset[str]) -> str:
    if node.type in _SIMPLE:
        return _wrapped(node, _SIMPLE[node.type], inside)
    if node.type == "link":
        return _link(node, inside)
    if node.type == "code_inline":
        return f"<code>{html.escape(node.content, quote=False)}</code>"
    if node.type in ("softbreak", "hardbreak"):
        return "\n"
    if node.children:
        return _inlines(node.children, inside)
    return html.escape(node.content, quote=False)


def _wrapped(node: SyntaxTreeNode, tag: str, inside: frozenset[str]) -> str:
    text = _inlines(node.children, inside | {tag})
    return text if tag in inside or not text else f"<{tag}>{text}</{tag}>"


def _link(node: SyntaxTreeNode, inside: frozenset[str]) -> str:
    """Return a link; one that Telegram would not follow shows its address instead."""
    target, text = str(node.attrs.get("href", "")), _inlines(node.children, inside | {"a"})
    if target.startswith(_LINK_SCHEMES) and text and "a" not in inside:
        return f'<a href="{html.escape(target)}">{text}</a>'
    return f"{text} ({html.escape(target, quote=False)})" if target and text else text
