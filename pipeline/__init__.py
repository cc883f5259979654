"""
An exactly-once event-stream pipeline between Sakari (SMS) and the Users API (HighLevel).

Those who read its topics begin with `pipeline.subscribe`. The names here are for those who read them with a
client of their own; both need the base install only. `load_topics` says what stands where, a `Codec` of these
topics turns a `Record` into an `Event` whose value is one of `pipeline.events`, and `RecordError` is what it
raises where it cannot.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.codec import Codec, Record
    from pipeline.errors import RecordError
    from pipeline.stage import Event
    from pipeline.topics import Topic, Topics
    from pipeline.topics import load as load_topics

__all__ = ["Codec", "Event", "Record", "RecordError", "Topic", "Topics", "load_topics"]

#: Public name -> where it is. It is imported when first asked for: a command line pays for what it uses.
_PLACES = {
    "Codec": ("pipeline.codec", "Codec"),
    "Event": ("pipeline.stage", "Event"),
    "Record": ("pipeline.codec", "Record"),
    "RecordError": ("pipeline.errors", "RecordError"),
    "Topic": ("pipeline.topics", "Topic"),
    "Topics": ("pipeline.topics", "Topics"),
    "load_topics": ("pipeline.topics", "load"),
}

if not TYPE_CHECKING:  # to the type checker a misspelt name stays an error

    def __getattr__(name):  # noqa: ANN001, ANN202 - see above
        """The public *name*, imported when first asked for."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _PLACES[name]
        value = globals()[name] = getattr(import_module(module), attribute)
        return value

    def __dir__():  # noqa: ANN202
        """All names, the public ones included."""
        return sorted({*globals(), *__all__})
