"""From what Telegram tells a bot to the unified message. Nothing is decided here but whether the bot was spoken to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from telegram import Message, MessageEntity, Update
from telegram.constants import ChatType

from conversations.ports import UnifiedMessage
from fleet.kernel.exceptions import Refused
from gateways.telegram.line import Line

_MENTIONS: list[str | None] = [MessageEntity.MENTION, MessageEntity.TEXT_MENTION, MessageEntity.BOT_COMMAND]
# What people send besides text, as the Bot API names the fields, and what we call it.
_CONTENTS = {
    "photo": "photo",
    "document": "file",
    "voice": "voice message",
    "audio": "audio file",
    "video": "video",
    "video_note": "video message",
    "animation": "animation",
    "sticker": "sticker",
    "location": "location",
    "venue": "place",
    "contact": "contact",
    "poll": "poll",
    "dice": "dice",
    "game": "game",
    "story": "story",
    "paid_media": "paid media",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """A message for the inbox; `refusal` when its content cannot be answered and the sender has to be told."""

    message: UnifiedMessage
    refusal: Refused | None = None


def read(update: Update, line: Line) -> Heard | None:
    """Return what a person said to the bot, or None for everything that needs no answer."""
    message = update.message or update.edited_message
    if message is None or message.from_user is None or message.from_user.is_bot:
        return None
    content = next((field for field in _CONTENTS if getattr(message, field)), None)
    if (message.text is None and content is None) or not _is_spoken_to(message, line):
        return None
    if update.edited_message:
        return _edited(update, message, line)
    text = _without_mention(message.text or message.caption or "", line)
    if content is None:
        return Heard(_unified(update, message, line, text))
    return _with_content(update, message, line, text, content)


def _edited(update: Update, message: Message, line: Line) -> Heard | None:
    """An edit is stored and declined; Telegram also calls it an edit when a live location moves, which nobody asked us about."""
    text = message.text or message.caption
    return Heard(_unified(update, message, line, text), _EDITED) if text else None


_EDITED = Refused(
    "Your edit was not taken over.",
    why="I answer a message as it was when it came.",
    next_step="Send the changed text as a new message.",
    code="edited",
)


def _with_content(update: Update, message: Message, line: Line, text: str, content: str) -> Heard:
    """A caption is answered, and the bot learns what it cannot see; without one there is nothing to answer."""
    name = _CONTENTS[content]
    media = [_media(message, content)]
    if text.strip():
        note = f"[With this message came a {name}, which cannot be read here yet.]"
        return Heard(_unified(update, message, line, f"{text}\n\n{note}", media))
    refusal = Refused(
        f"I cannot read this yet: a {name}.",
        why="Files and other attachments come later.",
        next_step="Describe in words what you need.",
        code="unsupported_content",
    )
    return Heard(_unified(update, message, line, text, media), refusal)


def _media(message: Message, content: str) -> dict[str, Any]:
    """Return what is known of an attachment: kind, and file id, name and size in bytes where there are any."""
    value = getattr(message, content)
    file = value[-1] if isinstance(value, tuple) else value
    facts = {name: getattr(file, name, None) for name in ("file_id", "file_name", "file_size")}
    return {"kind": content, **{name: fact for name, fact in facts.items() if fact is not None}}


def _unified(
    update: Update, message: Message, line: Line, text: str, media: list[dict[str, Any]] | None = None
) -> UnifiedMessage:
    sender = message.from_user
    if sender is None:
        raise LookupError("a message without a sender was let through")
    return UnifiedMessage(
        account=line.key,
        # Update ids start anew after a quiet week, so the message's own number makes the event's id unique for ever.
        event_id=f"{line.bot_id}:{update.update_id}:{message.message_id}",
        identity_slug=line.identity_slug,
        chat_id=str(message.chat_id),
        thread_id=str(message.message_thread_id) if message.is_topic_message and message.message_thread_id else "",
        message_id=str(message.message_id),
        sender_id=str(sender.id),
        sender_name=sender.full_name,
        text=text,
        media=media or [],
        platform_at=message.edit_date or message.date,
    )


def _is_spoken_to(message: Message, line: Line) -> bool:
    """In a private chat always; in a group when mentioned, when a command names the bot, or in reply to it."""
    if message.chat.type == ChatType.PRIVATE:
        return True
    replied = message.reply_to_message
    if replied and replied.from_user and replied.from_user.id == line.bot_id:
        return True
    return any(_names(entity, text, line) for entity, text in _entities(message).items())


def _entities(message: Message) -> Mapping[MessageEntity, str]:
    if message.text is not None:
        return message.parse_entities(_MENTIONS)
    return message.parse_caption_entities(_MENTIONS) if message.caption else {}


def _names(entity: MessageEntity, text: str, line: Line) -> bool:
    if entity.type == MessageEntity.TEXT_MENTION:
        return entity.user is not None and entity.user.id == line.bot_id
    return bool(line.username) and text.lower().endswith(f"@{line.username.lower()}")


def _without_mention(text: str, line: Line) -> str:
    """Return the text without the mention it begins or ends with: it was only the address."""
    if not line.username:
        return text
    mention = rf"@{re.escape(line.username)}\b"
    return re.sub(rf"^\s*{mention}[\s,:]*|\s*(?<!\S){mention}\s*$", "", text, flags=re.IGNORECASE)
