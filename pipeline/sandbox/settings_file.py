"""
Writes the settings with which a pipeline works against this sandbox: a YAML file, and a file per secret.

Intervals are those of development: a tick a second, scans and posts every few seconds, and the grace with
which windows of the sample traffic close during a run.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from pipeline.sandbox.program import Program, path_secret
from pipeline.sandbox.traffic_time import dev_grace_s
from pipeline.sandbox.world import TenantWorld
from pipeline.settings import DEV_IDENTITY_SECRET

__all__ = ["written"]

_POLL_S = 4.0


def written(program: Program, folder: Path, *, bootstrap_servers: str = "", receiver_port: int = 0) -> Path:
    """Write ``settings.yaml`` and ``secrets/`` into *folder*; the path of the former."""
    secrets = folder / "secrets"
    secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    values = {
        "application_id": "dev",
        "profile": "dev",
        "identity_secret": _secret(secrets, "identity", DEV_IDENTITY_SECRET),
        "kafka": {"bootstrap_servers": bootstrap_servers},
        "runtime": {
            "state_dir": str((folder / "state").absolute()),
            # The partitions of a process that was killed are taken over after this.
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 2_000,
        },
        "admin": {"port": 0},
        "receiver": {"port": receiver_port, "users_api_keys": [program.servers.public_key_pem]},
        "clock": {"interval_s": 1.0},
        "engagement": {
            "grace_s": dev_grace_s(program.traffic.world.start_ms, program.options.closes_after_s)
        },
        "poll": {f"{name}_s": _POLL_S for name in _POLLED},
        "sink": {"open_interval_s": 5.0, "contact_interval_s": 5.0, "unanswered_s": 5.0},
        "sakari": {"base_url": program.servers.sakari_url, "requests_per_s": 100.0},
        "users": {"base_url": program.servers.users_url},
        "tenants": {
            name: _tenant(program, tenant, secrets) for name, tenant in program.traffic.world.tenants.items()
        },
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


_POLLED = (
    "tags",
    "statistics",
    "accounts",
    "users",
    "users_contacts",
    "sakari_contacts",
    "messages",
    "conversations",
)


def _tenant(program: Program, tenant: TenantWorld, secrets: Path) -> dict[str, Any]:
    spec, account, location = tenant.spec, tenant.account, tenant.location
    digest = hashlib.sha256(path_secret(program.options.seed, account.id).encode()).hexdigest()
    users = program.servers.state.users
    return {
        "time_zone": spec.time_zone,
        "region": spec.region,
        "dialect": spec.dialect,
        "sakari": [
            {
                "account_id": account.id,
                "client_id": _secret(secrets, f"{spec.name}-sakari-id", account.client_id),
                "client_secret": _secret(secrets, f"{spec.name}-sakari-secret", account.client_secret),
                "webhook_secrets_sha256": [digest],
            }
        ],
        "users": [
            {
                "location_id": location.id,
                "company_id": users.company_id,
                "client_id": _secret(secrets, "users-client-id", users.client_id),
                "client_secret": _secret(secrets, "users-client-secret", users.client_secret),
                "refresh_token": _secret(
                    secrets, f"{spec.name}-users-refresh", program.refresh_tokens[location.id]
                ),
            }
        ],
    }


def _secret(folder: Path, name: str, text: str) -> dict[str, str]:
    path = (folder / name).absolute()
    path.touch(mode=0o600)
    path.write_text(text)
    return {"file": str(path)}
