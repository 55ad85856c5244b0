"""Settings as text for people: what is in force, an example file, and the table of the docs.

Secrets leave masked. Everything is derived from the fields of `settings`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from voiceforge.main.settings import (
    PROFILE_DEFAULTS,
    Settings,
    env_name,
    is_secret,
    section_of,
    setting_fields,
)
from voiceforge.main.settings_loading import LoadedSettings, Origin

MASK = "********"

# The real default depends on the user's home; examples and docs show the usual place.
_USUAL_DEFAULTS: Mapping[str, str] = {"data_dir": "~/.local/share/voiceforge"}


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `voiceforge config show`. `source` is `default`, `profile staging`,
    `kept by secrets.folder`, `file …`, `env VOICEFORGE_…` or `command line`."""

    name: str
    value: str
    source: str


def describe(loaded: LoadedSettings) -> list[SettingRow]:
    """Every setting in force, with secrets masked and the place it comes from."""
    rows = []
    for path, field in setting_fields():
        value: Any = loaded.settings
        for name in path:
            value = getattr(value, name)
        shown = MASK if is_secret(field) and value is not None else _toml(value)
        rows.append(SettingRow(".".join(path), shown or "unset", _source(loaded.origins.get(path))))
    return rows


def example_toml() -> str:
    """A `voiceforge.toml` with every setting at its default, commented out."""
    lines = [
        "# Copy to voiceforge.toml, or name it in VOICEFORGE_CONFIG. Every line shows the default.",
        "# An environment variable wins over this file: server.port is VOICEFORGE_SERVER__PORT.",
        "# A secret may lie in a file of its own: api_key_file is the path of one that holds api_key.",
    ]
    for path, field in sorted(setting_fields(), key=lambda item: len(item[0]) > 1):
        if len(path) > 1 and f"[{path[0]}]" not in lines:
            section = section_of(Settings.model_fields[path[0]])
            lines += ["", f"# {section.__doc__ if section else ''}", f"[{path[0]}]"]
        default = _default_text(path, field)
        meaning = _plain(field) if default else f"{_plain(field)} Example:"
        lines += ["", *textwrap.wrap(meaning, 100, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"# {path[-1]} = {default or _toml((field.examples or [''])[0])}")
    return "\n".join(lines) + "\n"


def markdown_tables() -> str:
    """The settings as Markdown for docs/configuration.md: a table per section, then the profiles."""
    groups: dict[str, list[str]] = {}
    for path, field in setting_fields():
        default = _default_text(path, field)
        groups.setdefault(path[0] if len(path) > 1 else "", []).append(
            f"| `{'.'.join(path)}` | `{env_name(path)}` | {_kind(field)} | "
            f"{f'`{default}`' if default else 'unset'} | {field.description} |"
        )
    parts = []
    for name, rows in groups.items():
        section = section_of(Settings.model_fields[name]) if name else None
        title = [f"### `[{name}]`", "", section.__doc__ or "", ""] if section else ["### Top level", ""]
        head = ["| setting | environment | value | default | meaning |", "| --- | --- | --- | --- | --- |"]
        parts.append("\n".join([*title, *head, *rows]))
    lines = ["### Profiles", "", "| profile | changed defaults |", "| --- | --- |"]
    for profile, changes in PROFILE_DEFAULTS.items():
        changed = ", ".join(f"`{name} = {_toml(value)}`" for name, value in _flat(changes))
        lines.append(f"| `{profile}` | {changed or 'none'} |")
    parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _source(origin: Origin | None) -> str:
    match origin:
        case None:
            return "default"
        case Origin("command line", _):
            return "command line"
        case Origin(kind, name):
            return f"{kind} {name}"


def _default_text(path: tuple[str, ...], field: FieldInfo) -> str:
    usual = _USUAL_DEFAULTS.get(".".join(path))
    if usual is not None:
        return _toml(usual)
    default = field.default
    return "" if default is PydanticUndefined else _toml(default)


def _toml(value: Any) -> str:
    """One value as TOML writes it; nothing for None, which TOML does not have."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(int(value)) if isinstance(value, int) else repr(value)
        case tuple() | list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case dict():
            pairs = ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items())
            return "{ " + pairs + " }" if pairs else "{}"
        case Decimal():
            return str(value)
        case BaseModel():
            return _toml(value.model_dump(mode="json", exclude_none=True))
        case Path() | str():
            return json.dumps(str(value), ensure_ascii=False)
        case _:
            raise TypeError(f"no TOML form for {type(value).__name__}")


def _alternatives(field: FieldInfo) -> tuple[Any, ...]:
    kind = field.annotation
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(member for member in members if member is not NoneType)


def _kind(field: FieldInfo) -> str:
    """The accepted values in a few words: the choices, or the type with its bounds."""
    kind = _alternatives(field)[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "list of names"
    if get_origin(kind) is dict:
        return {str: "table of names", Decimal: "table of numbers"}.get(get_args(kind)[1], "table of tables")
    names = {bool: "true or false", int: "whole number", float: "number", Path: "path", SecretStr: "secret"}
    word = names.get(kind, "size" if issubclass(kind, int) else "text")
    limits = []
    for bound in field.metadata:
        match bound:
            case bounds.Ge(low) if low != 0:
                limits.append(f"≥ {low}")
            case bounds.Gt(low):
                limits.append(f"> {low}")
            case bounds.Le(high):
                limits.append(f"≤ {high}")
            case bounds.Lt(high):
                limits.append(f"< {high}")
    return ", ".join([word, *limits])


def _plain(field: FieldInfo) -> str:
    """The description without Markdown's code quotes, with the accepted values where they are a choice."""
    text = field.description or ""
    if get_origin(_alternatives(field)[0]) is Literal:
        text += f" One of {_kind(field)}."
    return re.sub("`", "", text)
