"""What a run of `pipeline dev` amounts to: counts, latency, and what the oracle says."""

import asyncio
from collections import Counter
from typing import Any, Final

from pipeline.codec import Record
from pipeline.dev.drain import scans
from pipeline.dev.monitor import Monitor, quantile
from pipeline.dev.stack import Stack
from pipeline.runtime.reader import reading
from pipeline.sandbox.oracle import READS, Report, verify
from pipeline.sandbox.oracle_tables import OracleSettings
from pipeline.settings import Settings

__all__ = ["oracle_settings", "records_for_oracle", "summary"]

#: Topics whose records are counted beside those that the oracle reads.
_COUNTED: Final = ("sakari.events", "users.events", "statistics.posted")


async def summary(stack: Stack, monitor: Monitor, seconds: float) -> dict[str, Any]:
    """The last line of ``--exit-after``: one JSON object of kind ``summary``."""
    status = await stack.sandbox.status()
    records = await _read(stack)
    counts = Counter(record.topic for record in records)
    polls = sum(scans(stack).values())
    report = await _verified(stack, records)
    return {
        "kind": "summary",
        "seconds": round(seconds, 1),
        "webhooks_sent": status["webhooks_sent"],
        "webhooks_accepted": status["webhooks_accepted"],
        "webhooks_duplicated": status["webhooks_duplicated"],
        "webhooks_lost": status["webhooks_lost"],
        "sakari_events": counts["sakari.events"],
        "users_events": counts["users.events"],
        "polls": polls,
        "contacts_enriched": counts["contacts.enriched"],
        "activity_enriched": counts["activity.enriched"],
        "metrics_windows": len({r.key for r in records if r.topic == "engagement.metrics"}),
        "statistics_posted": counts["statistics.posted"],
        "dead_letters": counts["dead-letters"],
        "late": report.late,
        "latency_ms": {"p50": quantile(monitor.latencies, 0.5), "p99": quantile(monitor.latencies, 0.99)},
        "first_enriched_s": _rounded(monitor.first_s.get("activity.enriched")),
        "first_posted_s": _rounded(monitor.first_s.get("statistics.posted")),
        "oracle": report.to_json(),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


async def _read(stack: Stack) -> list[Record]:
    cluster = stack.process.cluster
    async with reading(cluster.connection, (*READS, *_COUNTED), cluster.partitions) as reader:
        return [record async for record in reader.everything()]


async def _verified(stack: Stack, records: list[Record]) -> Report:
    identity_secret = stack.settings.identity_secret
    assert identity_secret is not None
    secret = identity_secret.reveal().encode()
    return await asyncio.to_thread(
        verify,
        stack.sandbox.ledger,
        records_for_oracle(records),
        identity_secret=secret,
        settings=oracle_settings(stack.settings),
        held=await stack.sandbox.holdings(),
    )


def records_for_oracle(records: list[Record]) -> list[dict[str, Any]]:
    """*records* as the oracle takes them."""
    return [record._asdict() for record in records if record.topic in READS]


def oracle_settings(settings: Settings) -> OracleSettings:
    """What the oracle must be told of *settings*."""
    return OracleSettings(
        grace_s=settings.engagement.grace_s, reply_window_s=settings.engagement.reply_window_s
    )
