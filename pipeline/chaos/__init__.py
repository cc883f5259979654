"""`pipeline chaos`: faults of every kind on a running pipeline, and the oracle's word on what came of it."""
