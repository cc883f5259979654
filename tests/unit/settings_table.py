"""``docs/settings.md``, made from the settings: ``python -m tests.unit.settings_table`` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.settings import SecretRef, Settings

FILE = Path(__file__).parents[2] / "docs" / "settings.md"
INTRODUCTION = """# Settings

Read once, from a YAML file (`pipeline run --settings FILE`) and the environment, which wins field by field:
`PIPELINE_RECEIVER__PORT=8081` is `receiver.port`. Lists are JSON in the environment. A secret is never in the
file: it is named by `{file: PATH}` or `{env: NAME}`. Everything that is wrong is told at once.

This table is made from `pipeline/settings.py` by `python -m tests.unit.settings_table`, and a test compares
them.

| setting | default | unit | meaning |
|---|---|---|---|
"""
_UNITS = {"_10_s": "number", "_ms": "ms", "_s": "s", "_bytes": "bytes", "_days": "days", "_per_s": "number"}


def rows(model: type[BaseModel] = Settings, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Name, default, unit and meaning of every setting."""
    for name, info in model.model_fields.items():
        where = f"{path}{name}"
        inner, suffix = _inner(info.annotation)
        if inner is not None and inner is not SecretRef:
            yield from rows(inner, f"{where}{suffix}.")
        else:
            yield where, _default(info), unit(name), _meaning(info)


def unit(name: str) -> str:
    """The unit that a setting's name tells."""
    if "_per_" in name:
        return "requests"
    return next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, and how its path goes on: one, a list, or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    found = [arg for arg in get_args(annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    if not found:
        return None, ""
    origin = get_origin(annotation)
    return found[-1], ".N" if origin is tuple else ".NAME" if origin is dict else ""


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined and info.default_factory is None:
        return "required"
    default = info.get_default(call_default_factory=True)
    if default is None or default in ("", (), {}):
        return ""
    listed = ", ".join(default) if isinstance(default, tuple) else default
    return f"`{str(listed).lower() if isinstance(default, bool) else listed}`"


def _meaning(info: FieldInfo) -> str:
    allowed = [str(value) for value in get_args(info.annotation)]
    choice = f" ({' or '.join(allowed)})" if get_origin(info.annotation) is Literal else ""
    return f"{info.description or ''}{choice}".replace("|", "\\|")


def table() -> str:
    """The whole file."""
    return INTRODUCTION + "".join(f"| `{a}` | {b} | {c} | {d} |\n" for a, b, c, d in rows())


if __name__ == "__main__":
    FILE.write_text(table())
