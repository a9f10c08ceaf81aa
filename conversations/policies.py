"""Rules of conversations: what text is acceptable and how long a queue may grow."""

from __future__ import annotations

from conversations.models import Conversation, Delivery, Turn
from conversations.ports import has_sender, is_served, platform_of
from conversations.states import UNDELIVERED, DeliveryKind
from fleet.kernel import clock
from fleet.kernel.exceptions import Refused, StateConflict
from identities.models import Person
from identities.permissions import Permission

MAX_TEXT_BYTES = 64 * 1024
QUEUE_CAP = 20
STOP_WORDS = frozenset({"stop", "halt", "cancel"})


def readable(text: str) -> str:
    """Return `text` as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD, and no more than the limit."""
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    return clean[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def check_text(text: str) -> None:
    """Raise Refused for a text no bot can answer: empty, too long, or not proper Unicode."""
    if not text.strip():
        raise Refused("The message is empty.", next_step="Write what you want and send it again.", code="empty")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\x00" in text:
        raise Refused(
            "The message is not readable text.",
            why="It holds characters that are not valid Unicode.",
            next_step="Send it again as plain text.",
            code="unreadable",
        )
    if size > MAX_TEXT_BYTES:
        raise Refused(
            f"The message is too long: {size // 1024} kB.",
            why=f"A message may have at most {MAX_TEXT_BYTES // 1024} kB.",
            next_step="Send a shorter one, or put the material where the bot can read it.",
            code="too_long",
        )


def check_queue(waiting: int) -> None:
    """Raise Refused when a conversation already has as many waiting messages as it may have."""
    if waiting >= QUEUE_CAP:
        raise Refused(
            "The queue of this conversation is full.",
            why=f"{waiting} messages are waiting already.",
            next_step="Wait for an answer, or send /stop to clear the queue, then send it again.",
            code="queue_full",
        )


def check_can_set_busy_mode(conversation: Conversation, person: Person) -> None:
    """Raise Refused unless this person may decide it: who speaks in the conversation, or who may change its bot."""
    own = conversation.person_id == person.pk and Permission.BOT_TALK in person.permissions
    if not own and Permission.BOT_EDIT not in person.permissions:
        raise Refused(
            "You cannot change how this conversation treats messages while its bot works.",
            why="It is somebody else’s conversation."
            if conversation.person_id != person.pk
            else "You may not talk here.",
            next_step="Ask whoever speaks in it to send /busy there, or an administrator.",
            code="no_right",
        )


def may_set_busy_mode(conversation: Conversation, person: Person) -> bool:
    """Return whether this person may decide it."""
    try:
        check_can_set_busy_mode(conversation, person)
    except Refused:
        return False
    return True


def is_parked(turn: Turn) -> bool:
    """Return whether a waiting turn is not to be begun yet, since the logins that could answer it are shut."""
    return turn.parked_until is not None and turn.parked_until > clock.now()


def is_stop_word(text: str) -> bool:
    """Return whether a plain text means stop."""
    return text.strip().strip(".!").lower() in STOP_WORDS


def check_can_send_again(delivery: Delivery) -> None:
    """Raise StateConflict for a delivery that is on its way or has arrived, Refused for one that nobody would send."""
    if delivery.state not in UNDELIVERED:
        raise StateConflict(
            "This message cannot be sent again.",
            why=f"It is {delivery.get_state_display().lower()}.",
            next_step="Look at it again in its conversation.",
        )
    if delivery.kind == DeliveryKind.PROGRESS:
        raise Refused(
            "A note about progress is not sent later.",
            why="The turn it spoke of has moved on.",
            next_step="Send the answer of that turn instead.",
            code="overtaken",
        )
    if not is_served(delivery.account):
        place = platform_of(delivery.account).capitalize()
        sends = has_sender(delivery.account)
        raise Refused(
            f"Nobody would send this to {place} now.",
            why="The bot's account there has no token or is not served."
            if sends
            else f"Fleet does not send to {place}.",
            next_step="Set its token under Account, then ask again." if sends else "Read it here.",
            code="not_served",
        )


def can_send_again(delivery: Delivery) -> bool:
    """Return whether a person could have this delivery sent again now."""
    try:
        check_can_send_again(delivery)
    except (Refused, StateConflict):
        return False
    return True
