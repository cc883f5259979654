"""How a tail fares, on standard error: a line that renews itself on a terminal, and one when it ends."""

import sys
import time
from typing import Final, TextIO

from pipeline.runtime.following import Lag
from pipeline.tail.condition import Undecided
from pipeline.tail.session import Session

__all__ = ["Status"]

_EVERY_S: Final = 1.0
_CLEAR: Final = "\r\x1b[2K"


class Status:
    """Tells of *session*: what was read and kept, how fast, how far it is behind."""

    def __init__(self, topic: str, session: Session, stream: TextIO = sys.stderr) -> None:
        self._topic = topic
        self._session = session
        self._stream = stream
        self._live = stream.isatty()
        self._begun_s = self._told_s = time.monotonic()
        self._told = 0
        self._line = ""

    @property
    def is_due(self) -> bool:
        """Whether the line is to be renewed."""
        return self._live and time.monotonic() - self._told_s >= _EVERY_S

    def renew(self, lag: Lag) -> None:
        """Show how it stands now."""
        now_s = time.monotonic()
        rate = (self._session.read - self._told) / max(now_s - self._told_s, 1e-3)
        self._told_s, self._told = now_s, self._session.read
        self._line = self._text(lag, rate)
        self.show()

    def hide(self) -> None:
        """Take the line away, so that records can be written."""
        if self._live and self._line:
            print(_CLEAR, end="", file=self._stream, flush=True)

    def show(self) -> None:
        """Show the line again, below what was written."""
        if self._live and self._line:
            print(f"{_CLEAR}{self._line}", end="", file=self._stream, flush=True)

    def end(self, lag: Lag | None, undecided: Undecided | None) -> None:
        """Tell how it was."""
        self.hide()
        seconds = max(time.monotonic() - self._begun_s, 1e-3)
        print(self._text(lag, self._session.read / seconds), file=self._stream, flush=True)
        for note in self._session.notes:
            print(f"note: {note}", file=self._stream, flush=True)
        if undecided is not None and undecided.count:
            told = f"{undecided.count:,} records left out, first {undecided.first}: {undecided.why}"
            print(f"note: --where could not be decided for {told}", file=self._stream, flush=True)

    def _text(self, lag: Lag | None, rate: float) -> str:
        told = f"{self._topic}: {self._session.read:,} read, {self._session.kept:,} shown, {rate:,.0f}/s"
        if lag is None:
            return told
        return f"{told}, lag {lag.records:,}" + (f" ({lag.seconds:,.0f} s)" if lag.seconds else "")
