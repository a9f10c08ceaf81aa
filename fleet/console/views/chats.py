"""Conversations: reading, following, speaking, stopping. Every write works as a plain form too."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.contrib import messages as notes
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from conversations import actions, policies, queries
from conversations.models import Conversation, Turn
from conversations.ports import UnifiedMessage
from fleet.console.forms import MESSAGE_LIMIT, MessageForm, NewChatForm
from fleet.console.presenters import ChatPage
from fleet.console.screens import chats, deliveries
from fleet.console.screens.bots import bot_name
from fleet.console.views.answers import actor_of, complaints, number, pager, person_of, show
from fleet.kernel.exceptions import FleetError, Invalid, NotFound, Refused
from identities import policies as identity_policies
from identities import queries as identity_queries
from identities.models import Identity
from identities.permissions import Permission

BOTS_OFFERED = 200
_UNUSABLE = 422


@require_safe
def chat_list(request: HttpRequest) -> HttpResponse:
    """Conversations, the latest first."""
    person = person_of(request)
    rows, following = chats.conversation_rows(person, before=_moment(request))
    onward = f"{following[0].isoformat()},{following[1]}" if following else None
    context = {
        "rows": rows,
        "pager": pager(request, before=onward),
        "bots": [bot_name(bot) for bot in identity_queries.identities()[:BOTS_OFFERED]],
        "may_talk": Permission.BOT_TALK in person.permissions,
    }
    return show(request, "chat/list.html", context, part="rows")


@require_http_methods(["GET", "HEAD", "POST"])
def new_chat(request: HttpRequest) -> HttpResponse:
    """A conversation that does not exist yet: its first message makes it."""
    bot = identity_queries.get_identity(request.POST.get("bot") or request.GET.get("bot", ""))
    if request.method != "POST":
        return _composing(request, chats.new_chat(bot), bot=bot, place=uuid.uuid4())
    form = NewChatForm(request.POST)
    if not form.is_valid():
        return _unusable(request, form, chats.new_chat(bot), bot=bot, place=request.POST.get("place") or uuid.uuid4())
    place = form.cleaned_data["place"]
    try:
        opened = _send(request, bot, f"{person_of(request).pk}:{place}", form.cleaned_data)
    except FleetError as error:
        form.add_error("text", error.sentence)
        return _unusable(request, form, chats.new_chat(bot), bot=bot, place=place)
    return _begun(request, opened)


@require_safe
def conversation(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """One conversation, live."""
    person = person_of(request)
    row = queries.get_conversation(conversation_id, person=person)
    return _composing(request, chats.chat_page(row, person, before=number(request, "before")))


@require_http_methods(["GET", "HEAD", "POST"])
def messages(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """GET: what came after a message or before it, as a fragment. POST: say something."""
    person = person_of(request)
    row = queries.get_conversation(conversation_id, person=person)
    if request.method != "POST":
        page = chats.chat_page(row, person, before=number(request, "before"), after=number(request, "after"))
        return show(request, "chat/conversation.html", {"page": page}, part="items")
    why_not = chats.why_not_here(row, person)
    if why_not:
        raise Refused("You cannot write here.", why=why_not, next_step="Start a chat of your own with this bot.")
    return _say(request, row)


@require_safe
def message(request: HttpRequest, conversation_id: int, message_id: int) -> HttpResponse:
    """One message as it is shown in the transcript."""
    person = person_of(request)
    row = queries.get_conversation(conversation_id, person=person)
    page = chats.chat_page(row, person, after=message_id - 1)
    item = next((item for item in page.items if item.id == str(message_id)), None)
    if item is None:
        raise NotFound("There is no such message here.", next_step="Reload the conversation.")
    return show(request, "chat/_item.html", {"item": item})


@require_POST
def stop_turn(request: HttpRequest, turn_id: int) -> HttpResponse:
    """Stop one turn: a waiting one at once, a running one as soon as its process is proven gone."""
    person = person_of(request)
    turn: Turn = queries.get_turn(turn_id, person=person)
    if turn.person_id != person.pk:
        identity_policies.check_can(person, Permission.TURN_STOP)
    actions.stop_turn(turn_id=turn.pk, by=actor_of(request), reason=f"{person.get_username()} pressed Stop")
    return _done(request, turn.conversation_id)


@require_POST
def busy_mode(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """Decide what happens here to a message that finds the bot busy."""
    row = queries.get_conversation(conversation_id, person=person_of(request))
    policies.check_can_set_busy_mode(row, person_of(request))
    actions.set_busy_mode(conversation=row, mode=request.POST.get("mode", ""), by=actor_of(request))
    return redirect("console:conversation", row.pk)


@require_http_methods(["GET", "HEAD", "POST"])
def delivery(request: HttpRequest, delivery_id: int) -> HttpResponse:
    """GET: how far a message got on its way. POST: have one sent that was withheld or did not arrive."""
    person = person_of(request)
    row, place = queries.get_delivery(delivery_id, person=person)
    trouble = ""
    if request.method == "POST":
        try:
            row = actions.send_anyway(delivery_id=row.pk, by=actor_of(request))
        except FleetError as error:
            trouble = error.sentence
        if not getattr(request, "htmx", False):
            return _back_to(request, place, trouble)
        row.refresh_from_db()
    view = deliveries.delivery_view(row, may_send=deliveries.may_send_again(row, person))
    return show(request, "chat/_delivery.html", {"delivery": view, "trouble": trouble})


def _back_to(request: HttpRequest, place: Conversation, trouble: str) -> HttpResponse:
    if trouble:
        notes.error(request, trouble)
    return redirect("console:conversation", place.pk)


def _say(request: HttpRequest, row: Conversation) -> HttpResponse:
    form = MessageForm(request.POST)
    if form.is_valid():
        try:
            _send(request, row.identity, row.chat_id, form.cleaned_data, thread_id=row.thread_id)
        except FleetError as error:
            form.add_error("text", error.sentence)
    if form.errors:
        return _unusable(request, form, chats.chat_page(row, person_of(request)))
    return _done(request, row.pk)


def _send(
    request: HttpRequest, bot: Identity, chat_id: str, said: dict[str, Any], *, thread_id: str = ""
) -> int | None:
    """Hand the message in and return its conversation, None for one that is still being looked at; raise its refusal."""
    person = person_of(request)
    unified = UnifiedMessage(
        account=f"web:{bot.slug}",
        event_id=f"{person.pk}:{said['key']}",
        identity_slug=bot.slug,
        chat_id=chat_id,
        thread_id=thread_id,
        sender_id=str(person.pk),
        sender_name=person.get_full_name() or person.get_username(),
        person_id=person.pk,
        text=said["text"],
    )
    received, intake = actions.accept(unified, by=actor_of(request))
    if intake.refusal is not None:
        told = intake.refusal
        raise Refused(told["what"], why=told["why"], next_step=told["next_step"], code=told["code"])
    return chats.conversation_of(received.inbound_id)


def _composing(request: HttpRequest, page: ChatPage, *, status: int = 200, **extra: Any) -> HttpResponse:
    context = {"page": page, "message_key": uuid.uuid4(), "text_limit": MESSAGE_LIMIT, **extra}
    return show(request, "chat/conversation.html", context, status=status)


def _unusable(request: HttpRequest, form: MessageForm, page: ChatPage, **extra: Any) -> HttpResponse:
    """Give the text back with the reason; nobody has to write it twice."""
    told = complaints(form)
    if getattr(request, "htmx", False):
        return show(request, "chat/_composer_error.html", {"composer_error": told}, status=_UNUSABLE)
    extra |= {"composer_error": told, "draft": form.data.get("text", "")}
    return _composing(request, page, status=_UNUSABLE, **extra)


def _begun(request: HttpRequest, opened: int | None) -> HttpResponse:
    address = reverse("console:conversation", args=[opened]) if opened else reverse("console:chat")
    if getattr(request, "htmx", False):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return redirect(address)


def _done(request: HttpRequest, conversation_id: int) -> HttpResponse:
    """Answer a write: the page that sent it fetches what changed, a plain form goes back to the conversation."""
    if getattr(request, "htmx", False):
        return HttpResponse(status=204)
    return redirect("console:conversation", conversation_id)


def _moment(request: HttpRequest) -> tuple[dt.datetime, int] | None:
    """Return the (time, id) of the address that the list goes on from."""
    text = request.GET.get("before", "")
    if not text:
        return None
    moment, _, key = text.partition(",")
    try:
        return dt.datetime.fromisoformat(moment.replace(" ", "+")), int(key)
    except ValueError:
        raise Invalid("The address does not say where to go on.", next_step="Go back to the first page.") from None
