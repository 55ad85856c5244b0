"""Secrets that the settings only point to: `…_file` beside each, and what a secret manager keeps.

A pointer counts where it stands: one in the environment wins over a value in the file. A secret manager is
only asked for what nothing else gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from voiceforge.infra.secrets.base import SecretSource, SecretsUnreadable
from voiceforge.infra.secrets.files import SecretFolder, is_open_to_all, read_secret
from voiceforge.main.settings import env_name, is_secret, section_of, setting_fields
from voiceforge.main.settings_outside import SecretSettings

FILE_KEY = "_file"
FILE_VARIABLE = "_FILE"


class PointedTo(NamedTuple):
    """Values, with what they pointed to in its place; problems, each with the key at fault; files that every
    user of the machine can read."""

    values: dict[str, Any]
    problems: list[tuple[str, str]]
    open_files: list[Path]


def secret_paths() -> tuple[tuple[str, ...], ...]:
    return tuple(path for path, field in setting_fields() if is_secret(field))


def file_variables() -> dict[str, tuple[str, ...]]:
    """The variables that name a file with a secret, and the setting each is for."""
    return {env_name(path) + FILE_VARIABLE: path for path in secret_paths()}


def with_files_read(values: Mapping[str, Any], model: type[BaseModel]) -> PointedTo:
    """A table of settings, with every `…_file` in place of which the secret it names can stand."""
    found = PointedTo(dict(values), [], [])
    for name, value in values.items():
        field = model.model_fields.get(name)
        section = None if field is None else section_of(field)
        if section is not None and isinstance(value, Mapping):
            inner = with_files_read(value, section)
            found.values[name] = inner.values
            found.problems.extend((f"{name}.{key}", problem) for key, problem in inner.problems)
            found.open_files.extend(inner.open_files)
        elif field is None and (secret := _pointed_to(name, model)) is not None:
            del found.values[name]
            if secret in values:
                found.problems.append((name, f"set either this or {secret}"))
                continue
            try:
                found.values[secret] = read_pointer(value, found.open_files)
            except SecretsUnreadable as problem:
                found.problems.append((name, str(problem)))
    return found


def read_pointer(value: object, open_files: list[Path]) -> str:
    """
    Raises:
        SecretsUnreadable
    """
    if not isinstance(value, str) or not value:
        raise SecretsUnreadable("should be the path of a file")
    path = Path(value).expanduser()
    if is_open_to_all(path):
        open_files.append(path)
    return read_secret(path)


def _pointed_to(name: str, model: type[BaseModel]) -> str | None:
    secret = name.removesuffix(FILE_KEY)
    field = model.model_fields.get(secret)
    return secret if secret != name and field is not None and is_secret(field) else None


def from_managers(
    wishes: object, wanted: Collection[tuple[str, ...]], problems: list[str]
) -> Iterator[tuple[str, Mapping[tuple[str, ...], str]]]:
    """What secret managers keep of `wanted`, each with its name, the one that counts less first.

    Args:
        wishes: the section `secrets`, as it was given; what is wrong with it is found elsewhere.
    """
    if not wanted:
        return
    try:
        settings = SecretSettings.model_validate(wishes)
    except ValidationError:
        return
    names = {env_name(path): path for path in wanted}
    for name, source in _sources(settings):
        try:
            kept = source.read(names)
        except SecretsUnreadable as problem:
            problems.append(f"{name}: {problem}")
        else:
            yield name, {names[variable]: value for variable, value in kept.items()}


def _sources(settings: SecretSettings) -> Iterator[tuple[str, SecretSource]]:
    if settings.command:
        from voiceforge.infra.secrets.command import SecretCommand

        yield "secrets.command", SecretCommand(settings.command, timeout_s=settings.timeout_s)
    if settings.folder is not None:
        yield "secrets.folder", SecretFolder(settings.folder)
