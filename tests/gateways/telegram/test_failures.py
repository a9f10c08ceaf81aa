"""What a failed call means: only what surely was not sent may be sent again without a mark."""

import httpx
import pytest
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, NetworkError, RetryAfter, TimedOut

from gateways.telegram.failures import Meaning, understand


def caused_by(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (RetryAfter(7), Meaning.LATER),
        (InvalidToken("Unauthorized"), Meaning.LATER),
        (caused_by(NetworkError("x"), httpx.ConnectError("refused")), Meaning.LATER),
        (caused_by(TimedOut(), httpx.ConnectTimeout("slow")), Meaning.LATER),
        (caused_by(TimedOut(), httpx.PoolTimeout("full")), Meaning.LATER),
        (caused_by(TimedOut(), httpx.ReadTimeout("no answer")), Meaning.DOUBT),
        (caused_by(TimedOut(), httpx.WriteTimeout("stuck")), Meaning.DOUBT),
        (caused_by(NetworkError("x"), httpx.ReadError("reset")), Meaning.DOUBT),
        (caused_by(NetworkError("x"), httpx.RemoteProtocolError("hung up")), Meaning.DOUBT),
        (NetworkError("Bad Gateway"), Meaning.DOUBT),
        (Forbidden("Forbidden: bot was blocked by the user"), Meaning.NEVER),
        (BadRequest("Chat not found"), Meaning.NEVER),
        (BadRequest("Can't parse entities: unclosed tag"), Meaning.PLAIN),
        (BadRequest("Message thread not found"), Meaning.NO_THREAD),
        (ChatMigrated(-100777), Meaning.MOVED),
    ],
)
def test_each_failure_has_one_meaning(error, meaning):
    assert understand(error).meaning == meaning


def test_a_flood_says_how_long_to_wait():
    assert understand(RetryAfter(7)).retry_after == 7


def test_a_group_that_moved_says_where_to():
    assert understand(ChatMigrated(-100777)).chat_id == -100777
