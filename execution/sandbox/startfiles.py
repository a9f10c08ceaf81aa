"""What a shell runs of its own accord when it starts, which no bot writes: it would run with every command of every conversation.

The judge is asked about a command as it is written. What an alias or a function makes of it, he would not see.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings

# Claude's shell is a login shell, bash or zsh; bash reads none of its others where `.bash_profile` can be read.
NAMES = (".bash_profile", ".bashrc", ".zshenv", ".zprofile", ".zshrc", ".zlogin")


def blanks(home: Path) -> tuple[tuple[Path, Path], ...]:
    """Return what stands for these files in a bot's home, as (which, where): nothing, and nobody can change it there."""
    nothing = Path(settings.FLEET_RUNTIME_DIR) / "nothing"
    if not nothing.exists():
        nothing.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        nothing.touch(mode=0o444)
    return tuple((nothing, _with_way_made(home / name)) for name in NAMES)


def _with_way_made(path: Path) -> Path:
    """Return the path, with a file or nothing there: through a link something else would be covered, over a directory nothing can be."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    return path
