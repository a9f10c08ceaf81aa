"""What a bot's settings may not be: a provider or a time zone that this installation does not have."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from fleet.kernel.exceptions import Invalid
from identities.actions.declared import read_declaration
from identities.models import Identity


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"provider_chain": ["claude", "klaude"]}, "There is no provider called klaude"),
        ({"timezone": "Mars/Olympus"}, "There is no time zone called Mars/Olympus"),
    ],
    ids=["provider", "time zone"],
)
def test_what_this_installation_does_not_have_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Identity(slug="ada", name="Ada", **changes).clean()


def test_the_settings_of_a_new_bot_are_fine() -> None:
    Identity(slug="ada", name="Ada").clean()


def test_a_file_that_names_an_unknown_provider_is_refused_whole() -> None:
    with pytest.raises(Invalid, match="There is no provider called klaude"):
        read_declaration("{version: 1, bots: [{slug: ada, name: Ada, providers: [klaude]}]}")
