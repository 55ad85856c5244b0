"""Settings from everywhere they may be given: command line > environment > TOML file > secret managers >
profile > defaults.

Every problem of every layer is found before anything is raised. Knows the shape of the tree from
`settings`, not what any setting is for.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from voiceforge.errors import ConfigurationError
from voiceforge.infra.secrets.base import SecretsUnreadable
from voiceforge.main.secret_values import (
    file_variables,
    from_managers,
    read_pointer,
    secret_paths,
    with_files_read,
)
from voiceforge.main.settings import (
    ENV_PREFIX,
    PROFILE_DEFAULTS,
    Settings,
    data_home,
    env_name,
    is_secret,
    section_of,
    setting_fields,
)
from voiceforge.main.settings_rules import conflicts

CONFIG_VARIABLE = "VOICEFORGE_CONFIG"
# Which server commands ask: theirs, and no setting of this one.
SERVER_VARIABLE = "VOICEFORGE_SERVER"
_NO_SETTINGS = frozenset({CONFIG_VARIABLE, SERVER_VARIABLE})
DEFAULT_CONFIG = Path("voiceforge.toml")

# A Kubernetes Service or a linked container named "voiceforge" puts such variables into every container.
_SERVICE_LINK = re.compile(r"VOICEFORGE_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)")

# Environment variables are text; this one says "no value", to take back what the file gives.
NONE_TEXT = "none"

Path_ = tuple[str, ...]


class Origin(NamedTuple):
    """Who gave a value. `name` is how that layer spells the setting."""

    kind: str
    name: str


class LoadedSettings(NamedTuple):
    """Settings and, for each that is not at its default, the dotted path's origin.

    open_files: files with secrets that every user of the machine can read.
    """

    settings: Settings
    origins: Mapping[Path_, Origin]
    open_files: tuple[Path, ...] = ()


class _Layer(NamedTuple):
    origin: Origin
    values: Mapping[str, Any]


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process.

    Args:
        config: TOML file; None: the one VOICEFORGE_CONFIG names, else ./voiceforge.toml if it exists.
        overrides: explicit choices by dotted name, such as {"server.port": 9000}; None values count as
            not given.
        environ: None: the environment of the process.

    Raises:
        ConfigurationError: listing every problem at once.
    """
    return load_with_origins(config, overrides, environ).settings


def load_with_origins(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """`load_settings`, and where each value came from."""
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    open_files: list[Path] = []
    given = [
        *_file_layer(config, environ, problems, open_files),
        *_environment_layers(environ, problems, open_files),
        *_override_layers(overrides or {}),
    ]
    layers = [
        _Layer(Origin("default", ""), {"data_dir": data_home(environ)}),
        _profile_layer(given),
        *_manager_layers(given, problems),
        *given,
    ]
    merged, origins = _stacked(layers)
    settings, broken = _validate(merged, origins, problems)
    for involved, message in conflicts(settings):
        if not broken.intersection(involved):
            problems.append(message)
    if problems:
        raise ConfigurationError(problems)
    for layer in layers:
        if layer.origin.kind == "file":
            settings = settings.read_from(Path(layer.origin.name).expanduser().absolute())
    return LoadedSettings(
        settings,
        {path: origin for path, origin in origins.items() if origin.kind != "default"},
        tuple(open_files),
    )


def _stacked(layers: Iterable[_Layer]) -> tuple[dict[str, Any], dict[Path_, Origin]]:
    """All values, the last layer winning, and whose each is."""
    merged: dict[str, Any] = {}
    origins: dict[Path_, Origin] = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
        for path in _leaves(layer.values, Settings):
            origins[path] = layer.origin
    return merged, origins


def _profile_layer(layers: Iterable[_Layer]) -> _Layer:
    profile = "development"
    for layer in layers:
        profile = layer.values.get("profile", profile)
    values: Mapping[str, Any] = next((v for name, v in PROFILE_DEFAULTS.items() if name == profile), {})
    return _Layer(Origin("profile", str(profile)), values)


def _manager_layers(given: Iterable[_Layer], problems: list[str]) -> Iterator[_Layer]:
    """Asked only for what nobody gave."""
    merged, origins = _stacked(given)
    wanted = [path for path in secret_paths() if path not in origins]
    for name, values in from_managers(merged.get("secrets", {}), wanted, problems):
        for path, value in values.items():
            yield _Layer(Origin("kept by", name), _nested(path, value))


def _file_layer(
    config: Path | None, environ: Mapping[str, str], problems: list[str], open_files: list[Path]
) -> Iterator[_Layer]:
    path = config
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    if path is None:
        if not DEFAULT_CONFIG.is_file():
            return
        path = DEFAULT_CONFIG
    try:
        values = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not valid TOML: {error}")
    else:
        found = with_files_read(values, Settings)
        problems += [f"{path}: {key}: {problem}" for key, problem in found.problems]
        open_files += found.open_files
        yield _Layer(Origin("file", str(path)), found.values)


def _environment_layers(
    environ: Mapping[str, str], problems: list[str], open_files: list[Path]
) -> Iterator[_Layer]:
    """One layer per variable, so that each problem can name its variable."""
    known = {env_name(path): path for path, _ in setting_fields()}
    files = file_variables()
    given_upper = {name.upper() for name in environ}
    for name, value in sorted(environ.items()):
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in _NO_SETTINGS or _is_service_link(upper, value):
            continue
        if upper in known:
            given = None if value == NONE_TEXT else value
            yield _Layer(Origin("env", name), _nested(known[upper], given))
        elif upper in files:
            secret = env_name(files[upper])
            if secret in given_upper:
                problems.append(f"{name}: set either this or {secret}")
                continue
            try:
                yield _Layer(Origin("env", name), _nested(files[upper], read_pointer(value, open_files)))
            except SecretsUnreadable as problem:
                problems.append(f"{name}: {problem}")
        else:
            problems.append(f"{name}: unknown setting{_near_miss(upper, [*known, *files, CONFIG_VARIABLE])}")


def _is_service_link(upper: str, value: str) -> bool:
    if upper == f"{ENV_PREFIX}PORT":
        return value.startswith(("tcp://", "udp://"))
    return _SERVICE_LINK.fullmatch(upper) is not None


def _override_layers(overrides: Mapping[str, Any]) -> Iterator[_Layer]:
    for name, value in overrides.items():
        if value is not None:
            yield _Layer(Origin("command line", name), _nested(tuple(name.split(".")), value))


def _nested(path: Path_, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        present = merged.get(name)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            value = _merge(present, value)
        merged[name] = value
    return merged


def _leaves(values: Mapping[str, Any], model: type[BaseModel], path: Path_ = ()) -> Iterator[Path_]:
    """Paths of everything given, one per setting; below names the tree does not know, one per name."""
    for name, value in values.items():
        field = model.model_fields.get(name)
        section = section_of(field) if field else None
        if section is not None and isinstance(value, Mapping):
            yield from _leaves(value, section, (*path, name))
        else:
            yield (*path, name)


def _validate(
    merged: dict[str, Any], origins: Mapping[Path_, Origin], problems: list[str]
) -> tuple[Settings, set[str]]:
    """The settings with every unusable value left out, and the dotted names of what was left out."""
    try:
        return Settings.model_validate(merged), set()
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
    fields = dict(setting_fields())
    broken: set[str] = set()
    for detail in details:
        path = _given_path(detail, origins)
        problems.append(_explain(detail, path, origins.get(path), fields))
        broken.add(".".join(path))
        _drop(merged, path)
    return Settings.model_validate(merged), broken


def _given_path(detail: ErrorDetails, origins: Mapping[Path_, Origin]) -> Path_:
    """The setting a problem belongs to: its location without indices inside the value."""
    path = tuple(str(part) for part in detail["loc"])
    return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in origins), path)


def _explain(
    detail: ErrorDetails, path: Path_, origin: Origin | None, fields: Mapping[Path_, FieldInfo]
) -> str:
    dotted = ".".join(path)
    match origin:
        case Origin("env", name):
            where = name
        case Origin("file", name):
            where = f"{name}: {dotted}"
        case Origin(kind, _):
            where = f"{kind}: {dotted}"
        case None:
            where = dotted
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting{_near_miss(dotted, ['.'.join(known) for known in fields])}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if detail["type"] == "model_type":
        message = "should be a table"
    secret = path in fields and is_secret(fields[path])
    return f"{where}: {message}" + ("" if secret else f" (got {detail['input']!r})")


def _drop(values: dict[str, Any], path: Path_) -> None:
    *parents, last = path
    for name in parents:
        values = values.get(name, {})
    values.pop(last, None)


def _near_miss(name: str, known: list[str]) -> str:
    """The known name that was probably meant: same last part, or few letters apart."""
    same_end = [candidate for candidate in known if re.split(r"\.|__", candidate)[-1] == _last_part(name)]
    close = same_end if len(same_end) == 1 else difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _last_part(name: str) -> str:
    return re.split(r"\.|__", name.removeprefix(ENV_PREFIX))[-1]
