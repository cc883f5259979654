"""
Logs: one line an event, named ``noun.past_participle``, with secrets and phone numbers masked.

JSON where the output is no terminal, else aligned text. What libraries log by way of `logging` takes
the same road. `mask` does the same for texts that leave by another way, such as the errors of an API.

What is masked, in every value at any depth, in names inside values and in the text of exceptions:

* whatever stands under a name that speaks of a secret (``refresh_token``, ``Authorization``, …) or of a
  phone, in a mapping as well as inside text (``client_secret=…``, ``"mobile": "…"``);
* the secret of a webhook path, ``Bearer``, ``Basic`` and ``Digest`` credentials, JSON Web Tokens,
  Private Integration Tokens (``pit-…``), passwords in URLs and private keys in PEM;
* phone numbers that can be told from other numbers: with ``+``, ``%2B`` or ``00`` before the country
  code, or as dialled, with an area code in parentheses, a trunk ``0`` or North America's 3-3-4 grouping.

A bare run of digits is *not* masked in free text: it may be an offset, a time in milliseconds, an id or
part of a hash, and those make logs useful. So log no number but under a name that says what it is.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog

__all__ = ["configure", "mask", "mask_event", "mask_problem"]

MASKED = "***"

#: The largest integer that JSON readers keep exact in 64 bits.
_INT64 = 2**63
#: Deeper values are masked as their ``repr``.
_MAX_DEPTH = 8

_SENSITIVE = (
    r"(?:authorization|token|secret|passw(?:or)?d|signature|api[_-]?key|private[_-]?key|credential|cookie)"
)
_PHONE_WORD = r"(?:phone|mobile|msisdn)(?:[_-]?numbers?)?"
_SENSITIVE_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
_PHONE_NAME = re.compile(rf"{_PHONE_WORD}$", re.IGNORECASE)

#: Between a name and its value: ``=``, ``: ``, ``": "``, also escaped, or the comma of a pair in a repr.
_IS = r"(?:\\?[\"']?\s*[:=]\s*|[\"']\s*,\s*(?=b?[\"']))"
#: A value: quoted (or cut off before its closing quote), in brackets, or up to what ends it.
_ITS_VALUE = r"(?:b?(\\?[\"']).*?(?:(?<!\\)\2|\Z)|[\[{].*?(?:[\]}]|\Z)|(?!\*\*\*)[^\s\"'&,;}\])]+)"

_PLUS = r"(?:[+＋]|%2[Bb])"
_GAP = r"[\s().\-/\u00ad\u2010-\u2015]{0,3}"
_DASH = r"[\s.\-/\u00ad\u2010-\u2015]{1,3}"
#: Not within an id, an address, a time or a decimal.
_ALONE = r"(?<![\w.:+\-])"
_END = r"(?!\w|[.:\-]\w)"
_DATE = r"\d{4}-\d\d-\d\d(?!\d)"

#: What is masked inside text, and what stands in its place; in this order.
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", MASKED),
        (r"(/in/sakari/[^/\s\"']*/)[^/\s\"'?#]+", rf"\1{MASKED}"),
        (r"(://[^/\s:@]*:)[^/\s@]+@", rf"\1{MASKED}@"),
        (r"\b(bearer|basic|digest)(\s+)(?!\*)[\w.~+/=:\-]+", rf"\1\2{MASKED}"),
        (r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2}))eyJ[\w\-]{4,}\.[\w\-]+(?:\.[\w\-]*)*", MASKED),
        (r"\bpit-[0-9a-z\-]{16,}", MASKED),
        (rf"({_SENSITIVE}[\w\-]{{0,40}}{_IS}){_ITS_VALUE}", rf"\1{MASKED}"),
        (rf"((?:{_PHONE_WORD}|[\"']number){_IS}b?\\?[\"']?)[\d\s().+\-/]{{5,}}", rf"\1{MASKED}"),
        # E.164, first without gaps so that it ends where it ends; then with; then behind 00
        (rf"{_PLUS}[1-9]\d{{6,14}}(?!\d)", MASKED),
        (rf"{_PLUS}{_GAP}[1-9](?:{_GAP}\d){{6,14}}", MASKED),
        (rf"{_ALONE}00{_GAP}[1-9](?:{_GAP}\d){{7,13}}{_END}", MASKED),
        # as dialled: (area) number; North America's 3-3-4; a trunk 0 and nine digits or more
        (rf"(?:{_ALONE}1{_DASH})?\(\d{{2,6}}\){_GAP}\d{{2,5}}(?:{_GAP}\d{{2,5}}){{1,3}}(?!\d)", MASKED),
        (rf"{_ALONE}(?:1{_DASH})?[2-9]\d\d{_DASH}\d{{3}}{_DASH}\d{{4}}{_END}", MASKED),
        (
            rf"{_ALONE}(?!{_DATE})(?=(?:\D{{0,3}}\d){{9}})0\d{{1,4}}{_DASH}\d{{2,8}}(?:{_DASH}\d{{2,5}}){{0,3}}{_END}",
            MASKED,
        ),
    )
)


def mask(text: str) -> str:
    """*text* with every secret and phone number in it replaced by ``***``."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def mask_problem(text: str) -> str:
    """
    *text* masked, but for what its first words name: ``identity_secret: missing`` stays readable.

    For problems as `ConfigError` has them, whose texts are ours and hold no secret beside its name.
    """
    name, colon, told = text.partition(": ")
    return f"{mask(name)}{colon}{mask(told)}"


def mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: every value of *event* masked and made of what JSON knows."""
    return {str(name): _named(str(name), value, 0) for name, value in event.items()}


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002 - as the settings name it
    stream: TextIO | None = None,
) -> None:
    """
    Send the logs of structlog and `logging` to *stream* (stderr), masked, from *level* on.

    *format* ``auto`` is JSON where *stream* is no terminal. Calling it again replaces what was set.
    """
    stream = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    json = format == "json" or (format == "auto" and not stream.isatty())
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(_json if json else structlog.dev.ConsoleRenderer(colors=stream.isatty())))
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    logging.captureWarnings(capture=True)
    for noisy in ("aiokafka", "aiohttp.access", "asyncio", "jgo"):
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


def _formatter(renderer: Callable[..., str]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, mask_event, renderer],
        keep_exc_info=False,
        keep_stack_info=False,
    )


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    ordered = {name: event[name] for name in ("time", "level", "event") if name in event} | dict(event)
    return orjson.dumps(ordered).decode()


def _named(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _SENSITIVE_NAME.search(name) or _PHONE_NAME.search(name):
        return MASKED
    return _value(value, depth)


def _value(value: Any, depth: int) -> Any:
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if -_INT64 <= value < _INT64 else str(value)
        case str():
            return _safe(value)
        case bytes() | bytearray():
            return _safe(value.decode("utf-8", "backslashreplace"))
        case Mapping() if depth < _MAX_DEPTH:
            return {_safe(str(name)): _named(str(name), each, depth + 1) for name, each in value.items()}
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            return _values(value, depth)
        case _:
            return _safe(str(value) if isinstance(value, BaseException) else repr(value))


def _values(values: Iterable[Any], depth: int) -> list[Any]:
    return [_value(each, depth + 1) for each in values]


def _safe(text: str) -> str:
    return mask(text).encode("utf-8", "backslashreplace").decode()
