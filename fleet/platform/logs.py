"""Several log files as one stream on the terminal, each line after the name of its service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COLOURS = {"gateways": 35, "postgres": 34, "runner": 33, "valkey": 31, "web": 32, "worker": 36}
LONGEST_LINE = 64 * 1024


@dataclass
class LogFile:
    """A growing log file, read from where it ended when we began; a rotated one is followed into its successor."""

    path: Path
    offset: int = 0
    inode: int = 0

    def __post_init__(self) -> None:
        if self.path.exists():
            status = self.path.stat()
            self.offset, self.inode = status.st_size, status.st_ino

    def new_lines(self) -> Iterator[str]:
        """Yield the complete lines that came since the last call."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.inode or status.st_size < self.offset:
                    self.offset, self.inode = 0, status.st_ino
                file.seek(self.offset)
                while (line := file.readline(LONGEST_LINE)).endswith(b"\n") or len(line) == LONGEST_LINE:
                    self.offset += len(line)
                    yield line.decode(errors="replace").rstrip("\r\n")
        except FileNotFoundError:
            return


class LogStream:
    """The logs of all services, in the order they are found to have grown."""

    def __init__(self, files: dict[str, Path], *, coloured: bool) -> None:
        self.files = {name: LogFile(path) for name, path in files.items()}
        self.coloured = coloured
        self.width = max(map(len, files), default=0)

    def new_lines(self) -> Iterator[str]:
        """Yield what was written since the last call, ready to print."""
        for name, file in self.files.items():
            for line in file.new_lines():
                yield f"{self._prefix(name)} {line}"

    def _prefix(self, name: str) -> str:
        text = f"{name:<{self.width}} |"
        return f"\033[{COLOURS.get(name, 37)}m{text}\033[0m" if self.coloured else text
