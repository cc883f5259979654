"""
The group protocol's side of `pipeline.runtime.placement`: what members tell, and what they are given.

Each group member has an assignor of its own. What it tells with its subscription: the numbers that it
had and from which assignment, how far its local copies of the state reach, whether it keeps standby
copies. What it is given besides partitions: its standby copies, the number (epoch) of the assignment,
and what every number is read with, which all remember, since those who know best may be gone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from pipeline.runtime.placement import Member, owners, standbys

__all__ = ["CopartitionAssignor"]

#: Topics, and the numbers that are read with just these.
_Read = list[tuple[list[str], list[int]]]


class _Told(msgspec.Struct, frozen=True):
    """What a member tells the leader; the defaults stand for one that tells nothing."""

    epoch: int = 0
    owned: list[int] = []
    copies: dict[int, int] = {}
    keeps_standbys: bool = False
    read: _Read = []


class _Given(msgspec.Struct, frozen=True):
    """What the leader gives a member besides partitions."""

    epoch: int = 0
    standbys: list[int] = []
    read: _Read = []


class CopartitionAssignor(AbstractPartitionAssignor):  # type: ignore[misc] # aiokafka is untyped
    """
    One member's; keeps equal partition numbers of a stage's inputs together, and where they are.

    ``copies`` (number -> how far it reaches) is for its group to set before it joins, ``standbys`` to
    read when it was assigned.
    """

    name = "copartition"
    version = 0

    def __init__(self, *, keeps_standbys: bool = False) -> None:
        self.copies: Mapping[int, int] = {}
        self.standbys: frozenset[int] = frozenset()
        self._keeps_standbys = keeps_standbys
        self._epoch = 0
        self._owned: frozenset[int] = frozenset()
        self._read: _Read = []

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member tells the leader."""
        told = _Told(self._epoch, sorted(self._owned), dict(self.copies), self._keeps_standbys, self._read)
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), msgspec.msgpack.encode(told))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what this member was given."""
        given = _given(assignment.user_data)
        self._owned = frozenset(number for _, numbers in assignment.assignment for number in numbers)
        self.standbys = frozenset(given.standbys)
        self._epoch, self._read = given.epoch, given.read

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """As the leader: member id -> topics with their partition numbers."""
        told = {name: _told(metadata.user_data) for name, metadata in members.items()}
        known = {name: _member(members[name].subscription, told[name]) for name in members}
        latest = max(told.values(), key=lambda each: each.epoch)
        tasks = _tasks(cluster, known.values())
        owned = owners(tasks, known, _by_number(latest.read))
        kept = standbys(tasks, known, owned)
        read = {number: tasks[number] & known[owner].topics for number, owner in owned.items()}
        return {
            name: ConsumerProtocolMemberAssignment(
                self.version,
                _topics_of({number: read[number] for number, owner in owned.items() if owner == name}),
                msgspec.msgpack.encode(
                    _Given(
                        latest.epoch + 1,
                        sorted(number for number, keeper in kept.items() if keeper == name),
                        _by_topics(read),
                    )
                ),
            )
            for name in members
        }


def _member(topics: Iterable[str], told: _Told) -> Member:
    return Member(
        topics=frozenset(topics),
        epoch=told.epoch,
        owned=frozenset(told.owned),
        copies=told.copies,
        keeps_standbys=told.keeps_standbys,
    )


def _tasks(cluster: ClusterMetadata, members: Iterable[Member]) -> dict[int, frozenset[str]]:
    """Number -> the topics that have a partition of that number."""
    tasks: defaultdict[int, set[str]] = defaultdict(set)
    for topic in {topic for member in members for topic in member.topics}:
        for number in cluster.partitions_for_topic(topic) or ():
            tasks[number].add(topic)
    return {number: frozenset(topics) for number, topics in tasks.items()}


def _topics_of(read: Mapping[int, frozenset[str]]) -> list[tuple[str, list[int]]]:
    """Topic -> its partition numbers, as the protocol wants them."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(read):
        for topic in read[number]:
            numbers[topic].append(number)
    return sorted(numbers.items())


def _by_topics(read: Mapping[int, frozenset[str]]) -> _Read:
    """The same said shortly: mostly all numbers are read with the same topics."""
    numbers: defaultdict[frozenset[str], list[int]] = defaultdict(list)
    for number in sorted(read):
        numbers[read[number]].append(number)
    return sorted((sorted(topics), alike) for topics, alike in numbers.items())


def _by_number(read: _Read) -> dict[int, frozenset[str]]:
    return {number: frozenset(topics) for topics, numbers in read for number in numbers}


def _told(user_data: bytes | None) -> _Told:
    """What a member told; nothing where it is of another make."""
    try:
        return msgspec.msgpack.decode(user_data or b"", type=_Told)
    except msgspec.DecodeError:
        return _Told()


def _given(user_data: bytes | None) -> _Given:
    """What the leader gave; nothing where it is of another make."""
    try:
        return msgspec.msgpack.decode(user_data or b"", type=_Given)
    except msgspec.DecodeError:
        return _Given()
