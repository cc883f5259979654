"""Shows the steps of Kafka's start, and of its first download."""

import sys

from pipeline.runtime.broker_files import Progress

__all__ = ["ProgressLines"]


class ProgressLines:
    """Shows the steps of a start on standard error, a download as a line that counts on a terminal."""

    def __init__(self) -> None:
        self._counting = False
        self._text = ""

    def __call__(self, step: Progress) -> None:
        """Show *step*: once per text, and each further megabyte only where a line can be rewritten."""
        if step.total_bytes and sys.stderr.isatty():
            done, total = step.done_bytes / 2**20, step.total_bytes / 2**20
            print(f"\r{step.text}  {done:5.1f} of {total:.1f} MB", end="", file=sys.stderr, flush=True)
            self._counting = True
        elif step.text != self._text:
            line_end = "\n" if self._counting else ""
            print(f"{line_end}{step.text}", file=sys.stderr, flush=True)
            self._counting = False
        self._text = step.text
