"""Secrets at rest: only the right key opens them, and only in the place they were sealed for."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel import masking, secrets
from fleet.kernel.secrets import SecretUnreadable

PLACE: dict[str, Any] = {"table": "gateway", "column": "token", "row": 7}


@pytest.fixture(autouse=True)
def own_keyset(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """A keyset of this test's own."""
    settings.FLEET_KEYSET = ""
    settings.FLEET_KEYSET_FILE = str(tmp_path / "keys" / "keyset.json")
    secrets._primitive.cache_clear()
    yield Path(settings.FLEET_KEYSET_FILE)
    secrets._primitive.cache_clear()


def test_a_sealed_secret_opens_in_its_own_place():
    sealed = secrets.seal("token-of-ada", **PLACE)

    assert b"token-of-ada" not in sealed
    assert secrets.unseal(sealed, **PLACE) == "token-of-ada"


def test_the_same_secret_never_seals_to_the_same_bytes():
    assert secrets.seal("token-of-ada", **PLACE) != secrets.seal("token-of-ada", **PLACE)


@pytest.mark.parametrize("moved", [{"row": 8}, {"column": "other"}, {"table": "other"}])
def test_a_secret_moved_to_another_place_does_not_open(moved: dict[str, object]):
    sealed = secrets.seal("token-of-ada", **PLACE)

    with pytest.raises(SecretUnreadable, match="Restore the keyset file"):
        secrets.unseal(sealed, **{**PLACE, **moved})


def test_a_changed_byte_does_not_open():
    sealed = bytearray(secrets.seal("token-of-ada", **PLACE))

    for position in range(len(sealed)):
        changed = bytes(sealed[:position]) + bytes([sealed[position] ^ 1]) + bytes(sealed[position + 1 :])
        with pytest.raises(SecretUnreadable):
            secrets.unseal(changed, **PLACE)


def test_plain_text_in_the_column_does_not_open():
    with pytest.raises(SecretUnreadable):
        secrets.unseal(b"token-of-ada", **PLACE)


def test_another_key_does_not_open(settings: Any, tmp_path: Path):
    sealed = secrets.seal("token-of-ada", **PLACE)
    settings.FLEET_KEYSET_FILE = str(tmp_path / "other.json")
    secrets._primitive.cache_clear()

    with pytest.raises(SecretUnreadable):
        secrets.unseal(sealed, **PLACE)


def test_the_keyset_may_come_from_the_setting(settings: Any, own_keyset: Path):
    sealed = secrets.seal("token-of-ada", **PLACE)
    settings.FLEET_KEYSET = own_keyset.read_text()
    own_keyset.unlink()
    secrets._primitive.cache_clear()

    assert secrets.unseal(sealed, **PLACE) == "token-of-ada"
    assert not own_keyset.exists()


def test_the_key_file_is_for_its_owner_only(own_keyset: Path):
    secrets.seal("token-of-ada", **PLACE)

    assert stat.S_IMODE(own_keyset.stat().st_mode) == 0o600
    assert list(own_keyset.parent.iterdir()) == [own_keyset]


def test_processes_that_start_together_agree_on_one_key(own_keyset: Path):
    ready = threading.Barrier(6)
    seen: list[str] = []

    def start() -> None:
        ready.wait(30)
        seen.append(secrets._keyset())

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(seen) == 6
    assert set(seen) == {own_keyset.read_text()}


def test_a_secret_that_went_through_here_is_masked_from_then_on():
    secrets.unseal(secrets.seal("token-of-mask-test", **PLACE), **PLACE)

    assert masking.mask("it was token-of-mask-test, he said") == "it was [secret], he said"
