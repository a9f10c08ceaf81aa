"""Telegram's HTML: what it accepts, what is left of it, and its refusals (core.telegram.org/bots/api#html-style)."""

import html
import re

from tests.emulators.telegram_errors import BadRequest

TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "span": "spoiler",
    "tg-spoiler": "spoiler",
    "a": "text_link",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "tg-emoji": "custom_emoji",
}
TOKEN = re.compile(r"<(/?)([^\s>]*)([^>]*)>?")
ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""")


def utf16_length(text: str) -> int:
    """Telegram counts offsets and lengths in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def parse_html(source: str) -> tuple[str, list[dict]]:
    """Plain text and its entities. Raises BadRequest as the Bot API words it."""
    reader = _Reader(source)
    return reader.text, sorted(reader.entities, key=lambda entity: (entity["offset"], -entity["length"]))


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.text = ""
        self.entities: list[dict] = []
        self._open: list[tuple[str, int, dict]] = []
        position = 0
        for token in TOKEN.finditer(source):
            self.text += html.unescape(source[position : token.start()])
            position = token.end()
            self._end(token) if token[1] else self._begin(token)
        self.text += html.unescape(source[position:])
        if self._open:
            raise _refused(f'Can\'t find end tag corresponding to start tag "{self._open[-1][0]}"')

    def _begin(self, token: re.Match[str]) -> None:
        tag = token[2].lower()
        if not token[0].endswith(">"):
            raise _refused(f"Unclosed start tag at byte offset {self._byte(token)}")
        if tag not in TAGS:
            raise _refused(f'Unsupported start tag "{tag}" at byte offset {self._byte(token)}')
        attributes = {
            found[1].lower(): html.unescape(found[2] or found[3] or found[4] or "")
            for found in ATTRIBUTE.finditer(token[3])
        }
        if tag == "span" and attributes.get("class") != "tg-spoiler":
            raise _refused(f'Tag "span" must have class "tg-spoiler" at byte offset {self._byte(token)}')
        self._open.append((tag, utf16_length(self.text), attributes))

    def _end(self, token: re.Match[str]) -> None:
        tag = token[2].lower()
        if not self._open:
            raise _refused(f"Unexpected end tag at byte offset {self._byte(token)}")
        opened, offset, attributes = self._open.pop()
        if tag and tag != opened:
            expected = f'expected "</{opened}>", found "</{tag}>"'
            raise _refused(f"Unmatched end tag at byte offset {self._byte(token)}, {expected}")
        length = utf16_length(self.text) - offset
        if length and not (opened == "a" and "href" not in attributes):
            self.entities.append(_entity(opened, offset, length, attributes))

    def _byte(self, token: re.Match[str]) -> int:
        return len(self.source[: token.start()].encode())


def _entity(tag: str, offset: int, length: int, attributes: dict[str, str]) -> dict:
    entity = {"type": TAGS[tag], "offset": offset, "length": length}
    if tag == "a":
        entity["url"] = attributes["href"]
    if tag == "tg-emoji":
        entity["custom_emoji_id"] = attributes.get("emoji-id", "")
    return entity


def _refused(why: str) -> BadRequest:
    return BadRequest(f"can't parse entities: {why}")
