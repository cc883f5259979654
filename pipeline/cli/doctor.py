"""`pipeline doctor`: what `pipeline run` would need, examined piece by piece."""

import logging
from pathlib import Path

from pipeline import logs
from pipeline.cli.output import print_json
from pipeline.doctor import Finding, examined

__all__ = ["doctor"]


async def doctor(*, settings: Path | None = None, json: bool = False) -> int:
    """
    Examine settings, Kafka, topics, both APIs, granted scopes and ports; say what to do.

    Every check is made, whatever came out of the one before, and told as it is made. It changes nothing,
    but that an OAuth token which is due is renewed and kept, as `pipeline run` does.

    Exit codes: 0 all is well, 1 something is to be done.

    Examples::

        pipeline doctor --settings pipeline.yaml
        pipeline doctor --settings pipeline.yaml --json

    Parameters
    ----------
    settings
        The YAML file; PIPELINE_… variables win over it.
    json
        Print JSON, one object a check.
    """
    logs.configure("error", "json" if json else "auto")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say reaches us as errors
    problems = 0
    async for finding in examined(settings):
        problems += not finding.ok
        _tell(finding, json=json)
    return 1 if problems else 0


def _tell(finding: Finding, *, json: bool) -> None:
    if json:
        print_json("check", name=finding.check, ok=finding.ok, found=finding.found, advice=finding.advice)
        return
    print(f"{'ok' if finding.ok else 'PROBLEM':<8} {finding.check:<28} {finding.found}", flush=True)
    if finding.advice:
        print(f"{'':<8} {'':<28} -> {finding.advice}", flush=True)
