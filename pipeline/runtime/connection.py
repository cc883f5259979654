"""Makes the clients of one Kafka cluster, with the defaults of aiokafka changed where `KAFKA.md` says."""

import asyncio
import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.helpers import create_ssl_context
from aiokafka.producer import sender

from pipeline.runtime.assignor import CopartitionAssignor
from pipeline.settings import KafkaSettings, RuntimeSettings

__all__ = ["Connection"]

#: Seconds until aiokafka asks again to begin a transaction where the one before is still being ended, as it
#: always is when work is waiting. Its own 20 ms are longer than all the rest of a small transaction.
sender.BACKOFF_OVERRIDE = 0.002

#: Bytes of one produce batch; one batch per partition is in flight, so this bounds its throughput.
MAX_BATCH_BYTES = 512 * 1024


#: Large restores of a process at a time: each holds megabytes of fetched and of unwritten records, and
#: one alone keeps the event loop busy.
LOADS = 4


class Connection:
    """
    How to reach the cluster; every client of this process is made here.

    ``loads`` is held by each large restore.
    """

    def __init__(self, kafka: KafkaSettings, runtime: RuntimeSettings, client_id: str = "pipeline") -> None:
        self.loads = asyncio.Semaphore(LOADS)
        self._runtime = runtime
        self._common: dict[str, Any] = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "client_id": client_id,
            "request_timeout_ms": runtime.request_timeout_ms,
            "metadata_max_age_ms": 60_000,
            **_security(kafka),
        }

    @property
    def bootstrap_servers(self) -> str:
        """Where the cluster is reached."""
        servers: str = self._common["bootstrap_servers"]
        return servers

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that every aiokafka client takes."""
        return dict(self._common)

    def member(
        self,
        group_id: str,
        topics: list[str],
        listener: ConsumerRebalanceListener,
        assignor: CopartitionAssignor,
    ) -> AIOKafkaConsumer:
        """A member of *group_id* that commits nothing by itself; *assignor* remembers what it has."""
        consumer = AIOKafkaConsumer(
            **self._common,
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(assignor,),
            group_instance_id=self._runtime.group_instance_id or None,
            session_timeout_ms=self._runtime.session_timeout_ms,
            heartbeat_interval_ms=self._runtime.heartbeat_interval_ms,
            rebalance_timeout_ms=self._runtime.rebalance_timeout_ms,
            max_poll_interval_ms=self._runtime.rebalance_timeout_ms,
            fetch_max_wait_ms=self._runtime.fetch_max_wait_ms,
            max_partition_fetch_bytes=MAX_BATCH_BYTES * 2,
        )
        consumer.subscribe(topics, listener=listener)
        return consumer

    def reader(self) -> AIOKafkaConsumer:
        """A consumer without a group, for assigned partitions."""
        return AIOKafkaConsumer(
            **self._common,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=self._runtime.fetch_max_wait_ms,
            max_partition_fetch_bytes=MAX_BATCH_BYTES * 4,
        )

    def follower(self) -> AIOKafkaConsumer:
        """A reader that is in no hurry and buffers little; to be out of the log's range is an error."""
        return AIOKafkaConsumer(
            **self._common,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=500,
            fetch_max_bytes=MAX_BATCH_BYTES * 4,
            max_partition_fetch_bytes=MAX_BATCH_BYTES,
        )

    def placer(self, group_id: str) -> AIOKafkaConsumer:
        """A consumer that is no member of *group_id*, but may commit for it while nobody is."""
        return AIOKafkaConsumer(
            **self._common,
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )

    def producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """An idempotent producer, transactional where an id is given."""
        return AIOKafkaProducer(
            **self._common,
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=self._runtime.transaction_timeout_ms,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=1_048_576,
            retry_backoff_ms=20,
        )


def _security(kafka: KafkaSettings) -> dict[str, Any]:
    given: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if "SSL" in kafka.security_protocol:
        given["ssl_context"] = _ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        given["sasl_mechanism"] = kafka.sasl_mechanism
        given["sasl_plain_username"] = kafka.sasl_username
        given["sasl_plain_password"] = kafka.sasl_password.reveal() if kafka.sasl_password else ""
    return given


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    context: ssl.SSLContext = create_ssl_context(
        cafile=str(kafka.ssl_cafile) if kafka.ssl_cafile else None,
        certfile=str(kafka.ssl_certfile) if kafka.ssl_certfile else None,
        keyfile=str(kafka.ssl_keyfile) if kafka.ssl_keyfile else None,
    )
    return context
