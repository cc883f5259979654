"""How a subscriber reaches Kafka: makes the clients, and turns what they raise into our errors."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, IllegalOperation, KafkaError

from pipeline.errors import BrokerError, ConfigError

__all__ = ["SERVERS", "Cluster", "broker_errors"]

#: The variable that names the servers where nothing else does; the pipeline's own settings have it too.
SERVERS = "PIPELINE_KAFKA__BOOTSTRAP_SERVERS"

#: An open transaction holds up every reader of its partitions, so it may not stay open for long, in ms.
_TRANSACTION_MS = 15_000

#: How long without a fetch until the group takes a member for stuck, in ms.
_STUCK_MS = 60_000


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Turn what aiokafka raises while *doing* into `BrokerError`."""
    try:
        yield
    except BrokerError:
        raise
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(f"{doing}: {type(error).__name__}: {error}") from error
    except (AssertionError, ValueError, RuntimeError, IllegalOperation, ConsumerStoppedError) as error:
        # aiokafka's way to say that a client is in no state to do this any more
        raise BrokerError(f"{doing}: {type(error).__name__}: {error}") from error


class Cluster:
    """
    The cluster at *servers*; *client* are further arguments of every aiokafka client, such as for security.

    Raises:
        ConfigError: nothing says where the cluster is.
    """

    def __init__(self, servers: str | None, client: Mapping[str, Any]) -> None:
        self.servers = servers or os.environ.get(SERVERS, "")
        if not self.servers:
            raise ConfigError(f"bootstrap_servers: name the Kafka servers, HOST:PORT,…; or set {SERVERS}")
        self._common = {"client_id": "subscriber", "bootstrap_servers": self.servers, **client}

    def member(
        self, group: str, topic: str, listener: ConsumerRebalanceListener, session_s: float
    ) -> AIOKafkaConsumer:
        """A member of *group* that commits nothing by itself."""
        consumer = AIOKafkaConsumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor, RoundRobinPartitionAssignor),
            session_timeout_ms=int(session_s * 1000),
            heartbeat_interval_ms=min(3_000, int(session_s * 1000) // 10),
            rebalance_timeout_ms=_STUCK_MS,
            max_poll_interval_ms=_STUCK_MS,
            fetch_max_wait_ms=100,
            **self._common,
        )
        consumer.subscribe([topic], listener=listener)
        return consumer

    def reader(self) -> AIOKafkaConsumer:
        """A consumer without a group; to be out of the log's range is an error."""
        return AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
            **self._common,
        )

    async def partitions(self, topic: str) -> list[int]:
        """
        The numbers of *topic*'s partitions.

        Raises:
            ConfigError: there is no such topic, or these credentials do not show it.
        """
        admin = AIOKafkaAdminClient(**self._common)
        await admin.start()
        try:
            (told,) = await admin.describe_topics([topic])
        finally:
            await admin.close()
        numbers = sorted(each["partition"] for each in told["partitions"])
        if not numbers:
            raise ConfigError(f"{self.servers} has no topic {topic}, or hides it from you")
        return numbers

    def producer(self, transactional_id: str) -> AIOKafkaProducer:
        """A transactional producer."""
        return AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=_TRANSACTION_MS,
            max_batch_size=512 * 1024,
            **self._common,
        )
