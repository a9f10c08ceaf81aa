"""What is written when, and how it is cleaned and counted."""

import pytest

from execution.cleaning import clean
from execution.engine import transcript as module
from execution.engine.transcript import Transcript
from execution.ports import (
    Finished,
    Notice,
    RateLimited,
    Started,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    UsageReported,
)
from execution.states import EventKind, OutcomeClass


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def written() -> list:
    return []


@pytest.fixture
def metered() -> list:
    return []


@pytest.fixture
def transcript(time: Clock, written: list, metered: list) -> Transcript:
    return Transcript(write=written.append, meter=lambda usages: metered.extend(usages))


def test_the_first_words_are_written_at_once(transcript: Transcript, written: list) -> None:
    transcript.take(TextDelta("Good"))
    assert written == [[(EventKind.TEXT, {"text": "Good"})]]


def test_later_words_wait_for_each_other(transcript: Transcript, written: list, time: Clock) -> None:
    for word in ("Good", " day", ", Eva"):
        transcript.take(TextDelta(word))
    assert len(written) == 1
    time.now += module.COALESCE_SECONDS * 1.01
    transcript.flush(only_due=True)
    assert written[1] == [(EventKind.TEXT, {"text": " day, Eva"})]
    assert transcript.text == "Good day, Eva"


def test_nothing_else_waits_and_the_order_is_kept(transcript: Transcript, written: list) -> None:
    transcript.take(TextDelta("Let me look."))
    transcript.take(TextDelta(" One moment."))
    transcript.take(ToolStarted("call-1", "Read", "notes.md"))
    assert [kind for line in written for kind, _ in line] == [EventKind.TEXT, EventKind.TEXT, EventKind.TOOL_STARTED]


def test_usage_is_posted_at_most_twice_a_second_while_a_message_is_written(
    transcript: Transcript, metered: list, time: Clock
) -> None:
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10)))
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10, output=5)))
    assert metered == []
    time.now += module.METER_SECONDS * 1.01
    transcript.flush(only_due=True)
    assert [usage.output for usage in metered] == [5]


def test_usage_of_a_complete_message_is_posted_at_once(transcript: Transcript, metered: list) -> None:
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10, output=1)))
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10, output=7), complete=True))
    transcript.take(UsageReported(Usage("m2", "model", input_uncached=10, output=1)))
    assert [(usage.message_id, usage.output) for usage in metered] == [("m1", 7)]


def test_a_message_reported_again_counts_with_its_highest_numbers(transcript: Transcript) -> None:
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10, output=7)))
    transcript.take(UsageReported(Usage("m1", "model", input_uncached=10, output=1)))
    transcript.take(UsageReported(Usage("m2", "model", input_uncached=1, output=1)))
    assert (transcript.tokens()["input_uncached"], transcript.tokens()["output"]) == (11, 8)


def test_a_report_that_says_nothing_new_is_not_posted_again(transcript: Transcript, metered: list) -> None:
    for _ in range(3):
        transcript.take(UsageReported(Usage("m1", "model", output=7)))
        transcript.meter()
    assert len(metered) == 1


def test_what_postgresql_cannot_store_is_cleaned() -> None:
    assert clean("a\x00b\ud800c") == "ab?c"


def test_targets_and_summaries_are_bounded(transcript: Transcript, written: list) -> None:
    transcript.take(ToolStarted("c", "Bash", "x" * 5000))
    transcript.take(ToolFinished("c", True, "y" * 5000))
    (_, started), (_, finished) = (line[0] for line in written)
    assert (len(started["target"]), len(finished["summary"])) == (500, 2000)


def test_asides_of_other_threads_are_written_with_the_next_batch(transcript: Transcript, written: list) -> None:
    transcript.aside(EventKind.TOOL_DENIED, tool="Bash")
    transcript.flush(only_due=True)
    assert written == [[(EventKind.TOOL_DENIED, {"tool": "Bash"})]]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Started("s", "1.0", "model"), EventKind.STARTED),
        (RateLimited("rejected", None, "five_hour"), EventKind.RATE_LIMIT),
        (Notice("again"), EventKind.NOTICE),
    ],
)
def test_every_kind_of_event_becomes_a_line(transcript: Transcript, written: list, event, kind: EventKind) -> None:
    transcript.take(event)
    assert written[0][0][0] == kind


def test_what_lasts_is_told_with_the_answer_once_whoever_heard_it(transcript: Transcript) -> None:
    transcript.take(Notice("The API answered HTTP 500; trying again."))
    assert transcript.told() == {}
    transcript.recall(Notice("I start afresh.", lasting=True))
    transcript.take(Notice("Another model\x00 answers.", lasting=True))
    transcript.take(Notice("I start afresh.", lasting=True))
    assert transcript.told() == {"told": ["I start afresh.", "Another model answers."]}


def test_the_end_itself_is_no_line(transcript: Transcript, written: list) -> None:
    transcript.take(Finished(OutcomeClass.OK, text="Good day."))
    assert written == []
