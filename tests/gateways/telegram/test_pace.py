"""A chat gets a few messages at once, then as many as Telegram allows; after a refusal nothing until it is over."""

import pytest

from gateways.telegram.pace import BURST, GROUP_SECONDS, PRIVATE_SECONDS, Pace

EVA, TEAM = ("telegram:ada", 501), ("telegram:ada", -100501)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pace(clock):
    return Pace(clock)


def send(pace, chat, times):
    for _ in range(times):
        pace.count(chat)


def test_a_short_burst_goes_at_once(pace):
    send(pace, EVA, BURST - 1)
    assert pace.wait(EVA) == 0


@pytest.mark.parametrize(("chat", "step"), [(EVA, PRIVATE_SECONDS), (TEAM, GROUP_SECONDS)])
def test_after_the_burst_messages_are_earned_one_by_one(pace, clock, chat, step):
    send(pace, chat, BURST)
    assert pace.wait(chat) == pytest.approx(step)
    clock.now += step
    assert pace.wait(chat) == 0
    pace.count(chat)
    assert pace.wait(chat) == pytest.approx(step)


def test_a_penalty_silences_its_chat_and_no_other(pace, clock):
    pace.silence(EVA, 30)
    assert pace.wait(EVA) == pytest.approx(30)
    assert pace.wait(("telegram:ada", 502)) == 0
    clock.now += 30
    assert pace.wait(EVA) == 0


def test_the_same_chat_of_two_bots_is_two_chats(pace):
    pace.silence(EVA, 30)
    assert pace.wait(("telegram:bob", 501)) == 0


def test_forgetting_changes_nothing_that_still_counts(pace, clock):
    send(pace, EVA, BURST)
    pace.silence(TEAM, 30)
    pace.forget()
    assert pace.wait(EVA) > 0
    assert pace.wait(TEAM) > 0
    clock.now += 1000
    pace.forget()
    assert pace.wait(EVA) == pace.wait(TEAM) == 0
