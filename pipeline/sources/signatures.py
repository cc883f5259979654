"""
Verifies who sent a webhook. Secrets are compared in constant time and never leave this module.

Header values may hold bytes that are no UTF-8 (as surrogates): such are compared like any other.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from pipeline.errors import ConfigError

__all__ = ["ed25519", "path_secret", "public_keys", "shared_secret", "signing_key", "standard_webhook"]

#: Seconds since 1970 in the header ``webhook-timestamp``.
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)

#: Standard Webhooks 1.0 asks for a signing secret of 24 to 64 bytes.
MIN_SIGNING_BYTES = 24


def public_keys(given: Iterable[str]) -> tuple[VerifyKey, ...]:
    """
    The Ed25519 keys in *given*, each PEM text or the path of a PEM file.

    libsodium's, which verify in less than half the time that those of OpenSSL take.

    Raises:
        ConfigError: some cannot be read, or are of another kind; names all of them.
    """
    keys: list[VerifyKey] = []
    problems: list[str] = []
    for number, text in enumerate(given):
        try:
            keys.append(_public_key(text))
        except ConfigError as error:
            problems.append(f"receiver.users_api_keys.{number}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(keys)


def _public_key(text: str) -> VerifyKey:
    try:
        pem = text if "BEGIN" in text else Path(text).read_text()
        key = load_pem_public_key(pem.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("is neither PEM nor a file that holds it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("must be an Ed25519 public key")
    return VerifyKey(key.public_bytes_raw())


def ed25519(signature: str | None, body: bytes, keys: Sequence[VerifyKey]) -> bool | None:
    """Whether one of *keys* made the base64 *signature* of *body*; None if there is no signature at all."""
    if signature is None or signature.strip().upper() in {"", "N/A"}:
        return None
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(_signed(key, raw, body) for key in keys)


def _signed(key: VerifyKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(body, signature)
    except CryptoError:  # also where it is not 64 bytes long
        return False
    return True


def path_secret(secret: str, sha256_hex: Iterable[str]) -> bool:
    """Whether the SHA-256 of *secret* is among *sha256_hex*; every one is compared."""
    digest = hashlib.sha256(_bytes(secret)).hexdigest()
    matches = [hmac.compare_digest(digest, known) for known in sha256_hex]
    return any(matches)


def shared_secret(given: str | None, secret: str) -> bool:
    """Whether the header's value is *secret*."""
    return given is not None and hmac.compare_digest(_bytes(given), secret.encode())


def signing_key(secret: str) -> bytes:
    """
    The bytes of a Standard Webhooks *secret*: ``whsec_`` and base64.

    Raises:
        ConfigError: it is none, or too short to keep a forger out.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError("is no Standard Webhooks secret (whsec_ and base64)") from error
    if len(key) < MIN_SIGNING_BYTES:
        raise ConfigError(
            f"holds {len(key)} bytes; a Standard Webhooks secret has at least {MIN_SIGNING_BYTES}"
        )
    return key


def standard_webhook(
    headers: Mapping[str, str], body: bytes, secret: str, now_s: float, tolerance_s: float
) -> bool:
    """
    Whether *headers* sign *body* as Standard Webhooks 1.0 says.

    The headers are ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.
    *secret* is ``whsec_`` and base64. A timestamp further from *now_s* than *tolerance_s* fails.
    """
    identifier, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (identifier and _SECONDS.fullmatch(stamp) and abs(now_s - int(stamp)) <= tolerance_s):
        return False
    try:
        key = signing_key(secret)
    except ConfigError:
        return False
    signed = _bytes(f"{identifier}.{stamp}.") + body
    wanted = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    given = headers.get("webhook-signature", "").split()
    matches = [hmac.compare_digest(wanted, _bytes(one)) for one in given]
    return any(matches)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
