"""What sections of settings are made of: closed tables, lists and tables given as text, addresses."""

from __future__ import annotations

import ipaddress
import json
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error


def _list_from_text(value: object) -> object:
    """Environment variables bring lists as text: JSON, or names between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _table_from_text(value: object) -> object:
    """Environment variables bring tables as text: JSON, or `name=value` pairs between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return _json(value)
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("should be a JSON object or name=value pairs between commas")
    return {name.strip(): target.strip() for name, _, target in pairs}


def json_table(value: object) -> object:
    """Environment variables bring tables of tables as JSON."""
    return _json(value) if isinstance(value, str) else value


def _networks(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        ipaddress.ip_network(name, strict=False)
    return names


Names = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
Networks = Annotated[Names, AfterValidator(_networks)]
NameTable = Annotated[dict[str, str], BeforeValidator(_table_from_text)]


def http_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an http or https address")
    return value.rstrip("/")


def redis_address(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    found = parts.path if parts.scheme == "unix" else parts.hostname
    if parts.scheme not in ("redis", "rediss", "unix") or not found:
        raise ValueError("should be a redis://, rediss:// or unix:// address")
    return value


class Section(BaseModel):
    """Frozen, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
