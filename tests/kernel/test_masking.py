"""No known secret leaves the process in a text."""

from __future__ import annotations

import pytest

from fleet.kernel import masking


@pytest.fixture(autouse=True)
def no_secrets_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests."""
    monkeypatch.setattr(masking, "_known", ())


def test_a_registered_secret_is_masked_wherever_it_stands():
    masking.register("hunter2hunter2")

    assert masking.mask("hunter2hunter2, and again:hunter2hunter2!") == "[secret], and again:[secret]!"


def test_of_two_secrets_the_longer_is_masked_whole():
    masking.register("sk-ant-1")
    masking.register("sk-ant-1-and-more")

    assert masking.mask("key=sk-ant-1-and-more") == "key=[secret]"


def test_short_values_are_left_alone_as_they_would_black_out_words():
    masking.register("a")
    masking.register("")

    assert masking.mask("a banana") == "a banana"


def test_a_log_entry_is_masked_however_deep():
    masking.register("hunter2hunter2")

    event = {"event": "x hunter2hunter2", "inner": {"list": ["hunter2hunter2"], "pair": ("hunter2hunter2", 1)}, "n": 3}

    assert masking.mask_event(None, "info", event) == {
        "event": "x [secret]",
        "inner": {"list": ["[secret]"], "pair": ("[secret]", 1)},
        "n": 3,
    }
