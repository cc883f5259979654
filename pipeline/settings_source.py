"""Where settings come from: the YAML file, and the names of the ``PIPELINE_…`` variables."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

__all__ = ["read_yaml", "unknown_variables"]

#: `PIPELINE_…` variables that are no settings.
_OTHER_VARIABLES = ("PIPELINE_TEST_", "PIPELINE_VENDOR_DOCS")


def unknown_variables(fields: Mapping[str, Any]) -> list[str]:
    """
    Problems of ``PIPELINE_…`` variables that name none of *fields*: misspelt, they would do nothing.

    Without ``__`` only what is close to a field counts: platforms set variables of their own, such as
    ``PIPELINE_PORT`` for a Kubernetes service of that name.
    """
    problems: list[str] = []
    for name in sorted(os.environ):
        if not name.startswith("PIPELINE_") or name.startswith(_OTHER_VARIABLES):
            continue
        field = name.removeprefix("PIPELINE_").split("__", 1)[0].lower()
        close = get_close_matches(field, fields, 1, 0.6 if "__" in name else 0.85)
        if field not in fields and (close or "__" in name):
            hint = f"; did you mean PIPELINE_{close[0].upper()}?" if close else ""
            problems.append(f"environment variable {name}: names no setting{hint}")
    return problems


def read_yaml(file: Path, problems: list[str]) -> dict[str, Any]:
    """
    What *file* holds; adds what stands there twice, and secrets that stand there, to *problems*.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    try:
        text = file.read_text()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text) or {}
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is no YAML: {type(error).__name__}") from None
    problems += [f"{file}:{told}" for told in _twice(root, "")]
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        problems.append(f"{file}: must be a mapping of names to settings")
        return {}
    _refuse_secrets(values, "", problems)
    return values


def _twice(node: Any, path: str) -> Iterator[str]:
    """Names that a mapping holds twice: the last would silently win, as a tenant over its namesake."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{path}.{key.value}" if path else str(key.value)
            if str(key.value) in seen:
                yield f"{key.start_mark.line + 1}: {where}: stands here twice; keep one"
            seen.add(str(key.value))
            yield from _twice(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _twice(value, f"{path}.{index}")


def _refuse_secrets(values: Any, path: str, problems: list[str]) -> None:
    if isinstance(values, dict):
        for key, value in values.items():
            where = f"{path}.{key}" if path else str(key)
            if key == "value":
                problems.append(f"{where}: a secret may not stand in the file; name its file or env instead")
            _refuse_secrets(value, where, problems)
    elif isinstance(values, list):
        for index, value in enumerate(values):
            _refuse_secrets(value, f"{path}.{index}", problems)
