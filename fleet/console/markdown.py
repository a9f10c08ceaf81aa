"""Markdown of replies and documents, rendered on the server and cleaned twice: no HTML in, an allowlist out."""

from __future__ import annotations

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul", "div",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "pre": {"tabindex"}, "div": {"class"}}
_SCHEMES = {"http", "https", "mailto"}


def _parser(*, breaks: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": breaks})
    # A picture in a reply would let any host see who reads it and when.
    return parser.enable(["table", "strikethrough"]).disable("image")


_PARSERS = {breaks: _parser(breaks=breaks) for breaks in (True, False)}


def render(text: str, *, top: int = 2, breaks: bool = True) -> SafeString:
    """Return the HTML of Markdown `text`; nothing in it can run, load or disguise where a link leads.

    `top` is the level of its highest heading, so that it takes its place in the outline of the page around it.
    `breaks` keeps single line breaks, as people expect of a reply and not of a document.
    """
    parser = _PARSERS[breaks]
    tokens = parser.parse(text)
    _level_headings(tokens, top)
    clean = nh3.clean(
        parser.renderer.render(tokens, parser.options, {}),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="noopener nofollow",
        strip_comments=True,
    )
    return mark_safe(_frame_code(clean))  # noqa: S308 - cleaned above


def _level_headings(tokens: list[Token], top: int) -> None:
    """Move headings below `top` and close gaps in their levels: a reply may start with any of them."""
    previous = top - 1
    for token in tokens:
        if token.type == "heading_open":
            previous = min(int(token.tag[1]) + top - 1, previous + 1, 6)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{previous}"


def _frame_code(html: str) -> str:
    """Wrap code blocks so that they scroll by keyboard and can carry a copy button."""
    framed = html.replace("<pre>", '<div class="code"><pre tabindex="0">')
    return framed.replace("</pre>", "</pre></div>")
