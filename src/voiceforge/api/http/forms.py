"""Untyped names and values, from forms and query strings, become a checked request model.

The model is a pydantic class of the surface; the same class documents the fields in OpenAPI. What does
not fit is told as our own errors: the field, what is wrong with it, and the choices where there are some.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from voiceforge.errors import InvalidRequest, UnsupportedOption

M = TypeVar("M", bound=BaseModel)

# `names[]` as OpenAI's clients send lists, `names[0]` as some PHP and JavaScript libraries do.
_LIST_SUFFIX = re.compile(r"\[\d*\]$")
_NESTED = re.compile(r"(?P<outer>[^\[\]]+)\[(?P<inner>[^\[\]]+)\]")


class Fields:
    """Names with their values in order of arrival; a name may repeat. Empty values count as absent."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value.strip():
                self._values.setdefault(_LIST_SUFFIX.sub("", name), []).append(value)

    def names(self) -> set[str]:
        return set(self._values)

    def text(self, name: str) -> str | None:
        values = self._values.get(name)
        return values[-1] if values else None

    def __add__(self, other: Fields) -> Fields:
        """Both; where a name is in both, `other` replaces it."""
        merged = Fields(())
        merged._values = {**self._values, **other._values}
        return merged

    def as_input(self, model: type[BaseModel]) -> dict[str, Any]:
        """One entry per name: a list where the model has one, a table for `name[key]`, or the last value."""
        given: dict[str, Any] = {}
        for name, values in self._values.items():
            nested = _NESTED.fullmatch(name)
            if nested and nested["outer"] in model.model_fields:
                table = given.setdefault(nested["outer"], {})
                if isinstance(table, dict):
                    table[nested["inner"]] = values[-1]
                continue
            field = model.model_fields.get(name)
            given[name] = values if field is not None and is_list(field) else values[-1]
        return given


def is_list(field: FieldInfo) -> bool:
    return any(get_origin(kind) in (list, tuple) for kind in _alternatives(field.annotation))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    members = get_args(kind) if get_origin(kind) is Union or type(kind).__name__ == "UnionType" else (kind,)
    return tuple(members)


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """What a field of literals accepts, looking into lists; empty where it is open."""
    found: list[str] = []
    pending = [field.annotation]
    while pending:
        for kind in _alternatives(pending.pop()):
            if get_origin(kind) is Literal:
                found.extend(str(value) for value in get_args(kind))
            elif get_origin(kind) in (list, tuple):
                pending.extend(get_args(kind))
    return tuple(found)


def parse(model: type[M], given: Mapping[str, Any]) -> M:
    """
    Raises:
        UnsupportedOption: a value outside a field's choices, or a name the model does not know (where it
            forbids those).
        InvalidRequest: any other value that does not fit.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _explained(model, error) from None


def _explained(model: type[BaseModel], error: ValidationError) -> InvalidRequest:
    # Where a value may be a word or a table, the complaint that goes deepest is about what was meant.
    fault = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
    where = [str(step)[:100] for step in fault["loc"]]
    if not where:
        return InvalidRequest(fault["msg"])
    name = where[0]
    if fault["type"] == "extra_forbidden":
        known = tuple(model.model_fields)
        return UnsupportedOption(f"there is no option {name!r}", field=name, choices=known)
    choices = choices_of(model.model_fields[name]) if name in model.model_fields else ()
    if fault["type"] == "literal_error" and choices:
        listed = ", ".join(choices)
        shown = str(fault["input"])[:100]
        return UnsupportedOption(f"{name} {shown!r} is not one of: {listed}", field=name, choices=choices)
    inner = f"{where[-1]}: " if len(where) > 1 and not where[-1].isdecimal() else ""
    return InvalidRequest(f"{name}: {inner}{fault['msg'].removeprefix('Value error, ')}", field=name)


def body_schema(
    model: type[BaseModel], *, extra: Mapping[str, object] | None = None, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The JSON schema of a model, for OpenAPI's request bodies; `extra` properties come first."""
    whole = model.model_json_schema()
    definitions = whole.pop("$defs", {})
    schema: dict[str, Any] = _inlined(whole, definitions)
    schema["properties"] = {**(extra or {}), **schema.get("properties", {})}
    if required:
        schema["required"] = [*required, *schema.get("required", [])]
    return schema


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with its references replaced: OpenAPI would look for them at the document's root."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(child, definitions) for key, child in node.items()}
    if isinstance(node, list):
        return [_inlined(child, definitions) for child in node]
    return node


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The same options as OpenAPI query parameters."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema().get("properties", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in properties.items()
    ]


FILE_SCHEMA: Mapping[str, object] = {
    "type": "string",
    "format": "binary",
    "description": "The recording: any audio format, or video with an audio track; told by its content.",
}
