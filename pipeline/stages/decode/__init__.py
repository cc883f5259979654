"""
Type, identify and deduplicate what the sources received; give it the contact key.

Reads    ``sources.received``  key: native key; raw webhooks and polled items · ``clock.ticks``
         ``redactions``  key: contact key or native key; who was erased, and is left out
Writes   ``sakari.events``, ``users.events``, ``sources.events``  key: contact key; each fact once
         ``sakari.contacts``, ``users.contacts``  compacted, key: contact key | native id
         ``users.tags``, ``users.users``, ``users.accounts``, ``users.statistics``  compacted
State    ``keys``       native key -> contact key: the first one wins, only contact records move it
         ``contacts``   native key -> the contact, and from when each of its fields is
         ``resources``  topic | table key -> digest and order of tags, users, accounts
         ``snapshots``  day, table key -> digest of a statistics snapshot, ``seen_days`` long
         ``seen``       day, resource -> the kinds of its facts that were told, ``seen_days`` long
         ``marks``      up to which day ``seen`` and ``snapshots`` were dropped
         ``redacted``   contact keys and native keys of those who were erased
Time     facts carry their own; a contact's records are ordered by ``updated.at``, else by arrival or
         the start of their scan; ``now`` serves to forget what is older than ``seen_days`` only
Repeats  a redelivered record changes nothing, and any order of one key's records ends in the same
         tables and the same set of fact ids. Five things depend on the order, and must:

         - An opt change without a time counts when it changes the state it meets.
         - ``…contact.moved`` is told when a number's change is seen; of a change that a newer record
           overtook nothing is seen. The facts before stay under the key they were written with.
         - A contact no record of which tells its number keeps the key of whatever came first.
         - Of several records that imply the same fact, the first one gives its other fields.
         - Records without ``updated.at`` are ordered by when they were observed, as no other order
           is known.

         A fact whose day is further back than ``seen_days`` is recognised until the next midnight only.
"""

from collections.abc import Callable

from pipeline.errors import RecordError
from pipeline.events import Received, Redaction, Tick
from pipeline.stage import NOTHING, Cursor, Event, Outcome, Stage, Stores
from pipeline.stages.decode import erasure, facts, sakari, sources, users
from pipeline.stages.decode.config import Config, SourceConfig, TenantConfig
from pipeline.stages.decode.intake import Intake, Keys
from pipeline.stages.decode.stores import STORES
from pipeline.stages.redactions import is_redacted

__all__ = ["Config", "SourceConfig", "TenantConfig", "stage"]

_INPUTS = ("redactions", "sources.received", "clock.ticks")
_OUTPUTS = (
    "sakari.contacts",
    "users.contacts",
    "users.tags",
    "users.users",
    "users.accounts",
    "users.statistics",
    "sakari.events",
    "users.events",
    "sources.events",
)


def stage(config: Config) -> Stage:
    """The decode stage for the tenants and sources of *config*."""
    return Stage(
        name="decode",
        inputs=_INPUTS,
        outputs=_OUTPUTS,
        stores=STORES,
        step=_step(config, Keys(config.identity)),
        resume=_resume,
    )


def _resume(read: Stores, cursor: Cursor) -> Outcome:
    return (erasure.swept if cursor.job.startswith(erasure.SWEEP) else facts.drop)(read, cursor)


def _step(config: Config, keys: Keys) -> Callable[[Stores, Event[Received | Redaction | Tick]], Outcome]:
    def step(read: Stores, event: Event[Received | Redaction | Tick]) -> Outcome:
        """Decode one record; a redaction forgets a person, a tick what is too old."""
        value = event.value
        if isinstance(value, Tick):
            return facts.tick(read, value.at, config.seen_days)
        if event.topic == "redactions":
            return erasure.redact(read, event)
        return _decode(config, keys, read, event)  # type: ignore[arg-type]

    return step


def _decode(config: Config, keys: Keys, read: Stores, event: Event[Received]) -> Outcome:
    record: Received | None = event.value
    if record is None:
        raise RecordError("unreadable", "the record has no value")
    terms = config.tenants.get(record.tenant)
    if terms is None:
        raise RecordError("unknown-tenant", "header tenant: is none of the settings'")
    if not event.key.startswith(f"{record.tenant}:"):
        raise RecordError("wrong-key", "the record's key is of another tenant")
    if is_redacted(read, event.key):
        return NOTHING
    intake = Intake(read, event, terms, keys)
    match record.product:
        case "sakari":
            sakari.take(intake)
        case "users":
            users.take(intake)
        case _ if (source := config.sources.get(record.product)) is not None:
            sources.take(intake, source)
        case _:
            raise RecordError("unknown-source", "header product: is none of the settings'")
    return erasure.without_redacted(read, event.key, intake.outcome())
