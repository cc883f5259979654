"""What leaves by the logs: masked, complete, one line an event."""

import hashlib
import io
import logging
import uuid
import warnings
from collections.abc import Iterator

import orjson
import phonenumbers
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pipeline.logs import configure, mask, mask_event, mask_problem

FORMATS = (
    phonenumbers.PhoneNumberFormat.E164,
    phonenumbers.PhoneNumberFormat.INTERNATIONAL,
    phonenumbers.PhoneNumberFormat.RFC3966,
)
REGIONS = ("US", "DE", "GB", "FR", "AU", "BR", "IN", "CH")
EXAMPLES = [
    number
    for region in REGIONS
    if (number := phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE))
]
DIALLED = (
    "(555) 010-4477",
    "555-010-4477",
    "555.010.4477",
    "1-555-010-4477",
    "1 (555) 010-4477",
    "0049 170 5550104",
    "00491705550104",
    "0170/5550104",
    "020 7946 0958",
    "%2B4917055501047",
    "(0170) 5550104",
)

plain_text = st.text(st.characters(codec="utf-8", exclude_categories=["Nd"]), max_size=30)
secrets = st.text("abcdefghijkmnpqrstuvwxyzABCDEFGH23456789_-", min_size=12, max_size=40)
phones = st.sampled_from(
    [phonenumbers.format_number(number, form) for number in EXAMPLES for form in FORMATS]
)
secret_names = st.sampled_from(
    ["token", "refresh_token", "Authorization", "client_secret", "X-Wh-Signature", "password", "apiKey"]
)


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """The stream that JSON logs go to; `logging` is put back afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure("debug", "auto", stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def nested(value: object) -> st.SearchStrategy[object]:
    """*value* at any depth of lists, tuples, mappings and sets, among other values."""
    return st.recursive(
        st.just(value),
        lambda inner: st.one_of(
            st.tuples(inner, st.integers()),
            st.lists(inner, min_size=1, max_size=3),
            st.dictionaries(st.sampled_from(["a", "b", "url"]), inner, min_size=1, max_size=2),
        ),
        max_leaves=6,
    )


@given(phones, plain_text, plain_text)
def test_a_phone_number_is_masked_in_any_text(phone: str, before: str, after: str) -> None:
    """An international phone number never survives, whatever stands around it."""
    digits = "".join(filter(str.isdigit, phone))
    assert digits[-6:] not in "".join(filter(str.isdigit, mask(f"{before}{phone}{after}")))


@pytest.mark.parametrize("phone", DIALLED)
def test_a_dialled_number_is_masked_in_a_sentence(phone: str) -> None:
    """The common dialled forms are masked, and nothing but them."""
    assert mask(f"cannot send to {phone}: refused") == "cannot send to ***: refused"


@given(secret_names, secrets, st.data())
def test_a_secret_is_masked_under_its_name_at_any_depth(name: str, secret: str, data: st.DataObject) -> None:
    """Whatever stands under a name that speaks of a secret is masked, however deep."""
    event = {"event": "x.done", "detail": data.draw(nested({name: data.draw(nested(secret))}))}
    assert secret not in repr(mask_event(None, "", event))


@given(
    secret_names,
    secrets,
    st.sampled_from(['{{"{}":"{}"}}', "{}={}&x=1", "{}: {}", '{{"{}": "{}', "('{}', '{}')"]),
)
def test_a_secret_is_masked_inside_text(name: str, secret: str, form: str) -> None:
    """JSON, also when cut off, forms, headers and reprs inside a text are masked."""
    assert secret not in mask(form.format(name, secret))


@given(secrets, st.sampled_from(["Bearer {}", "bearer {}", "https://user:{}@host/", "/in/sakari/acme/{}"]))
def test_a_credential_is_masked_without_a_name(secret: str, form: str) -> None:
    """Credentials that show by their form alone are masked."""
    assert secret not in mask(f"failed at {form.format(secret)} again")


def test_a_webhook_path_keeps_its_tenant() -> None:
    """Of a webhook path only the secret goes: the tenant says whose it was."""
    assert mask("POST /in/sakari/acme/s3cr3t?x=1 404") == "POST /in/sakari/acme/***?x=1 404"


@given(st.uuids(), st.integers(0, 10**18), st.binary(max_size=8), st.datetimes())
def test_ids_offsets_hashes_and_times_stay(
    identifier: uuid.UUID, offset: int, data: bytes, moment: object
) -> None:
    """What makes a log useful is not taken for a phone number."""
    digest = hashlib.sha256(data).hexdigest()
    line = f"record {identifier} at {offset} of sakari.events-0 ({digest}) {moment} acme:m:{digest[:32]}"
    assert mask(line) == line


@given(st.text(max_size=200))
def test_masking_twice_changes_nothing_more(line: str) -> None:
    """Masked text stays as it is: errors are masked where they arise and again in the log."""
    assert mask(mask(line)) == mask(line)


@pytest.mark.parametrize("piece", ["token", "eyJ", '"token":"', "1 ", "0-", "(", "+1", "a", "://"])
def test_masking_long_text_stays_fast(piece: str) -> None:
    """No text, however built, holds up the loop: 40 KB are masked within the time limit of the test."""
    assert len(mask(piece * (40_000 // len(piece)))) <= 60_000


def test_an_exception_is_masked(out: io.StringIO) -> None:
    """The text of an exception and of its causes is masked as everything else."""
    error = ValueError("number +49 170 5550104")
    error.__cause__ = KeyError("Bearer abcdefghij")
    structlog.get_logger().error("post.failed", exc_info=error)
    logged = orjson.loads(out.getvalue())
    assert "ValueError: number ***" in logged["exception"]
    assert "abcdefghij" not in logged["exception"]


def test_a_log_of_a_library_is_one_masked_json_line(out: io.StringIO) -> None:
    """Standard logging takes the same road, its arguments included."""
    logging.getLogger("some.library").warning("connected as %s", {"password": "hunter-two"})
    logged = orjson.loads(out.getvalue())
    assert (logged["logger"], logged["level"]) == ("some.library", "warning")
    assert "hunter-two" not in logged["event"]


def test_a_warning_is_logged(out: io.StringIO) -> None:
    """Python's own warnings do not break the JSON lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=True)
        warnings.warn("call +4917055501047", stacklevel=1)
    assert "call ***" in orjson.loads(out.getvalue())["event"]


def test_values_that_json_does_not_know_are_told(out: io.StringIO) -> None:
    """A log call never fails for its values: bytes, sets, huge integers, lone surrogates, objects."""
    structlog.get_logger().info(
        "value.told", data=b"\xff", huge=2**70, odd="\ud800", many={"a"}, path=ValueError("x"), none=None
    )
    logged = orjson.loads(out.getvalue())
    assert (logged["event"], logged["huge"], logged["many"], logged["none"]) == (
        "value.told",
        str(2**70),
        ["a"],
        None,
    )


def test_a_line_begins_with_time_level_and_event(out: io.StringIO) -> None:
    """Every line begins alike, so that it can be read without a tool."""
    structlog.get_logger().info("partition.revoked", stage="decode", partition=1)
    assert list(orjson.loads(out.getvalue())) == ["time", "level", "event", "stage", "partition"]


def test_the_level_holds_for_both_roads(out: io.StringIO) -> None:
    """Below the level nothing is written, by structlog nor by logging."""
    configure("warning", "json", out)
    structlog.get_logger().info("record.appended")
    logging.getLogger("x").info("told")
    assert out.getvalue() == ""


def test_a_console_gets_aligned_text(out: io.StringIO) -> None:
    """The format console is no JSON, and masked as well."""
    configure("info", "console", out)
    structlog.get_logger().info("token.refreshed", token="abcdefghijkl")
    assert "token.refreshed" in out.getvalue()
    assert "abcdefghijkl" not in out.getvalue()


def test_a_problem_keeps_what_is_wrong_with_the_field_of_a_secret() -> None:
    """An operator who gave no secret is told so; what a problem quotes behind that is masked as ever."""
    assert mask_problem("identity_secret: missing; name a file") == "identity_secret: missing; name a file"
    assert "hunter2" not in mask_problem("kafka: refused with password=hunter2")
