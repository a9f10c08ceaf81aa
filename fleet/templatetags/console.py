"""The words templates use: icons, badges, ages, money."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message
from django.forms import BoundField, CheckboxInput, RadioSelect, Textarea
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from fleet.console import wording
from fleet.console.statuses import Status
from fleet.kernel import clock

register = template.Library()

register.filter("usd", wording.usd)
register.filter("duration", wording.duration)


@register.filter
def soon(moment: dt.datetime) -> str:
    """Return when something awaited comes, on the reader's clock."""
    return wording.soon(timezone.localtime(moment), timezone.localtime(clock.now()))


@register.filter
def counted(number: int, nouns: str) -> str:
    """Return `3 processes` for `3|counted:"process,processes"`."""
    noun, _, plural = nouns.partition(",")
    return wording.count(number, noun, plural)


@register.filter
def tone(message: Message) -> str:
    """Return the tone of a message of Django's, which is also the name of its shape."""
    return {"success": "ok", "error": "failed", "warning": "waiting"}.get(message.level_tag, "unknown")


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """Return a drawing of the sprite; decorative, because a word always stands beside it."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"/></svg>', extra, static("icons/sprite.svg"), name
    )


@register.inclusion_tag("_components/badge.html")
def badge(status: Status, *, plain: bool = False, still: bool = False) -> dict[str, Any]:
    """Return a status as tint, shape and word; `still` stops the turning ring."""
    return {"status": status, "plain": plain, "turning": status.tone == "running" and not still}


@register.simple_tag
def ago(moment: dt.datetime | None, never: str = "never") -> SafeString | str:
    """Return how long ago something was; the exact time is in the title, and the page keeps the age true."""
    if moment is None:
        return never
    local = timezone.localtime(moment)
    return format_html(
        '<time datetime="{}" title="{}" data-age>{}</time>',
        moment.isoformat(),
        local.strftime("%Y-%m-%d %H:%M:%S %Z"),
        wording.age(moment, clock.now()),
    )


@register.inclusion_tag("_components/field.html")
def field(bound: BoundField, *, help: bool = True) -> dict[str, Any]:
    """Return one form field: label, control, help and error, tied together for everybody."""
    if not help:
        bound.help_text = ""
    widget = bound.field.widget
    control = bound.as_widget(attrs=_attributes(bound))
    return {
        "field": bound,
        "control": control,
        "is_check": isinstance(widget, CheckboxInput),
        "is_choices": isinstance(widget, RadioSelect),
    }


def _attributes(bound: BoundField) -> dict[str, Any]:
    widget = bound.field.widget
    attributes: dict[str, Any] = {}
    if not isinstance(widget, CheckboxInput | RadioSelect):
        attributes["class"] = "input"
    described = [f"{bound.auto_id}_help"] if bound.help_text else []
    if bound.errors:
        attributes["aria-invalid"] = "true"
        described.insert(0, f"{bound.auto_id}_error")
    if described:
        attributes["aria-describedby"] = " ".join(described)
    if isinstance(widget, Textarea) and "rows" not in widget.attrs:
        attributes["rows"] = 3
    return attributes
