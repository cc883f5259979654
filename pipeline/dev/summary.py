"""What a run of `pipeline dev` amounts to: counts, latency, and what the oracle says."""

from collections import Counter
from typing import Any, Final

from pipeline.dev.drain import scans
from pipeline.dev.monitor import Monitor, quantile
from pipeline.dev.stack import Stack
from pipeline.dev.verification import read_topics, verified

__all__ = ["summary"]

#: Within so long the pipeline has to know of a change, whose webhook may be lost: several scans, as an API
#: that is being posted to is throttled now and then.
_POLL_DELAY_S: Final = 30.0


async def summary(stack: Stack, monitor: Monitor, seconds: float) -> dict[str, Any]:
    """The last line of ``--exit-after``: one JSON object of kind ``summary``."""
    status = await stack.sandbox.status()
    records = await read_topics(stack.process.cluster.connection, stack.process.cluster.partitions)
    counts = Counter(record.topic for record in records)
    polls = sum(scans(stack).values())
    held = await stack.sandbox.holdings()
    report = await verified(stack.settings, stack.sandbox.ledger, records, held, poll_delay_s=_POLL_DELAY_S)
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
