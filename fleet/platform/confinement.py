"""How a server of ours is started: without root, without our secrets, and never outliving its parent.

`setpriv` (util-linux, part of every Debian) does all three. PostgreSQL refuses to run as root, and a checkout below
/root cannot be entered by anybody else, so as root a server runs as `nobody` with the one capability that lets it
reach its own files. Nothing on the machine is changed for that: no user is made, no directory is opened.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal

SERVER_ACCOUNT = "nobody"


def confined(command: list[str], *, dies_with_parent: signal.Signals | None = None) -> list[str]:
    """Return `command` so that it runs with an empty environment and, if we are root, as `nobody`.

    `dies_with_parent` is the signal the server gets when the *thread* that started it ends.
    Where there is no setpriv (macOS) the command is returned as it is; root without setpriv is an error.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if is_root():
            raise FileNotFoundError("As root Fleet needs `setpriv` (package util-linux) to start PostgreSQL as nobody.")
        return command
    options = ["--reset-env"]
    if dies_with_parent is not None:
        options += ["--pdeathsig", dies_with_parent.name.removeprefix("SIG")]
    if is_root():
        account = server_account()
        options += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        options += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
        options += ["--securebits=+no_setuid_fixup"]  # or access(2), by which initdb finds its programs, forgets it
    return [setpriv, *options, "--", *command]


def tethered(command: list[str], *, sends: signal.Signals) -> list[str]:
    """Return `command` so that it is sent `sends` when the thread that started it ends; as it is without setpriv."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", sends.name.removeprefix("SIG"), "--", *command] if setpriv else command


def give_to_server(path: str | os.PathLike[str]) -> None:
    """Make the account the servers run as the owner of `path`. Only root has, and needs, such a choice."""
    if is_root():
        account = server_account()
        os.chown(path, account.pw_uid, account.pw_gid)


def is_root() -> bool:
    """Say whether this process is root."""
    return os.geteuid() == 0


def server_account() -> pwd.struct_passwd:
    """Return the account that servers started by root run as."""
    return pwd.getpwnam(SERVER_ACCOUNT)
