"""`pipeline` and `python -m pipeline`: the command line, or what to install to have it."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> int:
    """Run the command line; its exit code."""
    if os.getpid() == 1:  # of a container: the kernel keeps from it each signal that it has no handler for
        signal.signal(signal.SIGTERM, _ended)
    try:
        from pipeline import cli  # noqa: PLC0415 - a subscriber's base install has no command line
    except ModuleNotFoundError as error:
        install = "pip install 'sakari-users-pipeline[runtime,embedded]'"
        sys.stderr.write(f"pipeline: {error.name} is not installed; the command line needs: {install}\n")
        return 2
    return cli.main()


def _ended(number: int, _: FrameType | None) -> None:
    """End a process that has not yet begun what would have to be ended in order."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
