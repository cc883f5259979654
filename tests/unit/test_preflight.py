"""Preflight: whatever is missing or unsafe is told before anything starts, all of it at once."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import preflight
from pipeline.errors import ConfigError
from pipeline.settings import Settings
from tests.unit.receiver_world import KEYS, SIGNING, pem

GOOD = "a secret of thirty-two characters or more"
SECRET = {"value": GOOD}
ACCOUNT = {"account_id": "a1", "client_id": SECRET, "client_secret": SECRET}
LOCATION = {"location_id": "l1", "token": SECRET}
HASHES = {"webhook_secrets_sha256": ["0" * 64]}


def settings(**given: Any) -> Settings:
    """Settings that nothing is wrong with, but for what is *given*."""
    good: dict[str, Any] = {
        "kafka": {"bootstrap_servers": "127.0.0.1:9092"},
        "identity_secret": SECRET,
        "receiver": {"users_api_keys": [pem(KEYS[0])]},
        "tenants": {
            "acme": {"sakari": [ACCOUNT | HASHES], "users": [{"location_id": "l1", "token": SECRET}]}
        },
    }
    return Settings(**{**good, **given})


def test_good_settings_pass() -> None:
    """Nothing is wrong with them, in either profile."""
    for profile in ("dev", "production"):
        preflight.check(settings(profile=profile))
    assert preflight.identity_of(settings()).fingerprint() == preflight.identity_of(settings()).fingerprint()


def test_all_problems_are_told_at_once() -> None:
    """Empty settings lack three things."""
    with pytest.raises(ConfigError) as caught:
        preflight.check(Settings())
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "kafka.bootstrap_servers",
        "tenants",
        "identity_secret",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"identity_secret": {"value": "short"}}, "identity_secret: has 5 characters"),
        (
            {"runtime": {"on_error": {"enrih": "stop"}}},
            "runtime.on_error: 'enrih' is unknown; did you mean enrich? Known: clock, poller, decode",
        ),
        ({"runtime": {"watchdog_s": 60}}, "runtime.watchdog_s: must be above runtime.rebalance_timeout_ms"),
        ({"runtime": {"on_error": {"receiver": "stop"}}}, "runtime.on_error: 'receiver' is unknown"),
        ({"identity_secret": {"env": "UNSET_SECRET"}}, "identity_secret: environment variable UNSET_SECRET"),
        ({"identity_secret": {"value": preflight.DEV_IDENTITY_SECRET}}, "identity_secret: is the public one"),
        ({"sakari": {"base_url": "http://api.sakari.io"}}, "sakari.base_url: http://api.sakari.io is not"),
        (
            {"users": {"base_url": "http://example.com"}},
            "users.base_url: http://example.com is not",
        ),
        ({"receiver": {}}, "receiver.users_api_keys: missing"),
        ({"receiver": {"users_api_keys": ["/nowhere.pem"]}}, "receiver.users_api_keys.0: is neither PEM nor"),
        ({"tenants": {"acme": {}}}, "tenants.acme: has neither"),
        (
            {"tenants": {"acme": {"sakari": [ACCOUNT]}}},
            "tenants.acme.sakari.0.webhook_secrets_sha256",
        ),
        ({"poll": {"reconcile_days": 46}}, "poll.reconcile_days: must be at most decode.seen_days"),
        ({"engagement": {"grace_s": 45 * 86_400 + 1}}, "engagement.grace_s: must be at most"),
        ({"runtime": {"heartbeat_interval_ms": 20_000}}, "runtime.heartbeat_interval_ms: must be at most"),
        ({"breaker": {"backoff_initial_s": 61}}, "breaker.backoff_initial_s: must be at most"),
    ],
)
def test_each_problem_is_told_with_its_field(given: dict[str, Any], told: str) -> None:
    """One wrong thing is one problem."""
    (problem,) = preflight.problems(settings(**given))
    assert problem.startswith(told)


@pytest.mark.parametrize(
    ("kafka", "fields"),
    [
        ({"security_protocol": "SASL_SSL"}, ["sasl_username", "sasl_password"]),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u", "sasl_password": SECRET},
            ["security_protocol"],
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": {"env": "UNSET_SECRET"}},
            ["sasl_password"],
        ),
        ({"ssl_keyfile": "/nowhere/key"}, ["ssl_certfile", "ssl_keyfile"]),
    ],
)
def test_what_kafka_would_refuse_is_told_before(kafka: dict[str, Any], fields: list[str]) -> None:
    """Missing credentials, files that are none, a password in clear."""
    told = list(preflight.problems(settings(kafka={"bootstrap_servers": "k:9092", **kafka})))
    assert [problem.split(":")[0] for problem in told] == [f"kafka.{field}" for field in fields]


@pytest.mark.parametrize(
    ("auth", "secret", "told"),
    [
        ("shared-secret", "short", "has 5 characters; at least 16 are needed"),
        ("standard-webhooks", GOOD, "is no Standard Webhooks secret (whsec_ and base64)"),
        ("standard-webhooks", "whsec_QUJD", "holds 3 bytes; a Standard Webhooks secret has at least 24"),
        ("standard-webhooks", SIGNING, None),
        ("shared-secret", GOOD, None),
    ],
)
def test_the_secret_of_a_source_must_keep_forgers_out(auth: str, secret: str, told: str | None) -> None:
    """Too short, or of the wrong kind, is told; the secret is not."""
    found = list(preflight.problems(settings(sources={"s": {"auth": auth, "secret": {"value": secret}}})))
    assert found == ([] if told is None else [f"sources.s.secret: {told}"])


def test_a_secret_of_a_tenant_that_is_missing_is_not_the_process_end() -> None:
    """That tenant alone is disabled."""
    sakari = ACCOUNT | HASHES | {"client_secret": {"file": Path("/nowhere")}}
    assert list(preflight.problems(settings(tenants={"acme": {"sakari": [sakari]}}, receiver={}))) == []


def test_the_development_profile_takes_what_production_refuses() -> None:
    """`pipeline dev` needs no https and no secret of its own."""
    given = {"identity_secret": {"value": preflight.DEV_IDENTITY_SECRET}, "receiver": {}}
    assert (
        list(preflight.problems(settings(profile="dev", users={"base_url": "http://x.test"}, **given))) == []
    )


def test_parts_are_selected_by_name() -> None:
    """Repeated or separated by commas; none given means all."""
    assert preflight.selected(["clock, decode", "clock"]) == {"clock", "decode"}
    assert preflight.selected([]) == preflight.selected([" , "]) == set(preflight.NAMES)


def test_unknown_parts_are_told_with_what_is_known() -> None:
    """All of them, each with what may have been meant."""
    with pytest.raises(ConfigError) as caught:
        preflight.selected(["decod,zzz"])
    first, second = caught.value.problems
    assert first.startswith("--only: 'decod' is unknown; did you mean decode? Known: receiver, clock")
    assert second.startswith("--only: 'zzz' is unknown. Known: receiver")
