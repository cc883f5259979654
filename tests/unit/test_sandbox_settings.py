"""The settings that the sandbox writes for a pipeline that is to work with it."""

from pathlib import Path

from pipeline.sandbox.program import Options, opened
from pipeline.sandbox.settings_file import written
from pipeline.settings import load


async def test_windows_close_as_late_as_a_slow_start_needs(tmp_path: Path) -> None:
    """The grace that it writes lets the traffic's windows close so many seconds after the sandbox's start."""
    async with opened(Options(ledger=tmp_path, closes_after_s=90)) as program:
        grace_s = load(written(program, tmp_path)).engagement.grace_s
        told = program.status()
    assert 90_000 <= told["boundary_ms"] + grace_s * 1_000 - told["start_ms"] < 91_000
