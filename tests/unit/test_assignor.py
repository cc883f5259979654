"""Equal partition numbers of a stage's inputs stay together, whoever subscribes to what."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.assignor import CopartitionAssignor

TOPICS = ("events", "tables", "ticks")


class Cluster:
    """Knows how many partitions each topic has; what an assignor asks of aiokafka's metadata."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partition numbers of *topic*, None if it is unknown."""
        return set(range(self._counts[topic])) if topic in self._counts else None


def assigned(counts: dict[str, int], members: dict[str, list[str]]) -> dict[str, dict[str, list[int]]]:
    """Member -> topic -> partition numbers."""
    metadata = {member: CopartitionAssignor.metadata(topics) for member, topics in members.items()}
    made: dict[str, Any] = CopartitionAssignor.assign(Cluster(counts), metadata)
    return {member: dict(each.assignment) for member, each in made.items()}


subscriptions = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.lists(st.sampled_from(TOPICS), min_size=1, unique=True),
    min_size=1,
    max_size=5,
)


@given(st.integers(1, 12), subscriptions)
def test_a_number_has_one_owner(partitions: int, members: dict[str, list[str]]) -> None:
    """No two members own one number, not even on different topics: they would fence each other."""
    given_ = assigned(dict.fromkeys(TOPICS, partitions), members)
    owners = {
        (number, member) for member, each in given_.items() for numbers in each.values() for number in numbers
    }
    assert len(owners) == len({number for number, _ in owners}) == partitions
    assert all(set(each) <= set(members[member]) for member, each in given_.items())


@given(st.integers(1, 12), st.integers(1, 5))
def test_equal_members_share_evenly(partitions: int, count: int) -> None:
    """Members with the same inputs get whole tasks, their numbers at most one apart."""
    members = {f"m{number}": list(TOPICS) for number in range(count)}
    given_ = assigned(dict.fromkeys(TOPICS, partitions), members)
    sizes = [len(each.get("events", [])) for each in given_.values()]
    assert max(sizes) - min(sizes) <= 1
    assert all(each.get("events") == each.get("ticks") == each.get("tables") for each in given_.values())


def test_an_unknown_topic_is_left_out() -> None:
    """A topic that is not there yet keeps nobody from the others."""
    assert assigned({"events": 2}, {"a": ["events", "tables"]}) == {"a": {"events": [0, 1]}}
