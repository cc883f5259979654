"""What `pipeline tail` tells of itself on standard error."""

import io
from typing import Any, cast

import pytest

from pipeline.runtime.following import Lag
from pipeline.tail.condition import Undecided
from pipeline.tail.session import Session, Span
from pipeline.tail.status import Status


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def session(read: int = 0, kept: int = 0) -> Session:
    """A session that has read and kept so many."""
    made = Session(cast(Any, None), Span(), None)
    made.read, made.kept = read, kept
    return made


def test_a_terminal_has_a_line_that_gives_way_to_records() -> None:
    """It is there with counts, rate and lag, taken away before records are written, and shown again."""
    terminal, reading = Terminal(), session()
    status = Status("a.topic", reading, terminal)
    reading.read, reading.kept = 1_200, 30
    status.renew(Lag(4_500, 61.4))
    told = terminal.getvalue()
    assert "a.topic: 1,200 read, 30 shown, " in told
    assert told.endswith("/s, lag 4,500 (61 s)")
    status.hide()
    assert terminal.getvalue() == f"{told}\r\x1b[2K"
    status.show()
    assert terminal.getvalue().endswith("lag 4,500 (61 s)")


def test_a_pipe_gets_one_line_when_it_ends() -> None:
    """No line that renews itself, no orders to a terminal."""
    pipe, reading = io.StringIO(), session(10, 2)
    status = Status("a.topic", reading, pipe)
    assert not status.is_due
    status.renew(Lag(1, 1))
    status.hide()
    assert pipe.getvalue() == ""
    status.end(Lag(0, 0), None)
    assert pipe.getvalue().startswith("a.topic: 10 read, 2 shown, ")
    assert pipe.getvalue().endswith("/s, lag 0\n")


@pytest.mark.parametrize(("count", "told"), [(0, False), (3, True)])
def test_what_was_left_out_is_told_at_the_end(count: int, told: bool) -> None:
    """Records that a condition could not decide, and where reading had to begin later than asked."""
    pipe, reading = io.StringIO(), session()
    reading.notes.append("partition 0 begins at 7: nothing before is kept")
    undecided = Undecided(count=count, first="0:7", why="no such key")
    Status("a.topic", reading, pipe).end(None, undecided)
    assert "note: partition 0 begins at 7" in pipe.getvalue()
    assert ("for 3 records left out, first 0:7: no such key" in pipe.getvalue()) is told
