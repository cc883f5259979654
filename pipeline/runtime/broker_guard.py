"""
Run one child, and end it when the process that asked for it ends, however that ended.

Started as ``python -I -S broker_guard.py LOCK_FD FOLDER COMMAND…`` with a pipe as standard input whose
other end only the parent holds. The pipe says everything: the line ``stop`` is an orderly stop, its end
without that line means that the parent is gone (also by kill -9); then an ephemeral FOLDER (``-`` is
none) is removed as well. The lock's descriptor is handed on, so that a folder stays locked for as long
as anything still writes into it. Exits with the child's code.

Standard library only, and nothing of the package: it is up within 20 ms.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

STOP_GRACE_S = 40.0
"""An orderly stop may write the start-up cache, which takes some 5 s on two cores."""
ORPHAN_GRACE_S = 3.0
"""Long enough for Kafka's own orderly shutdown (0.3 s), short enough for whoever killed the parent."""
PR_SET_PDEATHSIG = 1


def _die_with_guard() -> Callable[[], None] | None:
    """Return what the child runs before exec so that Linux ends it when this guard is killed itself."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask *child* to stop, and kill it after *grace_s* seconds."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _watch(child: subprocess.Popen[bytes], wakeup_fd: int, folder: str) -> None:
    """Return when *child* has ended, by itself or because standard input said or meant so."""
    while child.poll() is None:
        ready, _, _ = select.select([0, wakeup_fd], [], [])
        if 0 in ready:
            orphaned = not os.read(0, 16).startswith(b"stop")
            _end(child, ORPHAN_GRACE_S if orphaned else STOP_GRACE_S)
            if orphaned and folder != "-":
                shutil.rmtree(folder, ignore_errors=True)
        elif signal.SIGTERM in os.read(wakeup_fd, 64):
            _end(child, STOP_GRACE_S)


def main(lock_fd: int, folder: str, command: list[str]) -> int:
    """Run *command* until it or the parent ends; return its exit code, 128 + n after signal n."""
    wakeup_r, wakeup_w = os.pipe()
    os.set_blocking(wakeup_w, False)
    signal.set_wakeup_fd(wakeup_w)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(  # noqa: S603 - the command is the parent's own
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(lock_fd,),
        preexec_fn=_die_with_guard(),  # noqa: PLW1509 - this process has one thread
    )
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{child.pid}\n".encode(), 0)
    _watch(child, wakeup_r, folder)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
