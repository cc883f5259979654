"""
Makes the cluster's topics what ``topics.yaml`` says: looks, plans, creates and alters.

What that file names is never deleted; what a replay made is, when its operator asks for it.

All of it is a handful of requests whatever the number of topics, and may be done by several processes
at once: a topic that another has just created is as good as one's own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupIdNotFound,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol import admin as protocol

from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.topic_plan import Found, Plan, Wanted, compared

__all__ = ["Admin", "ensure"]

# aiokafka answers version 3 of this request by the layout of version 2, and so cannot read the answer.
protocol.DescribeGroupsRequest_v3.RESPONSE_TYPE = protocol.DescribeGroupsResponse_v3

TIMEOUT_S = 30.0
"""Of one request; creating a thousand partitions on three nodes takes a few seconds."""
VISIBLE_S = 15.0
"""Until every broker that answers knows a new topic and its leaders."""
_POLL_S = 0.02

#: ``config_source`` of a DescribeConfigs response (KIP-226): set on the topic itself.
_TOPIC_CONFIG = 1


class Admin:
    """
    The administrator's view of one cluster, from ``async with`` to its end.

    *common* are the arguments that every aiokafka client takes (`Connection.common`), at least
    ``bootstrap_servers``. Whatever Kafka refuses, and no answer in time, is a `BrokerError`.
    """

    def __init__(self, common: Mapping[str, Any]) -> None:
        self._servers = str(common["bootstrap_servers"])
        self._client = AIOKafkaAdminClient(**common)

    async def __aenter__(self) -> Self:
        async with self._asking("connect"):
            try:
                await self._client.start()
            except BaseException:
                await self._client.close()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self._client.close()

    async def names(self) -> list[str]:
        """The names of all topics of the cluster."""
        async with self._asking("list topics"):
            return sorted(await self._client.list_topics())

    async def found(self, names: Iterable[str]) -> dict[str, Found]:
        """Those of *names* that the cluster has, with their sizes and configs."""
        async with self._asking("describe topics"):
            metadata = {topic["topic"]: topic for topic in await self._client.describe_topics()}
            there = {name: metadata[name]["partitions"] for name in names if name in metadata}
            configs = await self._configs(there)
        # Of several brokers the one asked for configs may not know a new topic yet: it is not there for now.
        known = {name: partitions for name, partitions in there.items() if name in configs}
        return {name: _found(name, partitions, *configs[name]) for name, partitions in known.items()}

    async def plan(self, topics: Iterable[Wanted]) -> Plan:
        """How the cluster differs from *topics* (see `topic_plan.wanted`)."""
        expected = tuple(topics)
        return compared(expected, await self.found([topic.name for topic in expected]))

    async def groups(self) -> list[str]:
        """The consumer groups of the cluster."""
        async with self._asking("list groups"):
            return sorted({str(group[0]) for group in await self._client.list_consumer_groups()})

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Topic and partition -> the offset that *group* reads next, where it has committed one."""
        async with self._asking(f"read the offsets of {group}"):
            found = await self._client.list_consumer_group_offsets(group)
        return {(at.topic, at.partition): kept.offset for at, kept in found.items() if kept.offset >= 0}

    async def members(self, group: str) -> list[str]:
        """The client ids of the members of *group*, with the hosts they are on."""
        async with self._asking(f"describe the group {group}"):
            (answer,) = await self._client.describe_consumer_groups([group])
        (code, _, _, _, _, members, *_) = answer.groups[0]
        _raise_for(code, group)
        return sorted(f"{client} on {host.lstrip('/')}" for _, client, host, *_ in members)

    async def delete_topics(self, names: Iterable[str]) -> None:
        """
        Delete those of *names* that there are, and return when the cluster knows them no more.

        For what a replay made, never for what `topics.yaml` names.

        Raises:
            BrokerError: Kafka refused.
        """
        wanted = set(names)
        there = wanted.intersection(await self.names())
        if not there:
            return
        async with self._asking("delete topics"):
            await self._client.delete_topics(sorted(there))
        async with self._asking("wait for what was deleted", VISIBLE_S):
            while wanted.intersection(await self.names()):  # noqa: ASYNC110 - Kafka does not tell
                await asyncio.sleep(_POLL_S)

    async def delete_groups(self, groups: Iterable[str]) -> None:
        """
        Forget what *groups* have committed; one that is not there is as good as forgotten.

        Raises:
            BrokerError: Kafka refused: one has members.
        """
        for group in groups:
            async with self._asking(f"delete the group {group}"):
                node = await self._client.find_coordinator(group)
                # aiokafka has the request, but no method for it
                answer = await self._client._send_request(protocol.DeleteGroupsRequest([group]), node)  # noqa: SLF001
                for name, code in answer.results:
                    if for_code(code) is not GroupIdNotFound:
                        _raise_for(code, name)

    async def apply(self, plan: Plan) -> None:
        """
        Create, grow and alter what *plan* says, and return when the cluster answers accordingly.

        Raises:
            ConfigError: the plan holds what is refused; nothing was changed.
            BrokerError: Kafka refused; some of it may have been done, and applying again is safe.
        """
        if plan.refusals:
            raise ConfigError(plan.refusals)
        if plan.missing:
            await self._create(plan.missing)
        growing = {each.topic: int(each.wanted) for each in plan.of("grow")}
        if growing:
            await self._grow(growing)
        altered = {each.topic for each in plan.of("alter")}
        if altered:
            await self._alter([topic for topic in plan.wanted if topic.name in altered], plan.found)
        if not plan.is_clean:
            await self._until_done(plan)

    async def _configs(self, names: Iterable[str]) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """Name -> its configs as they hold, and those set on the topic itself; where the broker knows it."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        configs = {}
        for response in await self._client.describe_configs(resources):
            for code, message, _, name, entries in response.resources:
                if code == UnknownTopicOrPartitionError.errno:
                    continue
                _raise_for(code, f"{name}: {message}")
                held = {entry[0]: entry[1] or "" for entry in entries}
                configs[name] = held, {e[0]: e[1] or "" for e in entries if e[3] == _TOPIC_CONFIG}
        return configs

    async def _create(self, topics: tuple[Wanted, ...]) -> None:
        new = [NewTopic(t.name, t.partitions, t.replication, topic_configs=dict(t.configs)) for t in topics]
        async with self._asking("create topics"):
            response = await self._client.create_topics(new, timeout_ms=int(TIMEOUT_S * 1000))
        refused = [
            f"{name}: {message or for_code(code).__name__}"
            for name, code, message in response.topic_errors
            if code and for_code(code) is not TopicAlreadyExistsError
        ]
        if refused:
            raise BrokerError("Kafka created not all topics: " + "; ".join(refused))

    async def _grow(self, counts: Mapping[str, int]) -> None:
        async with self._asking("add partitions"):
            await self._client.create_partitions({n: NewPartitions(count) for n, count in counts.items()})

    async def _alter(self, topics: Iterable[Wanted], found: Mapping[str, Found]) -> None:
        """Kafka's AlterConfigs replaces all that was set on a topic, so that is sent along."""
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, topic.name, {**found[topic.name].own, **topic.configs})
            for topic in topics
        ]
        async with self._asking("alter configs"):
            for response in await self._client.alter_configs(resources):
                for code, message, _, name in response.resources:
                    _raise_for(code, f"{name}: {message}")

    async def _until_done(self, plan: Plan) -> None:
        """Return when the brokers know it too: they learn of what the controller did a little later."""
        async with self._asking("wait for what was changed", VISIBLE_S):
            while not _done(plan, await self.plan(plan.wanted)):  # noqa: ASYNC110 - Kafka does not tell
                await asyncio.sleep(_POLL_S)

    @asynccontextmanager
    async def _asking(self, what: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[None]:
        """The one place where aiokafka's errors, and silence, become a `BrokerError`."""
        with _mapped(lambda told: f"cannot {what} at {self._servers}: {told}"):
            async with asyncio.timeout(timeout_s):
                yield


async def ensure(common: Mapping[str, Any], topics: Iterable[Wanted]) -> Plan:
    """
    Make the cluster hold *topics*; return what differed before.

    Raises:
        ConfigError: a keyed topic has another number of partitions; nothing was changed.
        BrokerError: Kafka cannot be reached or refused.
    """
    async with Admin(common) as admin:
        plan = await admin.plan(topics)
        await admin.apply(plan)
        return plan


@contextmanager
def _mapped(told: Callable[[str], str]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise BrokerError(told("no answer in time")) from error
    except (KafkaError, OSError) as error:
        raise BrokerError(told(str(error) or type(error).__name__)) from error


def _raise_for(code: int, told: str) -> None:
    if code:
        raise for_code(code)(told)


def _found(
    name: str, partitions: list[Mapping[str, Any]], configs: dict[str, str], own: dict[str, str]
) -> Found:
    return Found(
        name=name,
        partitions=len(partitions),
        led=sum(each["leader"] >= 0 for each in partitions),
        replication=min((len(each["replicas"]) for each in partitions), default=0),
        configs=configs,
        own=own,
    )


def _done(before: Plan, now: Plan) -> bool:
    if now.of("create", "grow", "alter"):
        return False
    return all(now.found[topic.name].led == topic.partitions for topic in before.missing)
