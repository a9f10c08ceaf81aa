"""Who is at the other end of a socket. Asked at the beginning and again while it is open: people sign out and lose rights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from identities.models import Person

# Close codes beyond the standard's: 4000 to 4999 are for applications.
SIGNED_OUT = 4401
NOT_ALLOWED = 4403
GONE_WRONG = 1011


class Closed(Exception):
    """The socket has to be closed with this code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(str(code))


def person_behind(scope: dict[str, Any]) -> Person:
    """Return who is signed in, read anew from the session's row; Closed when nobody is any more."""
    session = scope.get("session")
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session.session_key if session else None)
    person = get_user(request)
    if not isinstance(person, Person) or not person.is_active:
        raise Closed(SIGNED_OUT)
    return person
