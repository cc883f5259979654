"""Who gets which task, and which standby copy, when members of a group come and go."""

import random
from collections import Counter
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.assignor import CopartitionAssignor

TOPICS = ("events", "tables", "ticks")
OLD, NEW = ("events",), ("events", "tables")


class Cluster:
    """Knows how many partitions each topic has; what an assignor asks of aiokafka's metadata."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partition numbers of *topic*, None if it is unknown."""
        return set(range(self._counts[topic])) if topic in self._counts else None


class Group:
    """A consumer group as the broker plays it: any member leads, all bytes go over the wire."""

    def __init__(self, numbers: int, *, seed: int = 0) -> None:
        self.members: dict[str, CopartitionAssignor] = {}
        self.owners: dict[int, str] = {}
        self.standbys: dict[int, str] = {}
        self.given: dict[str, dict[str, list[int]]] = {}
        self._topics: dict[str, tuple[str, ...]] = {}
        self._cluster = Cluster(dict.fromkeys(TOPICS, numbers))
        self._random = random.Random(seed)

    def join(self, *names: str, topics: tuple[str, ...] = TOPICS, keeps_standbys: bool = False) -> None:
        """Let *names* be members from the next rebalance on."""
        for name in names:
            self.members[name] = CopartitionAssignor(keeps_standbys=keeps_standbys)
            self._topics[name] = topics

    def leave(self, *names: str) -> None:
        """Let *names* be gone at the next rebalance."""
        for name in names:
            del self.members[name]

    def rebalance(self) -> dict[int, str]:
        """Number -> its owner now; fails where two have one."""
        metadata = {name: self._told(name) for name in self.members}
        leader = self.members[self._random.choice(sorted(self.members))]
        made: dict[str, Any] = leader.assign(self._cluster, metadata)
        owned: list[tuple[int, str]] = []
        for name, member in self.members.items():
            assignment = ConsumerProtocolMemberAssignment.decode(made[name].encode())
            member.on_assignment(assignment)
            self.given[name] = {topic: list(numbers) for topic, numbers in assignment.assignment}
            owned += [(number, name) for number in {n for each in self.given[name].values() for n in each}]
        assert len(owned) == len(dict(owned)), "a number has two owners: they would fence each other"
        self.owners = dict(owned)
        self.standbys = {number: name for name, member in self.members.items() for number in member.standbys}
        return self.owners

    def _told(self, name: str) -> ConsumerProtocolMemberMetadata:
        told = self.members[name].metadata(self._topics[name])
        return ConsumerProtocolMemberMetadata.decode(told.encode())


def spread(group: Group) -> int:
    """How many tasks the fullest member has more than the emptiest."""
    load = Counter(group.owners.values())
    return max(load[name] for name in group.members) - min(load[name] for name in group.members)


comings_and_goings = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([OLD, NEW, TOPICS, ("ticks",)])), max_size=8
)


@given(st.integers(1, 12), comings_and_goings, st.integers())
def test_a_number_has_one_owner(numbers: int, events: list[tuple[str, Any]], seed: int) -> None:
    """Whoever comes and goes, each number has one owner, who has it on all topics that it reads."""
    group = Group(numbers, seed=seed)
    group.join("z", topics=TOPICS)
    for name, topics in events:
        group.leave(name) if name in group.members else group.join(name, topics=topics)
        group.rebalance()
        assert set(group.owners) == set(range(numbers))
        for each in group.members:
            shares = {tuple(owned) for owned in group.given[each].values()}
            assert len(shares) <= 1
            assert set(group.given[each]) in (set(), set(group._topics[each]))


@given(st.integers(1, 24), st.lists(st.sets(st.sampled_from("abcde"), min_size=1), min_size=2, max_size=6))
def test_equal_members_share_evenly_with_the_fewest_moves(numbers: int, rounds: list[set[str]]) -> None:
    """Loads are one apart at most, and no assignment of such loads could have left more where it was."""
    group = Group(numbers)
    for present in rounds:
        group.leave(*(group.members.keys() - present))
        group.join(*(present - group.members.keys()))
        before = dict(group.owners)
        after = group.rebalance()
        assert spread(group) <= 1
        had = sorted((sum(name == who for who in before.values()) for name in present), reverse=True)
        share, more = divmod(numbers, len(present))
        possible = sum(min(count, share + (place < more)) for place, count in enumerate(had))
        assert sum(before.get(number) == name for number, name in after.items()) == possible


def test_a_stale_claim_loses() -> None:
    """A member that slept through rebalances does not take its numbers back from who has them now."""
    group = Group(4)
    group.join("sleeper", "a")
    group.rebalance()
    sleeper = group.members["sleeper"]
    group.leave("sleeper")
    group.rebalance()
    group.join("b")
    before = dict(group.rebalance())
    group.leave("b")
    group.members["sleeper"] = sleeper
    after = group.rebalance()
    assert [number for number, name in before.items() if name == "a"] == [
        number for number, name in after.items() if name == "a"
    ]


def test_a_restarted_member_gets_back_what_its_disk_holds() -> None:
    """What nobody has goes to whoever's copy reaches furthest, within the balance."""
    group = Group(6)
    group.join("a", "b", "c")
    group.members["b"].copies = {0: 10, 1: 70, 2: 5}
    group.members["c"].copies = {0: 20, 2: 50}
    owners = group.rebalance()
    assert (owners[0], owners[1], owners[2]) == ("c", "b", "c")
    assert spread(group) == 0


def test_a_member_that_tells_nothing_is_given_its_share() -> None:
    """A member of a version without user data takes part, and can even have led."""
    group = Group(4)
    group.join("a", "b")
    silent = ConsumerProtocolMemberMetadata(0, list(TOPICS), b"")
    told = {"a": group._told("a"), "old": silent, "odd": ConsumerProtocolMemberMetadata(0, [*TOPICS], b"?")}
    made = group.members["a"].assign(group._cluster, told)
    assert sorted(n for each in made.values() for n in each.assignment[0][1]) == [0, 1, 2, 3]
    group.members["a"].on_assignment(ConsumerProtocolMemberAssignment(0, [("ticks", [3])], b""))
    assert group.rebalance()[3] == "a"


def test_an_unknown_topic_is_left_out() -> None:
    """A topic that is not there yet keeps nobody from the others."""
    member = CopartitionAssignor()
    made = member.assign(Cluster({"events": 2}), {"a": member.metadata(["events", "tables"])})
    assert made["a"].assignment == [("events", [0, 1])]


def test_an_upgrade_that_adds_an_input_moves_only_shares() -> None:
    """The first of the new version takes a fair share; the old one keeps the rest until it goes."""
    group = Group(6)
    group.join("a", "b", "c", topics=OLD)
    group.rebalance()
    group.leave("c")
    group.join("c2", topics=NEW)
    group.rebalance()
    assert spread(group) == 0
    assert group.given["c2"]["tables"] == group.given["c2"]["events"]
    assert "tables" not in group.given["a"]


def test_what_the_new_version_began_stays_with_it() -> None:
    """A number read with the new input goes back to the old version only when nobody reads it any more."""
    group = Group(6)
    group.join("old", topics=OLD)
    group.join("new", "newer", topics=NEW)
    group.rebalance()
    began = set(group.given["new"]["tables"]) | set(group.given["newer"]["tables"])
    group.leave("newer")
    group.rebalance()
    assert {number for number, name in group.owners.items() if name == "new"} >= began
    group.leave("new")
    assert set(group.rebalance().values()) == {"old"}
    group.join("again", topics=NEW)
    group.rebalance()
    assert spread(group) == 0


@given(st.integers(1, 12), comings_and_goings, st.integers())
def test_an_input_is_not_taken_from_a_number(numbers: int, events: list[Any], seed: int) -> None:
    """No number is read with fewer of its inputs than before while a member reads them."""
    group = Group(numbers, seed=seed)
    group.join("z", topics=OLD)
    read: dict[int, set[str]] = {}
    for name, topics in events:
        group.leave(name) if name in group.members else group.join(name, topics=topics)
        group.rebalance()
        for number, owner in group.owners.items():
            now = set(group._topics[owner])
            best = max(len(read.get(number, set()) & set(group._topics[each])) for each in group.members)
            assert len(now & read.get(number, set())) == best
            read[number] = now


@given(st.integers(1, 24), st.integers(2, 5))
def test_a_standby_is_never_the_owner(numbers: int, count: int) -> None:
    """Every number has one standby copy, at another member, and the copies are shared evenly."""
    group = Group(numbers)
    group.join(*(f"m{number}" for number in range(count)), keeps_standbys=True)
    group.rebalance()
    assert set(group.standbys) == set(range(numbers))
    assert all(group.owners[number] != name for number, name in group.standbys.items())
    assert max(Counter(group.standbys.values()).values()) <= numbers // count + 2


def test_a_lost_members_tasks_go_to_their_standbys() -> None:
    """Whose owner is gone is taken over by the holder of the copy, and gets a new copy elsewhere."""
    group = Group(6)
    group.join("a", "b", "c", keeps_standbys=True)
    group.rebalance()
    for name, member in group.members.items():
        member.copies = {number: 100 for number, keeper in group.standbys.items() if keeper == name}
    lost = [number for number, name in group.owners.items() if name == "c"]
    before = dict(group.standbys)
    group.leave("c")
    group.rebalance()
    assert {number: group.owners[number] for number in lost} == {number: before[number] for number in lost}
    assert all(group.owners[number] != name for number, name in group.standbys.items())
    assert set(group.standbys) == set(range(6))


def test_standbys_stay_where_they_are() -> None:
    """A rebalance that changes nothing starts no copy anew."""
    group = Group(8)
    group.join("a", "b", "c", keeps_standbys=True)
    group.rebalance()
    before = dict(group.standbys)
    for name, member in group.members.items():
        member.copies = {number: 1 for number, keeper in before.items() if keeper == name}
    group.rebalance()
    assert group.standbys == before


def test_nobody_keeps_copies_unasked() -> None:
    """A lone member, and members with the setting off, keep none."""
    group = Group(4)
    group.join("a", keeps_standbys=True)
    group.rebalance()
    assert group.standbys == {}
    group.join("b", "c", keeps_standbys=False)
    group.rebalance()
    assert set(group.standbys.values()) == {"a"}
