"""A directory in which somebody writes whom we do not trust: nothing that is done there leads anywhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.kernel import distrusted

FILE = "sessions/today/notes.txt"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of somebody else, with one file."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "notes.txt").write_text("precious")
    return directory


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory that is written in by both."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def root(place: Path) -> Iterator[int]:
    """Its descriptor."""
    with distrusted.opened(place) as descriptor:
        yield descriptor


def unharmed(outside: Path) -> bool:
    return {path.name: path.read_text() for path in outside.iterdir()} == {"notes.txt": "precious"}


def test_a_file_is_written_with_its_directories_and_read_again(root: int, place: Path) -> None:
    distrusted.replace(root, FILE, b"words")
    assert distrusted.read(root, FILE, at_most=5) == b"words"
    assert [path.name for path in place.rglob("*")] == ["sessions", "today", "notes.txt"], "and no draft is left"


def test_a_private_one_is_for_nobody_else(root: int, place: Path) -> None:
    distrusted.replace(root, FILE, b"words", private=True)
    modes = [
        stat.S_IMODE(os.lstat(path).st_mode) for path in (place / "sessions", place / "sessions/today", place / FILE)
    ]
    assert modes == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("victim", ["sessions", "sessions/today", FILE])
def test_a_link_in_the_way_is_replaced_and_not_followed(root: int, place: Path, outside: Path, victim: str) -> None:
    distrusted.replace(root, FILE, b"words")
    (place / victim).rename(place / "moved")
    (place / victim).symlink_to(outside / "notes.txt" if victim == FILE else outside)
    assert distrusted.read(root, FILE, at_most=100) is None
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        distrusted.open_plain(root, FILE)
    distrusted.replace(root, FILE, b"again")
    assert (place / FILE).read_bytes() == b"again"
    assert unharmed(outside)


def test_nothing_is_removed_behind_a_link(root: int, place: Path, outside: Path) -> None:
    (place / "sessions").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        distrusted.remove(root, "sessions/notes.txt")
    assert unharmed(outside)


def test_a_directory_that_became_empty_goes_with_its_last_file(root: int, place: Path) -> None:
    distrusted.replace(root, FILE, b"words")
    distrusted.replace(root, "sessions/today/more.txt", b"words")
    distrusted.remove(root, FILE)
    assert (place / "sessions/today").is_dir()
    distrusted.remove(root, "sessions/today/more.txt")
    assert not (place / "sessions/today").exists()


@pytest.mark.parametrize("file", ["../outside/notes.txt", "sessions/../../outside/notes.txt", "/etc/hostname", "", "."])
def test_a_name_that_leads_out_is_refused(root: int, outside: Path, file: str) -> None:
    assert distrusted.read(root, file, at_most=100) is None
    for act in (lambda: distrusted.replace(root, file, b"words"), lambda: distrusted.remove(root, file)):
        with pytest.raises(OSError, match="leads out of its directory"):
            act()
    assert unharmed(outside)


def test_a_pipe_holds_nobody(root: int, place: Path) -> None:
    os.mkfifo(place / "pipe")
    assert distrusted.read(root, "pipe", at_most=100) is None


def test_the_directory_itself_must_not_be_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"), distrusted.opened(tmp_path / "link"):
        pass


def test_a_directory_that_becomes_a_link_all_the_time_leads_nobody_out(root: int, place: Path, outside: Path) -> None:
    """Somebody exchanges a directory for a link, and back, while files are written through it."""
    over = threading.Event()

    def exchange() -> None:
        directory, aside = place / "sessions", place / "aside"
        while not over.is_set():
            shutil.rmtree(aside, ignore_errors=True)
            with contextlib.suppress(OSError):  # it is not there, or was made again
                directory.rename(aside)
                directory.symlink_to(outside)
                directory.unlink()

    rival = threading.Thread(target=exchange, daemon=True)
    rival.start()
    written = 0
    for number in range(1000):
        try:
            distrusted.replace(root, f"sessions/{number}.txt", b"words")
            written += 1
        except OSError:  # a directory that went away meanwhile
            continue
    assert rival.is_alive()
    over.set()
    rival.join(10)
    assert written
    assert unharmed(outside)
