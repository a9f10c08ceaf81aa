"""What people do on Telegram and what a test may look at: the commands behind `Telegram`, JSON in and out."""

import base64
from typing import Any

from aiohttp import web

from tests.emulators.telegram_world import Call, Chat, Fault, Message, Update, World, now


class Control:
    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, application: web.Application) -> None:
        application.router.add_post("/control/{command}", self._handle)

    async def run(self, command: str, arguments: dict[str, Any]) -> Any:
        result = await getattr(self, f"do_{command}")(**arguments)
        await self._world.changed()
        return result

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            return web.json_response({"result": await self.run(request.match_info["command"], await request.json())})
        except TimeoutError as late:
            return web.json_response({"timeout": str(late)})

    async def do_add_bot(self, token: str, username: str) -> None:
        self._world.add_bot(token, username)

    async def do_add_chat(self, chat_id: int, **about: Any) -> None:
        self._world.chats.setdefault(chat_id, Chat(chat_id, about))

    async def do_add_topic(self, chat_id: int, thread: int) -> None:
        self._world.chats[chat_id].topics.add(thread)

    async def do_block(self, token: str, chat_id: int, blocked: bool) -> None:
        change = self._world.chats[chat_id].blocked
        change.add(token) if blocked else change.discard(token)

    async def do_migrate(self, chat_id: int, new_id: int) -> None:
        old = self._world.chats[chat_id]
        old.moved_to = new_id
        new = self._world.chats[new_id] = Chat(new_id, old.about | {"type": "supergroup"}, started=old.started)
        for token in new.started:
            body = {"message_id": next(old.message_ids), "date": int(now().wall), "chat": old.as_api}
            self._world.deliver(self._world.bots[token], "message", body | {"migrate_to_chat_id": new_id})

    async def do_send(
        self, token: str, person: dict, chat_id: int, body: dict, thread: int | None, reply_to: int | None
    ) -> Any:
        bot, chat = self._world.bots[token], self._world.chats[chat_id]
        chat.started.add(token)
        if thread is not None:
            chat.topics.add(thread)
            body |= {"message_thread_id": thread, "is_topic_message": True}
        if reply_to is not None:
            body["reply_to_message"] = self._world.messages[(chat_id, reply_to)].payload
        message = self._world.store(chat, {"from": person, **body}, "person", now())
        return self._told(self._world.deliver(bot, "message", message.payload), message)

    async def do_edit(self, token: str, chat_id: int, message_id: int, text: str) -> Any:
        message = self._world.messages[(chat_id, message_id)]
        message.versions.append((text, now()))
        message.payload = message.payload | {"text": text, "edit_date": int(now().wall)}
        return self._told(self._world.deliver(self._world.bots[token], "edited_message", message.payload), message)

    async def do_press(self, token: str, person: dict, chat_id: int, message_id: int, data: str) -> Any:
        message = self._world.messages[(chat_id, message_id)]
        number = str(len(self._world.callbacks) + 4_000_000_000)
        self._world.callbacks[number] = token
        body = {"id": number, "from": person, "chat_instance": str(chat_id), "message": message.payload, "data": data}
        return self._told(self._world.deliver(self._world.bots[token], "callback_query", body), message)

    async def do_add_file(self, name: str, content: str) -> dict[str, Any]:
        data = base64.b64decode(content)
        file_id = f"file-{len(self._world.files) + 1}"
        self._world.files[f"documents/{file_id}-{name}"] = (file_id, data)
        return {"file_id": file_id, "file_unique_id": file_id, "file_name": name, "file_size": len(data)}

    async def do_redeliver(self, token: str, update_id: int) -> None:
        self._update(token, update_id).again = True

    async def do_fault(self, **fields: Any) -> int:
        self._world.faults.append(Fault(**fields))
        return len(self._world.faults) - 1

    async def do_release(self, fault: int) -> None:
        self._world.faults[fault].released.set()

    async def do_wait_for_fault(self, fault: int, hits: int, timeout: float) -> int:
        found = self._world.faults[fault]
        await self._world.wait_until(lambda: found.hits >= hits, timeout)
        return found.hits

    async def do_sent(self, chat_id: int | None) -> list[dict[str, Any]]:
        return [_message(message) for message in self._by_bots(chat_id)]

    async def do_wait_for_reply(self, chat_id: int, after: int, contains: str, timeout: float) -> dict[str, Any]:
        def find() -> Message | None:
            replies = (message for message in self._by_bots(chat_id) if message.id > after)
            return next((message for message in replies if contains in message.text), None)

        return _message(await self._world.wait_until(find, timeout))

    async def do_calls(self, method: str | None) -> list[dict[str, Any]]:
        return [_call(call) for call in self._world.calls if method in (None, call.method)]

    async def do_wait_for_calls(self, method: str, count: int, timeout: float) -> list[dict[str, Any]]:
        def enough() -> bool:
            return sum(1 for call in self._world.calls if call.method == method) >= count

        await self._world.wait_until(enough, timeout)
        return await self.do_calls(method)

    async def do_update(self, token: str, update_id: int) -> dict[str, Any]:
        return _update(self._update(token, update_id))

    async def do_wait_confirmed(self, token: str, update_id: int, timeout: float) -> dict[str, Any]:
        update = self._update(token, update_id)
        await self._world.wait_until(lambda: update.confirmed, timeout)
        return _update(update)

    def _update(self, token: str, update_id: int) -> Update:
        return next(update for update in self._world.bots[token].updates if update.id == update_id)

    def _by_bots(self, chat_id: int | None) -> list[Message]:
        every = self._world.messages.values()
        return [one for one in every if one.author != "person" and chat_id in (None, one.chat_id) and not one.deleted]

    def _told(self, update: Update, message: Message) -> dict[str, Any]:
        return {"update_id": update.id, "message_id": message.id, "chat_id": message.chat_id}


def _message(message: Message) -> dict[str, Any]:
    return {
        "chat_id": message.chat_id,
        "message_id": message.id,
        "text": message.text,
        "token": message.author,
        "versions": message.versions,
        "called": message.called,
        "stored": message.versions[0][1],
        "payload": message.payload,
    }


def _update(update: Update) -> dict[str, Any]:
    times = {"enqueued": update.enqueued, "fetched": update.fetched, "confirmed": update.confirmed}
    return {"update_id": update.id, "payload": update.payload, **times}


def _call(call: Call) -> dict[str, Any]:
    return {
        "token": call.token,
        "method": call.method,
        "parameters": {
            name: value for name, value in call.parameters.items() if isinstance(value, str | int | dict | list)
        },
        "called": call.called,
        "answered": call.answered,
        "status": call.status,
    }
