"""Verifies who sent a webhook. Secrets are compared in constant time and never leave this module."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pipeline.errors import ConfigError

__all__ = ["ed25519", "path_secret", "public_keys", "shared_secret", "standard_webhook"]


def public_keys(given: Iterable[str]) -> tuple[Ed25519PublicKey, ...]:
    """
    The Ed25519 keys in *given*, each PEM text or the path of a PEM file.

    Raises:
        ConfigError: one cannot be read, or is of another kind; names which.
    """
    return tuple(_public_key(text, number) for number, text in enumerate(given))


def _public_key(text: str, number: int) -> Ed25519PublicKey:
    where = f"receiver.users_api_keys.{number}"
    try:
        pem = text if "BEGIN" in text else Path(text).read_text()
        key = load_pem_public_key(pem.encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: is neither PEM nor a file that holds it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{where}: must be an Ed25519 public key")
    return key


def ed25519(signature: str | None, body: bytes, keys: Sequence[Ed25519PublicKey]) -> bool | None:
    """Whether one of *keys* made the base64 *signature* of *body*; None if there is no signature at all."""
    if signature is None or signature.strip().upper() in {"", "N/A"}:
        return None
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_signed(key, raw, body) for key in keys)


def _signed(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def path_secret(secret: str, sha256_hex: Iterable[str]) -> bool:
    """Whether the SHA-256 of *secret* is among *sha256_hex*; every one is compared."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    matches = [hmac.compare_digest(digest, known) for known in sha256_hex]
    return any(matches)


def shared_secret(given: str | None, secret: str) -> bool:
    """Whether the header's value is *secret*."""
    return given is not None and hmac.compare_digest(given.encode(), secret.encode())


def standard_webhook(
    headers: Mapping[str, str], body: bytes, secret: str, now_s: float, tolerance_s: float
) -> bool:
    """
    Whether *headers* sign *body* as Standard Webhooks 1.0 says.

    The headers are ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.
    *secret* is ``whsec_`` and base64. A timestamp further from *now_s* than *tolerance_s* fails.
    """
    identifier, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (identifier and stamp.isdecimal() and abs(now_s - int(stamp)) <= tolerance_s):
        return False
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"))
    except binascii.Error:
        return False
    signed = f"{identifier}.{stamp}.".encode() + body
    wanted = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(wanted, one.encode()) for one in given)
