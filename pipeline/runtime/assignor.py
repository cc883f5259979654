"""
Partition assignment that keeps equal partition numbers of a stage's inputs together.

Every member gets whole *tasks*: partition number *n* of all topics that it subscribes to. Members of
two versions with different inputs, as in a rolling upgrade, therefore never split one task, which
would make its two owners fence each other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

__all__ = ["CopartitionAssignor"]


class CopartitionAssignor(AbstractPartitionAssignor):  # type: ignore[misc] # aiokafka is untyped
    """Deals partition numbers to the members in turn, each number with all its topics."""

    name = "copartition"
    version = 0

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Member id -> topics with their partition numbers."""
        order = sorted(members)
        topics = {topic for metadata in members.values() for topic in metadata.subscription}
        partitions = {topic: cluster.partitions_for_topic(topic) or set() for topic in topics}
        given: dict[str, dict[str, list[int]]] = {member: defaultdict(list) for member in order}
        for number in sorted(set().union(*partitions.values())):
            member = order[number % len(order)]
            for topic in members[member].subscription:
                if number in partitions[topic]:
                    given[member][topic].append(number)
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, sorted(given[member].items()), b"")
            for member in order
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What a member tells the leader: its topics."""
        return ConsumerProtocolMemberMetadata(cls.version, sorted(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is remembered between assignments."""
