"""The Bot API methods that bots of ours use, with the checks Telegram makes."""

import json
from collections.abc import Callable
from typing import Any

from tests.emulators.telegram_errors import BadRequest
from tests.emulators.telegram_html import parse_html, utf16_length
from tests.emulators.telegram_world import Bot, Call, Message, World, now

LONGEST_TEXT = 4096
ACTIONS = {
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
}
NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current "
    "content and reply markup of the message"
)


class Parameters:
    """Parameters of a call; forms carry numbers and objects as text."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def integer(self, name: str) -> int | None:
        value = self._given.get(name)
        try:
            return None if value in (None, "") else int(value)
        except ValueError:
            raise BadRequest(f"{name} must be an integer") from None

    def text(self, name: str) -> str:
        return str(self._given.get(name, ""))

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in ("true", "1")

    def data(self, name: str, default: Any = None) -> Any:
        value = self._given.get(name)
        if value in (None, ""):
            return default
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise BadRequest(f"can't parse {name} JSON object") from None


def get_me(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    abilities = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
    return bot.user | abilities


def send_message(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    thread = asked.integer("message_thread_id")
    chat = world.destination(bot, asked.integer("chat_id") or 0, thread)
    body: dict[str, Any] = {"from": bot.user, **_content(asked)}
    if thread is not None:
        body |= {"message_thread_id": thread, "is_topic_message": True}
    if replied := _replied(world, chat.id, asked):
        body["reply_to_message"] = {key: value for key, value in replied.payload.items() if key != "reply_to_message"}
    if markup := asked.data("reply_markup"):
        body["reply_markup"] = markup
    return world.store(chat, body, bot.token, call.called).payload


def send_message_draft(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    chat = world.destination(bot, asked.integer("chat_id") or 0, asked.integer("message_thread_id"))
    if not chat.is_private:
        raise BadRequest("chat type is not supported")
    if not asked.integer("draft_id"):
        raise BadRequest("draft_id must be non-zero")
    _content(asked)
    return True


def edit_message_text(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    message = _own_message(world, bot, asked, "message to edit not found", "message can't be edited")
    content, markup = _content(asked), asked.data("reply_markup")
    if content["text"] == message.text and markup == message.payload.get("reply_markup"):
        raise BadRequest(NOT_MODIFIED)
    message.payload.pop("entities", None)
    message.payload |= content | {"edit_date": int(now().wall)}
    _set_markup(message, markup)
    message.versions.append((content["text"], now()))
    return message.payload


def edit_message_reply_markup(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    message = _own_message(world, bot, asked, "message to edit not found", "message can't be edited")
    _set_markup(message, asked.data("reply_markup"))
    return message.payload


def delete_message(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    message = _own_message(world, bot, asked, "message to delete not found", "message can't be deleted")
    message.deleted = True
    return True


def send_chat_action(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    world.destination(bot, asked.integer("chat_id") or 0, asked.integer("message_thread_id"))
    if asked.text("action") not in ACTIONS:
        raise BadRequest("wrong parameter action in request")
    return True


def set_message_reaction(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    chat = world.destination(bot, asked.integer("chat_id") or 0, None)
    world.message(chat.id, asked.integer("message_id"), "message to react not found")
    return True


def answer_callback_query(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    if world.callbacks.pop(asked.text("callback_query_id"), None) != bot.token:
        raise BadRequest("query is too old and response timeout expired or query ID is invalid")
    return True


def set_my_commands(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    commands = asked.data("commands", [])
    if len(commands) > 100:
        raise BadRequest("too many commands")
    if any(not command.get("command") or not command.get("description") for command in commands):
        raise BadRequest("command description is empty")
    bot.commands = commands
    return True


def get_my_commands(world: World, bot: Bot, asked: Parameters, call: Call) -> list[dict[str, Any]]:
    return bot.commands


def get_webhook_info(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    waiting = sum(1 for update in bot.updates if not update.confirmed)
    return {"url": "", "has_custom_certificate": False, "pending_update_count": waiting}


def delete_webhook(world: World, bot: Bot, asked: Parameters, call: Call) -> bool:
    if asked.flag("drop_pending_updates"):
        bot.updates.clear()
    return True


def get_chat(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    chat = world.destination(bot, asked.integer("chat_id") or 0, None)
    return chat.as_api | {"accent_color_id": 0, "max_reaction_count": 11}


def get_file(world: World, bot: Bot, asked: Parameters, call: Call) -> dict[str, Any]:
    file_id = asked.text("file_id")
    path = next((path for path, (known, _) in world.files.items() if known == file_id), None)
    if path is None:
        raise BadRequest("invalid file_id")
    content = world.files[path][1]
    if len(content) > 20 * 1024**2:
        raise BadRequest("file is too big")
    return {"file_id": file_id, "file_unique_id": file_id, "file_size": len(content), "file_path": path}


METHODS: dict[str, Callable[[World, Bot, Parameters, Call], Any]] = {
    method.__name__.replace("_", ""): method
    for method in (
        get_me,
        send_message,
        send_message_draft,
        edit_message_text,
        edit_message_reply_markup,
        delete_message,
        send_chat_action,
        set_message_reaction,
        answer_callback_query,
        set_my_commands,
        get_my_commands,
        get_webhook_info,
        delete_webhook,
        get_chat,
        get_file,
    )
}


def _content(asked: Parameters) -> dict[str, Any]:
    """Text and entities as they are shown. The length counts after the markup is gone."""
    text, entities = asked.text("text"), asked.data("entities", [])
    mode = asked.text("parse_mode")
    if mode.lower() == "html":
        text, entities = parse_html(text)
    elif mode:
        raise BadRequest("unsupported parse_mode")
    text = text.strip() if not entities else text
    if not text.strip():
        raise BadRequest("message text is empty")
    if utf16_length(text) > LONGEST_TEXT:
        raise BadRequest("message is too long")
    return {"text": text} | ({"entities": entities} if entities else {})


def _replied(world: World, chat_id: int, asked: Parameters) -> Message | None:
    wanted = asked.data("reply_parameters") or {"message_id": asked.integer("reply_to_message_id")}
    if not wanted.get("message_id"):
        return None
    try:
        return world.message(chat_id, int(wanted["message_id"]), "message to be replied not found")
    except BadRequest:
        if wanted.get("allow_sending_without_reply") or asked.flag("allow_sending_without_reply"):
            return None
        raise


def _own_message(world: World, bot: Bot, asked: Parameters, missing: str, foreign: str) -> Message:
    chat = world.destination(bot, asked.integer("chat_id") or 0, None)
    message = world.message(chat.id, asked.integer("message_id"), missing)
    if message.author != bot.token:
        raise BadRequest(foreign)
    return message


def _set_markup(message: Message, markup: Any) -> None:
    message.payload.pop("reply_markup", None)
    if markup:
        message.payload["reply_markup"] = markup
