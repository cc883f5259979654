"""What a process tells of itself."""

from pipeline.runtime.metrics import Metrics


def test_latencies_are_counted_in_their_buckets() -> None:
    """A transaction's latencies are counted at once, each bucket with all below it."""
    metrics = Metrics()
    metrics.output_latency.observe("t", 100_000, [99_999, 99_700, 1_000, 99_700])
    metrics.output_latency.observe("t", 100_000, [99_980])
    (family,) = metrics.output_latency.collect()
    counts = {s.labels.get("le"): s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (counts["0.005"], counts["0.02"], counts["0.5"], counts["60.0"], counts["+Inf"]) == (1, 2, 4, 4, 5)
