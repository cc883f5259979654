"""The folder of a run of `pipeline dev`: emptied at the start, and only if it is one."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

__all__ = ["MARKER", "claimed"]

#: Tells a folder that runs have made from any other, and is locked while one is using it.
MARKER: Final = ".made-by-pipeline-dev"


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """
    *folder*, empty and ours until the end of the block; what a former run left in it is removed.

    Raises:
        ConfigError: it holds something else, is in use by another run, or cannot be used.
    """
    marker = folder / MARKER
    try:
        if not marker.exists() and folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"--folder: {folder} holds other files; name an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = marker.open("w")
    except OSError as error:
        raise ConfigError(f"--folder: {folder} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"--folder: {folder} is in use by another run; name another") from error
        _empty(folder)
        yield folder


def _empty(folder: Path) -> None:
    for inside in folder.iterdir():
        if inside.is_dir() and not inside.is_symlink():
            shutil.rmtree(inside)
        elif inside.name != MARKER:
            inside.unlink()
