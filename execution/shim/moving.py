"""What goes through a shim: the worker's frames to the CLI, the CLI's words to the worker, and a spool of both. Standard library only.

    worker → shim   frames: one letter, four bytes of length, that many bytes
                    D  a line for the CLI            E  close the CLI's input
                    R  the spend gate opens: name of the run, epoch, and what a successor has to know, NUL-separated
                    S  the run of this name is settled: whoever comes later finds nothing to take over
    shim → worker   what the CLI writes, as it comes

Between R and S the shim keeps all that passes, so that another worker can hear it again from the beginning. A frame counts when it is
here as a whole: a worker that dies in the middle of a line has not said it.
"""

import _socket  # `socket` itself would double the time to start
import os

PIECE = 65536
HEADER = 5
STDERR_KEPT = 4096


class Cli:
    """The CLI's process and our ends of its pipes; an end that is closed is -1."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, stdin, stdout, stderr
        self.end = os.pidfd_open(pid)
        for descriptor in (stdin, stdout, stderr):
            os.set_blocking(descriptor, False)


class Spool:
    """The traffic of one run in two files without names. `whole` is False once something is missing: then nobody can take over."""

    def __init__(self, directory: bytes, name: bytes, most: int) -> None:
        self.whole = bool(directory) and most > 0
        self._most = most
        self._files = [self._file(directory + b"/" + name + end) for end in (b".in", b".out")] if self.whole else []
        self.said, self.heard = 0, 0  # bytes to the CLI, bytes from it

    def _file(self, path: bytes) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)  # noqa: PTH108 - importing pathlib doubles the time to start
        return file

    def begin(self) -> None:
        """Forget what was; from here on everything is kept."""
        self.said = self.heard = 0
        self.whole = bool(self._files)
        for file in self._files:
            os.ftruncate(file, 0)

    def has_room(self) -> bool:
        """Return whether another piece from the CLI may come."""
        return self.said + self.heard + PIECE <= self._most

    def keep_said(self, piece: bytes) -> None:
        """Keep a line to the CLI."""
        if self._kept(0, self.said, piece):
            self.said += len(piece)

    def keep_heard(self, piece: bytes) -> None:
        """Keep what the CLI wrote."""
        if self._kept(1, self.heard, piece):
            self.heard += len(piece)

    def _kept(self, which: int, offset: int, piece: bytes) -> bool:
        if self.whole:
            try:
                room = self.said + self.heard + len(piece) <= self._most
                self.whole = room and os.pwrite(self._files[which], piece, offset) == len(piece)
            except OSError:
                self.whole = False  # the disk is full: the run goes on, but nobody can take it over
        return self.whole

    def all_said(self) -> bytes:
        """Return all lines to the CLI."""
        return os.pread(self._files[0], self.said, 0)

    def heard_from(self, offset: int) -> bytes:
        """Return the next piece from the CLI."""
        return os.pread(self._files[1], min(PIECE, self.heard - offset), offset)


class Mover:
    """Moves bytes between a CLI and whoever works with it; `worker` is its socket, -1 while nobody is there."""

    def __init__(self, cli: Cli, spool: Spool, worker: int) -> None:
        self.cli, self.spool, self.worker = cli, spool, worker
        self.run = (b"", -1, b"")  # name, epoch, what a successor has to know
        self.is_released = False
        self.errors = b""
        self._frames = bytearray()
        self._to_cli = b""
        self._to_worker = b""
        self._replayed = -1  # how much of the spool the worker has; -1: all of it
        self._late = b""  # what came meanwhile and no longer fitted into the spool
        self._input_ended = False
        self._end_told = False
        os.set_blocking(worker, False)

    def can_change_hands(self) -> bool:
        """Return whether another worker could take over what runs."""
        return self.is_released and self.spool.whole

    # --- Who works with it ---------------------------------------------------------------------------------------------

    def attach(self, worker: int) -> None:
        """Serve this worker, from the beginning of the run on."""
        self.detach()
        os.set_blocking(worker, False)
        self.worker, self._replayed, self._end_told = worker, 0, False

    def detach(self) -> None:
        """Nobody is there: what is half said is not said, and what is not heard waits in the spool."""
        if self.worker >= 0:
            os.close(self.worker)
        self.worker, self._to_worker, self._late, self._replayed = -1, b"", b"", -1
        self._frames.clear()

    # --- What to wait for ----------------------------------------------------------------------------------------------

    def hears(self) -> list[int]:
        """Return the descriptors from which something may be read now."""
        ends = [self.cli.stderr]
        if self._may_hear_cli():
            ends.append(self.cli.stdout)
        if not self._to_cli:
            ends.append(self.worker)
        return [end for end in ends if end >= 0]

    def speaks(self) -> list[int]:
        """Return the descriptors to which something waits to be written."""
        ends = [self.cli.stdin] if self._to_cli else []
        if self._to_worker or self._replayed >= 0:
            ends.append(self.worker)
        return [end for end in ends if end >= 0]

    def _may_hear_cli(self) -> bool:
        if self.worker >= 0 and self._replayed < 0:
            return not self._to_worker
        return self.spool.has_room() if self.spool.whole else not self._late

    def is_flushed(self) -> bool:
        """Return whether the worker has everything, or nobody is there to have it."""
        return self.worker < 0 or (self.cli.stdout < 0 and not self._to_worker and self._replayed < 0)

    # --- Moving --------------------------------------------------------------------------------------------------------

    def move(self, ready: set[int]) -> None:
        """Read and write what can be read and written."""
        if self.cli.stderr in ready:
            self.take_errors()
        if self.worker in ready and not self._to_cli:
            self._take_frames()
        if self._to_cli or self._input_ended:
            self._tell_cli()
        if self.cli.stdout in ready:
            self._take_output()
        self._tell_worker()

    def take_errors(self) -> None:
        """Keep the end of what the CLI writes to stderr."""
        piece = read(self.cli.stderr) if self.cli.stderr >= 0 else None
        if piece == b"":
            os.close(self.cli.stderr)
            self.cli.stderr = -1
        self.errors = (self.errors + (piece or b""))[-STDERR_KEPT:]

    def _take_output(self) -> None:
        piece = read(self.cli.stdout)
        if piece == b"":
            os.close(self.cli.stdout)
            self.cli.stdout = -1
        elif piece:
            if self.is_released:
                self.spool.keep_heard(piece)
            if self._replayed < 0:
                self._to_worker += piece if self.worker >= 0 else b""
            elif not self.spool.whole:
                self._late += piece

    def _tell_worker(self) -> None:
        if self.worker >= 0 and not self._to_worker and self._replayed >= 0:
            self._replay()
        if self.worker >= 0 and self._to_worker:
            self._to_worker = written(self.worker, self._to_worker)
        if self.worker >= 0 and not self._end_told and self.is_flushed():
            self._end_told = True
            half_close(self.worker)

    def _replay(self) -> None:
        piece = self.spool.heard_from(self._replayed)
        self._replayed = self._replayed + len(piece) if piece else -1
        self._to_worker, self._late = (piece, self._late) if piece else (self._late, b"")

    def _tell_cli(self) -> None:
        if self.cli.stdin >= 0:
            self._to_cli = written(self.cli.stdin, self._to_cli)
        else:
            self._to_cli = b""
        if self._input_ended and not self._to_cli and self.cli.stdin >= 0:
            os.close(self.cli.stdin)
            self.cli.stdin = -1

    def _take_frames(self) -> None:
        piece = read(self.worker)
        if piece == b"":
            self.detach()
        self._frames += piece or b""
        while len(self._frames) >= HEADER:
            end = HEADER + int.from_bytes(self._frames[1:HEADER], "big")
            if len(self._frames) < end:
                return
            kind, content = self._frames[:1], bytes(self._frames[HEADER:end])
            del self._frames[:end]
            self._obey(bytes(kind), content)

    def _obey(self, kind: bytes, content: bytes) -> None:
        if kind == b"D":
            if self.is_released:
                self.spool.keep_said(content)
            self._to_cli += content
        elif kind == b"E":
            self._input_ended = True
        elif kind == b"R":
            name, epoch, memo = content.split(b"\0", 2)
            self.run, self.is_released = (name, int(epoch), memo), True
            self.spool.begin()
        elif kind == b"S" and content == self.run[0]:  # another one may have begun meanwhile
            self.is_released = False


def read(end: int) -> bytes | None:
    """Return the next piece, nothing at the end, None when there is none yet."""
    try:
        return os.read(end, PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def written(end: int, content: bytes) -> bytes:
    """Write what goes, and return what is left; nothing is left for somebody who does not read any more."""
    try:
        return content[os.write(end, content) :]
    except BlockingIOError:
        return content
    except OSError:
        return b""


def half_close(end: int) -> None:
    """Say that nothing more comes."""
    duplicate = _socket.socket(fileno=os.dup(end))
    try:
        duplicate.shutdown(_socket.SHUT_WR)
    except OSError:
        pass
    duplicate.close()
