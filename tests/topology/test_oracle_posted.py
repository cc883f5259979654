"""The oracle compares what the Users API holds at the end with what the topics say last."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pipeline.sandbox.oracle import holdings
from tests.topology.oracle_run import Run

TOTALS = ("sent", "delivered", "failed", "segments", "cost", "received", "replies", "opt_outs", "opt_ins")
Held = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose windows are then posted, as each tenant's dialect has it."""
    run = Run(tmp_path_factory.mktemp("run") / "ledger", webhooks=800).play()
    _post_windows(run)
    _post_contacts(run)
    return run


def _post_windows(run: Run) -> None:
    newest: dict[str, Any] = {}
    for key, value in sorted(run.driver.table("engagement.metrics").items(), key=lambda item: item[1].start):
        location = run.traffic.world.tenants[value.tenant].location
        if run.traffic.world.tenants[value.tenant].spec.dialect == "catalogue":
            metrics = {"window_key": key, **msgspec.to_builtins(value)}
            body = {"statisticsId": f"id {key}", "locationId": location.id, "metrics": metrics}
            location.submit_statistics(body, at=run.at())
        elif value.width == "1d":
            newest[f"{location.id}|{value.dimension}"] = (location, value)
    for location, value in newest.values():
        for name, shown in msgspec.to_builtins(value.measures).items():
            location.put_custom_value(f"engagement/{value.dimension}/{name}", str(shown))


def _post_contacts(run: Run) -> None:
    location = run.traffic.world.tenants["cedar"].location
    engaged = run.driver.table("engagement.contacts")
    fields = {name: location.put_custom_field({"name": f"engagement_{name}"}).id for name in TOTALS}
    for key, person in run.driver.table("contacts.enriched").items():
        for native in person.natives:
            if native.system == "users" and native.account_id == location.id and key in engaged:
                values = [{"id": i, "value": str(getattr(engaged[key], n))} for n, i in fields.items()]
                location.set_custom_fields(native.contact_id, values, at=run.at())


def failed(run: Run, held: Held) -> Mapping[str, int]:
    """The checks that find a difference in what is *held*."""
    return run.report(held=held).failed_checks


def test_what_is_posted_as_it_is_passes(run: Run) -> None:
    """Windows, custom values and contact fields all agree."""
    report = run.report(held=list(holdings(run.state)))
    assert report.failed_checks == {}
    assert min(report.checks[name] for name in ("posted window", "custom value", "contact field sent")) > 0


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("submission", "posted window"),
        ("custom_value", "custom value"),
        ("contact_field", "contact field"),
    ],
)
def test_a_stale_value_is_caught(run: Run, kind: str, check: str) -> None:
    """One value that is not the last is named by the check about it."""
    held: Held = list(holdings(run.state))
    told = [row for row in held if row["kind"] == kind and "job" not in row["name"]]
    stale = next(row for row in told if "all" in row["name"] or kind == "contact_field")
    stale["value"] = "stale"
    assert any(name.startswith(check) for name in failed(run, held))


def test_a_window_never_posted_is_caught(run: Run) -> None:
    """What a location lacks is named."""
    held = [row for row in holdings(run.state) if "bolt|all" not in row["name"]]
    lacking = [key for key in run.driver.table("engagement.metrics") if key.startswith("bolt|all")]
    assert failed(run, held) == {"posted window": len(lacking)}


def test_a_window_posted_under_two_ids_is_caught(run: Run) -> None:
    """A repeat must replace."""
    held: Held = list(holdings(run.state))
    twice = next(row for row in held if row["kind"] == "submission")
    assert failed(run, [*held, {**twice, "owner": "another"}])["posted window twice"] == 1
