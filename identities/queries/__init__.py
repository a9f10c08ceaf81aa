"""Reads of people and bots; no side effects."""

from identities.queries.bindings import ServerView, connections, server_views, unsandboxed
from identities.queries.bots import compiled, find_identity, get_identity, identities
from identities.queries.declared import declared_fleet
from identities.queries.people import (
    find_access_token,
    find_person,
    find_sign_in_link,
    first_admin,
    get_person,
    pending_codes,
)

__all__ = [
    "ServerView",
    "compiled",
    "connections",
    "declared_fleet",
    "find_access_token",
    "find_identity",
    "find_person",
    "find_sign_in_link",
    "first_admin",
    "get_identity",
    "get_person",
    "identities",
    "pending_codes",
    "server_views",
    "unsandboxed",
]
