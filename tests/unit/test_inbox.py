"""The buffer between a consumer and a task: bounded, in order, without repetitions."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import Record
from pipeline.runtime import inbox as module
from pipeline.runtime.inbox import Inbox

INPUTS = ("tables", "events")


def record(topic: str, offset: int, timestamp: int = 0, value: bytes = b"v") -> Record:
    """A record of *topic*."""
    return Record(topic, 0, offset, timestamp, b"k", value)


def opened(high: int = 10) -> Inbox:
    """An inbox that takes both inputs from their beginning."""
    made = Inbox(INPUTS.index, high)
    made.expect({"tables": 0, "events": 0})
    made.await_(())
    return made


def taken(inbox: Inbox) -> list[tuple[str, int]]:
    """Everything in it, in order."""
    found = []
    while (run := inbox.take(1)) is not None:
        found += [(run[0], record.offset) for record in run[1]]
    return found


def test_the_earliest_head_is_taken_first() -> None:
    """Among the heads the smallest timestamp leads, on a tie the first input; each input keeps its order."""
    inbox = opened()
    inbox.put("events", [record("events", 0, 5), record("events", 1, 1), record("events", 2, 7)])
    inbox.put("tables", [record("tables", 0, 5), record("tables", 1, 9)])
    assert taken(inbox) == [("tables", 0), ("events", 0), ("events", 1), ("events", 2), ("tables", 1)]


@given(st.lists(st.tuples(st.sampled_from(INPUTS), st.integers(0, 3)), max_size=12), st.integers(1, 5))
def test_runs_are_in_the_order_of_single_records(arrived: list[tuple[str, int]], most: int) -> None:
    """However many are taken at once, the order is that of taking them one by one."""
    one_by_one, in_runs = opened(100), opened(100)
    for offset, (topic, timestamp) in enumerate(arrived):
        for inbox in (one_by_one, in_runs):
            inbox.put(topic, [record(topic, offset, timestamp)])
    found = []
    while (run := in_runs.take(most)) is not None:
        assert 0 < len(run[1]) <= most
        found += [(run[0], each.offset) for each in run[1]]
    assert found == taken(one_by_one)


def test_what_comes_again_is_dropped() -> None:
    """After a seek Kafka may send what is buffered already, or what lies below the offset."""
    inbox = opened()
    inbox.expect({"events": 5})
    inbox.put("events", [record("events", offset) for offset in range(3, 8)])
    inbox.put("events", [record("events", offset) for offset in range(6, 9)])
    assert taken(inbox) == [("events", offset) for offset in range(5, 9)]


def test_it_is_full_by_count_and_drained_at_half() -> None:
    """Pause at the bound, resume below half of it."""
    inbox = opened(high=4)
    inbox.put("events", [record("events", offset) for offset in range(4)])
    states = [(inbox.full, inbox.drained)]
    while inbox.take(1) is not None:
        states.append((inbox.full, inbox.drained))
    assert states == [(True, False), (False, False), (False, False), (False, True), (False, True)]


def test_few_large_records_fill_it_too() -> None:
    """The bound is also one of bytes: an inbox of the largest records is no leak."""
    inbox = opened(high=1_000_000)
    large = b"x" * (module.HIGH_BYTES // 4)
    inbox.put("events", [record("events", offset, value=large) for offset in range(4)])
    assert inbox.full
    taken(inbox)
    assert inbox.drained
    assert not inbox.full


def test_a_closed_inbox_takes_nothing() -> None:
    """Records of a session that ended are forgotten, and what comes late is not taken."""
    inbox = opened()
    inbox.put("events", [record("events", 0)])
    inbox.close()
    inbox.put("events", [record("events", 1)])
    assert (len(inbox), inbox.take(1), inbox.accepting) == (0, None, False)


def test_an_input_that_has_more_is_awaited() -> None:
    """While the broker is known to have records of an empty input, nothing is taken before they come."""
    inbox = opened()
    inbox.put("events", [record("events", 0, 5)])
    inbox.await_({"tables"})
    assert (inbox.take(1), inbox.ready, inbox.empty) == (None, False, frozenset({"tables"}))
    inbox.put("tables", [record("tables", 0, 4)])
    assert taken(inbox) == [("tables", 0)]
    inbox.await_(())
    assert taken(inbox) == [("events", 0)]


def test_nothing_is_awaited_for_ever() -> None:
    """After a bound, or when the inbox is full, what is there goes on."""
    now = [0.0]
    inbox = Inbox(INPUTS.index, 2, lambda: now[0])
    inbox.expect({"tables": 0, "events": 0})
    inbox.put("events", [record("events", 0)])
    assert not inbox.ready
    now[0] = module.PATIENCE_S + 0.1
    assert inbox.ready
    now[0] = 0.0
    inbox.put("events", [record("events", 1)])
    assert inbox.ready
