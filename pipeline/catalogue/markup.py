"""HTML as text: what is not made here is escaped, so nothing that a topic holds can become markup."""

from collections.abc import Iterable
from html import escape
from typing import final

__all__ = ["Html", "element", "joined"]


@final
class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str | Iterable[str], **attributes: str | bool) -> Html:
    """
    A *tag* around *content*; names of attributes lose a trailing ``_``, others become ``-``.

    An attribute that is True stands alone, one that is False is left out.
    """
    told = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in {"meta", "input", "link"}:
        return Html(f"<{tag}{told}>")
    return Html(f"<{tag}{told}>{joined(*content)}</{tag}>")


def joined(*content: str | Iterable[str]) -> Html:
    """*content*, one after the other, escaped where it is plain text."""
    return Html("".join(_safe(part) for each in content for part in _parts(each)))


def _parts(content: str | Iterable[str]) -> Iterable[str]:
    return (content,) if isinstance(content, str) else content


def _safe(part: str) -> str:
    return part if isinstance(part, Html) else escape(part)


def _attribute(name: str, value: str | bool) -> str:
    shown = name.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {shown}" if value else ""
    return f' {shown}="{escape(value)}"'
