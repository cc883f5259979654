"""Reads what a pipeline has written, and lets the oracle compare it with a sandbox's ledger."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.codec import Record
from pipeline.errors import ConfigError
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading
from pipeline.sandbox.oracle import READS, Report, verify
from pipeline.sandbox.oracle_tables import OracleSettings
from pipeline.settings import Settings

__all__ = ["COUNTED", "partitions_of", "read_topics", "verified"]

#: Topics whose records are counted beside those that the oracle reads.
COUNTED: Final = ("sakari.events", "users.events", "statistics.posted")


async def partitions_of(connection: Connection) -> int:
    """
    How many partitions the topics that the oracle reads have: all the same.

    Raises:
        BrokerError: Kafka does not answer.
        ConfigError: topics are missing.
    """
    wanted = (*READS, *COUNTED)
    async with Admin(connection.common) as admin:
        found = await admin.found(wanted)
    if missing := sorted(set(wanted) - set(found)):
        raise ConfigError(f"topics are missing: {', '.join(missing)}; `pipeline topics apply` makes them")
    return max(topic.partitions for topic in found.values())


async def read_topics(connection: Connection, partitions: int) -> list[Record]:
    """Every record of the topics that are compared or counted, by a fresh read_committed consumer."""
    async with reading(connection, dict.fromkeys((*READS, *COUNTED)), partitions) as reader:
        return [record async for record in reader.everything()]


async def verified(
    settings: Settings,
    ledger: Path,
    records: Iterable[Record],
    held: Iterable[Mapping[str, Any]] | None,
    *,
    poll_delay_s: float = 60.0,
) -> Report:
    """
    What the oracle says of *records* and of what the Users API holds; *held* None: that is not compared.

    Within *poll_delay_s* a change at an API has to be known.

    Raises:
        ConfigError: *ledger* holds no ledger, or *settings* no identity secret.
    """
    if settings.identity_secret is None:
        raise ConfigError("identity_secret: missing; the oracle derives contact keys from it")
    return await asyncio.to_thread(
        verify,
        ledger,
        _for_oracle(records),
        identity_secret=settings.identity_secret.reveal().encode(),
        settings=_oracle_settings(settings, poll_delay_s),
        held=held,
    )


def _for_oracle(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [record._asdict() for record in records if record.topic in READS]


def _oracle_settings(settings: Settings, poll_delay_s: float) -> OracleSettings:
    """What the oracle must be told of *settings*."""
    return OracleSettings(
        grace_s=settings.engagement.grace_s,
        reply_window_s=settings.engagement.reply_window_s,
        max_tags=settings.engagement.max_tags,
        reconcile_days=settings.poll.reconcile_days,
        poll_delay_s=poll_delay_s,
    )
