"""Who calls the API: the owner of a personal token, or a gateway with its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from identities import actions, queries

if TYPE_CHECKING:
    from identities.models import AccessToken, Person

_SCHEME = "bearer"
CHALLENGE = 'Bearer realm="fleet"'


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`; the request's `auth` is the AccessToken, its `user` the token's owner."""

    def authenticate(self, request: Request) -> tuple[Person, AccessToken] | None:
        """Return the token's owner and the token, None without a Bearer header; a wrong token raises."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != _SCHEME:
            return None
        token = queries.find_access_token(text.strip())
        if token is None:
            raise AuthenticationFailed("The access token is not valid.", code="wrong_token")
        actions.note_token_used(token=token)
        return token.person, token

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401."""
        return CHALLENGE
