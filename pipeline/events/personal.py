"""Which fields tell of a person, as the types say it (`pipeline.events.fields`)."""

from collections.abc import Iterator

import msgspec
from msgspec import inspect

from pipeline.events.fields import Personal

__all__ = ["classified", "direct"]


def classified(struct: type[msgspec.Struct]) -> dict[str, Personal | None]:
    """
    Path -> class of every field of *struct* that holds text; None where the type does not say.

    A path is dotted, ``*`` stands for the items of a list: ``tags.*.name``. Of a union's members all
    fields are there, ``type`` excepted, which says only which member it is.
    """
    return dict(_walk(inspect.type_info(struct), "", None))


def direct(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The paths of *struct* that tell who a person is or what they wrote, in the order of its fields."""
    return tuple(path for path, found in classified(struct).items() if found == "direct")


def _walk(kind: inspect.Type, path: str, personal: Personal | None) -> Iterator[tuple[str, Personal | None]]:
    match kind:
        case inspect.Metadata():
            told = (kind.extra_json_schema or {}).get("x-personal-data")
            yield from _walk(kind.type, path, personal or told)
        case inspect.StructType():
            for field in kind.fields:
                yield from _walk(field.type, f"{path}.{field.encode_name}".lstrip("."), None)
        case inspect.UnionType():
            for member in kind.types:
                yield from _walk(member, path, personal)
        case inspect.VarTupleType() | inspect.ListType() if _holds_structs(kind.item_type):
            yield from _walk(kind.item_type, f"{path}.*", None)
        case inspect.NoneType() | inspect.BoolType() | inspect.IntType() | inspect.FloatType():
            return
        case _:
            yield path, personal


def _holds_structs(kind: inspect.Type) -> bool:
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(member, inspect.StructType) for member in members)
