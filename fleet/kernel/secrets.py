"""Secrets at rest: Tink AEAD with the place of storage as associated data: moved elsewhere, a ciphertext stays shut."""

from __future__ import annotations

import os
import secrets
from functools import cache
from pathlib import Path

import tink
from django.conf import settings
from tink import aead, secret_key_access

from fleet.kernel.exceptions import FleetError
from fleet.kernel.masking import register


class SecretUnreadable(FleetError):
    """A stored secret does not open with this installation's key."""

    code = "secret_unreadable"


@cache
def _primitive() -> aead.Aead:
    aead.register()
    handle = tink.json_proto_keyset_format.parse(_keyset(), secret_key_access.TOKEN)
    return handle.primitive(aead.Aead)  # type: ignore[type-abstract]


def _keyset() -> str:
    """Return the cleartext keyset: from the setting, else from the file, which is created once with mode 0600."""
    if settings.FLEET_KEYSET:
        return str(settings.FLEET_KEYSET)
    path = Path(settings.FLEET_KEYSET_FILE)
    if not path.exists():
        _create(path)
    return path.read_text()


def _create(path: Path) -> None:
    aead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    text = tink.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - mode at creation
        file.write(text)
    try:
        os.link(draft, path)  # the first process wins; nobody ever sees half a key
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _place(table: str, column: str, row: object) -> bytes:
    return f"{table}/{column}/{row}".encode()


def seal(secret: str, *, table: str, column: str, row: object) -> bytes:
    """Return the ciphertext of `secret`, bound to its table, column and row."""
    register(secret)
    return _primitive().encrypt(secret.encode(), _place(table, column, row))


def unseal(ciphertext: bytes, *, table: str, column: str, row: object) -> str:
    """Return the secret; SecretUnreadable for a wrong key, a moved row or a changed byte."""
    try:
        secret = _primitive().decrypt(bytes(ciphertext), _place(table, column, row)).decode()
    except tink.TinkError as error:
        raise SecretUnreadable(
            f"The secret in {table}.{column} does not open.",
            why="It was sealed with another key or for another row.",
            next_step="Restore the keyset file, or enter the secret again.",
        ) from error
    register(secret)
    return secret
