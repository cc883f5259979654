"""
The vendors' OpenAPI documents as validators: found by ``PIPELINE_VENDOR_DOCS``, never copied.

Both documents leave almost every property optional and every object open, so that plain validation would pass
nearly anything. Answers are therefore validated *closed*: a property that the document does not name is a
finding, unless `sandbox_deviations` lists it with its reason. Top-level properties must all be there.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "apis"


def docs_dir() -> Path | None:
    """The folder of the vendors' documents; None where there is none."""
    folder = Path(os.environ.get("PIPELINE_VENDOR_DOCS") or DEFAULT)
    return folder if (folder / "sakari").is_dir() and (folder / "users-api").is_dir() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """
    Where the wire is not as the document says. The wire stands.

    *where* is a component schema or ``operationId:status``; *at* a dotted path of properties in it (empty:
    all of it); *schema* what stands there instead.
    """

    where: str
    at: str
    schema: Json
    reason: str


class Document:
    """One OpenAPI 3.0 document with its deviations applied."""

    def __init__(self, path: Path, deviations: Iterable[Deviation]) -> None:
        self.name = path.name
        text = path.read_text()
        self._root: Json = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        self._deviations = tuple(deviations)
        for deviation in self._deviations:
            self._apply(deviation)

    @cached_property
    def operations(self) -> Mapping[str, "DocumentedOperation"]:
        """All operations by their id."""
        found = [
            DocumentedOperation(self, method.upper(), path, each)
            for path, methods in self._root["paths"].items()
            for method, each in methods.items()
            if isinstance(each, dict) and "operationId" in each
        ]
        return {operation.id: operation for operation in found}

    def resolve(self, node: Any) -> Any:
        """*node* with every reference replaced by what it names; a dangling one becomes an open schema."""
        if isinstance(node, list):
            return [self.resolve(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self.resolve(self._named(str(node["$ref"])))
        return {name: self.resolve(value) for name, value in node.items()}

    def component(self, name: str) -> Json:
        """A component schema, references left in place; made where only a deviation knows it."""
        found: Json = self._root["components"]["schemas"].setdefault(name, {})
        return found

    def _named(self, reference: str) -> Any:
        file, _, pointer = reference.partition("#")
        parts = pointer.strip("/").split("/")
        if file:  # the vendor's shared file is not published; its schemas are deviations
            return self.component(parts[-1])
        node: Any = self._root
        for part in parts:
            node = node[part]
        return node

    def _apply(self, deviation: Deviation) -> None:
        operation, colon, status = deviation.where.rpartition(":")
        node = self._answer(operation, status) if colon else self.component(deviation.where)
        *path, last = [part for part in deviation.at.split(".") if part] or [""]
        for part in path:
            node = _child(node, part)
        if last:
            node.setdefault("properties", {})[last] = deviation.schema
        else:
            node.clear()
            node.update(deviation.schema)

    def _answer(self, operation: str, status: str) -> Json:
        for methods in self._root["paths"].values():
            for each in methods.values():
                if isinstance(each, dict) and each.get("operationId") == operation:
                    content = each["responses"].setdefault(status, {}).setdefault("content", {})
                    found: Json = content.setdefault("application/json", {}).setdefault("schema", {})
                    if "$ref" in found:
                        found = content["application/json"]["schema"] = self.resolve(found)
                    return found
        raise KeyError(f"{self.name} has no operation {operation}")


@dataclass(frozen=True, slots=True)
class DocumentedOperation:
    """One operation: where it is, and whether a request or an answer is as the document says."""

    document: Document
    method: str
    path: str
    spec: Json

    @property
    def id(self) -> str:
        """The operationId."""
        return str(self.spec["operationId"])

    def request_findings(self, query: Mapping[str, str], headers: Mapping[str, str], body: Any) -> list[str]:
        """What is wrong with a request; empty if nothing."""
        findings = []
        for parameter in self.document.resolve(self.spec.get("parameters", [])):
            given = {"query": query, "header": headers}.get(parameter["in"], {}).get(parameter["name"])
            if given is None:
                findings += [f"{parameter['name']} is missing"] if _needed(parameter) else []
            else:
                findings += _findings(_typed(given, parameter["schema"]), parameter["schema"])
        content = self.document.resolve(self.spec.get("requestBody", {})).get("content", {})
        for media_type in ("application/json", "application/x-www-form-urlencoded"):
            if media_type in content and isinstance(body, dict):
                findings += _findings(body, plain(content[media_type]["schema"], closed=False))
        return findings

    def answer_findings(self, status: int, body: Any, optional: frozenset[str] = frozenset()) -> list[str]:
        """What is wrong with an answer of *status*, in which *optional* may be left out; empty if nothing."""
        responses = self.spec["responses"]
        found = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        if found is None:
            return [f"status {status} is not documented; documented are {', '.join(responses)}"]
        schema = self.document.resolve(found).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            return [] if body is None or not responses[str(status)].get("content") else ["no schema"]
        closed = plain(schema, closed=True)
        missing = sorted(set(closed.get("properties", {})) - set(body) - {"error"} - optional)
        return _findings(body, closed) + [f"top-level {name} is missing" for name in missing]


def plain(schema: Json, *, closed: bool) -> Json:
    """An OpenAPI 3.0 schema as JSON Schema 2020-12: allOf merged, nullable spelled out, objects closed."""
    merged = _merged(schema)
    result = {
        name: value for name, value in merged.items() if name not in ("example", "nullable", "discriminator")
    }
    if "properties" in result:
        result["properties"] = {k: plain(v, closed=closed) for k, v in result["properties"].items()}
        if closed and result["properties"]:
            result.setdefault("additionalProperties", False)
    for word in ("items", "additionalProperties"):
        if isinstance(result.get(word), dict):
            result[word] = plain(result[word], closed=closed)
    for word in ("oneOf", "anyOf"):
        if word in result:
            result[word] = [plain(each, closed=closed) for each in result[word]]
    return {"anyOf": [result, {"type": "null"}]} if merged.get("nullable") else result


def _merged(schema: Json) -> Json:
    """*schema* with its ``allOf`` parts, which in these documents are always objects, as one object."""
    result = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema.get("allOf", []):
        each = _merged(part)
        properties = {**each.get("properties", {}), **result.get("properties", {})}
        result = {**each, **result}
        if properties:
            result["properties"] = properties
    return result


def _child(node: Json, part: str) -> Json:
    for each in (node, *node.get("allOf", [])):
        if part == "[]" and "items" in each:
            found: Json = each["items"]
            return found
        if part in each.get("properties", {}):
            held: Json = each["properties"][part]
            return held
    raise KeyError(f"no property {part}")


def _needed(parameter: Json) -> bool:
    return bool(parameter.get("required")) and parameter["in"] != "path"


def _typed(text: str, schema: Json) -> Any:
    return int(text) if schema.get("type") in ("integer", "number") and text.isdigit() else text


def _findings(value: Any, schema: Json) -> list[str]:
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [
        f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in validator.iter_errors(value)
    ]
