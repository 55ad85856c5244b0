"""The models we know: what each is, where its files come from, what it can do. Data, and look-ups in it.

Besides the rows below, any hub repository (`org/name`, `org/name@revision`) and any local folder that
holds a CTranslate2 Whisper model is a legal model id. Knows no disk and no network: whether files are
here is the model store's business.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.engines.whisper_ct2 import BEST_WINDOW_S, LONGEST_WINDOW_S, MAX_KEYTERMS
from voiceforge.speech.options import Task

Family = Literal["moonshine", "whisper"]
Runtime = Literal["moonshine_ort", "whisper_ct2"]
Origin = Literal["wheel", "hub", "folder"]

UNPINNED = "main"
LOCAL_REVISION = "local"
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One set of weights.

    size_bytes: what a pull transfers; None where unknown.
    revision: commit the files are pinned to; `UNPINNED` follows the repository's main branch.
    source: distribution, hub repository or folder, as `origin` says.
    capabilities: what it can do once loaded; None: only its files can tell.
    files, required: names in that repository that are wanted, and those it cannot do without.
        Alternatives are separated by `|`.
    sha256: (file name, digest) of the files as they are at `revision`, where no hub vouches for them.
    extra: extra of the voiceforge distribution that brings the runtime; None: always there.
    aliases: other names of the same model.
    """

    id: str
    title: str
    family: Family
    runtime: Runtime
    size_bytes: int | None
    licence: str
    revision: str
    source: str
    origin: Origin
    capabilities: Capabilities | None
    files: tuple[str, ...]
    required: tuple[str, ...]
    sha256: tuple[tuple[str, str], ...] = ()
    extra: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes (639-3 where there is none), in order; empty: only its files can tell."""
        return tuple(sorted(self.capabilities.languages)) if self.capabilities else ()

    @property
    def pinned(self) -> bool:
        """Whether `revision` can only ever mean one set of files."""
        return self.origin == "wheel" or _COMMIT.fullmatch(self.revision) is not None


MOONSHINE_FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
WHISPER_FILES = (
    "config.json",
    "model.bin",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocabulary.json",
    "vocabulary.txt",
)
WHISPER_REQUIRED = ("config.json", "model.bin", "tokenizer.json", "vocabulary.json|vocabulary.txt")

# Whisper's 99 languages in ISO spelling (its own `jw` is ISO's `jv`); Cantonese came with large-v3.
_WHISPER_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht "
    "hu hy id is it ja jv ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl "
    "ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
WHISPER_LANGUAGES = frozenset(_WHISPER_CODES.split())
WHISPER_V3_LANGUAGES = WHISPER_LANGUAGES | {"yue"}
ENGLISH = frozenset({"en"})

RUNTIME_MODULES: Mapping[Runtime, str] = MappingProxyType(
    {"moonshine_ort": "onnxruntime", "whisper_ct2": "faster_whisper"}
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
# One slash, no `--` and no `..`: the hub's own rule, which also makes names safe as folders.
_HUB_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w.-]{1,100}))?", re.ASCII
)
_PATH_STARTS = ("/", "./", "../", "~")

_TRANSCRIBE: frozenset[Task] = frozenset({"transcribe"})
_BOTH_TASKS: frozenset[Task] = frozenset({"transcribe", "translate"})


def whisper_capabilities(
    languages: frozenset[str], *, translates: bool, word_times: bool = True
) -> Capabilities:
    """Of a Whisper model for these languages, in CTranslate2."""
    several = len(languages) > 1
    return Capabilities(
        languages=languages,
        longest_window_s=LONGEST_WINDOW_S,
        best_window_s=BEST_WINDOW_S,
        tasks=_BOTH_TASKS if several and translates else _TRANSCRIBE,
        segment_times=True,
        word_times=word_times,
        detects_language=several,
        prompt=True,
        max_keyterms=MAX_KEYTERMS,
        temperature=True,
        beam=True,
    )


def _whisper(
    size: str,
    repository: str,
    revision: str,
    size_bytes: int,
    languages: frozenset[str],
    *,
    translates: bool = True,
    aliases: tuple[str, ...] = (),
) -> CatalogEntry:
    return CatalogEntry(
        id=f"whisper-{size}",
        title=f"Whisper {size}",
        family="whisper",
        runtime="whisper_ct2",
        size_bytes=size_bytes,
        licence="MIT",
        revision=revision,
        source=repository,
        origin="hub",
        capabilities=whisper_capabilities(languages, translates=translates),
        files=WHISPER_FILES,
        required=WHISPER_REQUIRED,
        extra="whisper",
        aliases=(size, *aliases),
    )


# Repositories as faster_whisper/utils.py (1.2.1) names them. Each revision is the commit on which several
# public lock files for the same repository agree (looked up 2026-11); sizes are sums over the files we
# pull. A pull relies on neither: the hub must know the commit, and every file has the hub's own hash.
CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        id="moonshine-tiny-en",
        title="Moonshine tiny (English)",
        family="moonshine",
        runtime="moonshine_ort",
        size_bytes=43_943_830,
        licence="MIT",
        revision="0.0.49",
        source="moonshine-voice",
        origin="wheel",
        capabilities=Capabilities(
            languages=ENGLISH, longest_window_s=30.0, best_window_s=12.0, max_batch_rows=4
        ),
        files=MOONSHINE_FILES,
        required=MOONSHINE_FILES,
        sha256=(
            ("encoder_model.ort", "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"),
            ("decoder_model_merged.ort", "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0"),
            ("tokenizer.bin", "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d"),
        ),
        aliases=("moonshine", "moonshine-tiny"),
    ),
    _whisper(
        "tiny",
        "Systran/faster-whisper-tiny",
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        78_203_619,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "tiny.en",
        "Systran/faster-whisper-tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        78_090_594,
        ENGLISH,
    ),
    _whisper(
        "base",
        "Systran/faster-whisper-base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        147_882_941,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "base.en",
        "Systran/faster-whisper-base.en",
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        147_769_510,
        ENGLISH,
    ),
    _whisper(
        "small",
        "Systran/faster-whisper-small",
        "536b0662742c02347bc0e980a01041f333bce120",
        486_212_372,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "small.en",
        "Systran/faster-whisper-small.en",
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        486_098_798,
        ENGLISH,
    ),
    _whisper(
        "medium",
        "Systran/faster-whisper-medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        1_530_571_735,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "medium.en",
        "Systran/faster-whisper-medium.en",
        "a29b04bd15381511a9af671baec01072039215e3",
        1_530_457_748,
        ENGLISH,
    ),
    _whisper(
        "large-v1",
        "Systran/faster-whisper-large-v1",
        "b07c8d4be0be90092aa01a29c975077acb8d15c9",
        3_089_578_414,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "large-v2",
        "Systran/faster-whisper-large-v2",
        "f0fe81560cb8b68660e564f55dd99207059c092e",
        3_089_578_858,
        WHISPER_LANGUAGES,
    ),
    _whisper(
        "large-v3",
        "Systran/faster-whisper-large-v3",
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
        3_090_835_702,
        WHISPER_V3_LANGUAGES,
        aliases=("large", "whisper-large"),
    ),
    _whisper(
        "turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        1_621_665_983,
        WHISPER_V3_LANGUAGES,
        translates=False,
        # The repository's name since its owner was renamed; the hub redirects the old one.
        aliases=("large-v3-turbo", "whisper-large-v3-turbo", "dropbox-dash/faster-whisper-large-v3-turbo"),
    ),
    _whisper(
        "distil-small.en",
        "Systran/faster-distil-whisper-small.en",
        "ef77d90526ccd62cde3808ee70626a01e5cf83e4",
        335_542_354,
        ENGLISH,
    ),
    _whisper(
        "distil-medium.en",
        "Systran/faster-distil-whisper-medium.en",
        "80ddfce281f77766d8943d63109199fc8145dfa5",
        792_060_626,
        ENGLISH,
    ),
    _whisper(
        "distil-large-v2",
        "Systran/faster-distil-whisper-large-v2",
        "fe9b404fc56de3f7c38606ef9ba6fd83526d05e4",
        1_516_000_000,  # rounded: no listing of this repository was at hand
        ENGLISH,
    ),
    _whisper(
        "distil-large-v3",
        "Systran/faster-distil-whisper-large-v3",
        "c3058b475261292e64a0412df1d2681c06260fab",
        1_516_479_628,
        ENGLISH,
    ),
    _whisper(
        "distil-large-v3.5",
        "distil-whisper/distil-large-v3.5-ct2",
        "9793ccc07920e0f830e1dba0343efcdf0ef8c903",
        1_516_479_656,
        ENGLISH,
    ),
)


def _names(entry: CatalogEntry) -> Iterator[str]:
    yield from (entry.id, *entry.aliases)
    if entry.origin == "hub":
        yield entry.source


# The first row with a name has it.
_BY_NAME = MappingProxyType({name.casefold(): row for row in reversed(CATALOG) for name in _names(row)})


def find_entry(name: str) -> CatalogEntry | None:
    """The row with this id, alias or hub repository; letters' case does not matter."""
    return _BY_NAME.get(name.casefold())


def catalog_names() -> tuple[str, ...]:
    """Every name `find_entry` knows, ids first."""
    ids = [entry.id for entry in CATALOG]
    return (*ids, *(alias for entry in CATALOG for alias in entry.aliases))


def hub_entry(name: str) -> CatalogEntry | None:
    """A row for a hub repository outside the catalog, from `org/name` or `org/name@revision`; None where
    `name` cannot be one."""
    match = _HUB_NAME.fullmatch(name)
    if match is None or "--" in name or ".." in name:
        return None
    return _custom(name, match["repo"], match["revision"] or UNPINNED, "hub")


def folder_entry(name: str) -> CatalogEntry | None:
    """A row for a local folder, from a path that shows itself to be one (`/…`, `./…`, `../…`, `~…`)."""
    return _custom(name, name, LOCAL_REVISION, "folder") if name.startswith(_PATH_STARTS) else None


def runtime_present(runtime: Runtime) -> bool:
    """Whether the library that runs such models is installed; imports nothing."""
    return importlib.util.find_spec(RUNTIME_MODULES[runtime]) is not None


def _custom(name: str, source: str, revision: str, origin: Origin) -> CatalogEntry:
    """Taken for a CTranslate2 Whisper model: nothing else is pulled or loaded by name alone."""
    return CatalogEntry(
        id=name,
        title=name,
        family="whisper",
        runtime="whisper_ct2",
        size_bytes=None,
        licence=UNKNOWN_LICENCE,
        revision=revision,
        source=source,
        origin=origin,
        capabilities=None,
        files=WHISPER_FILES,
        required=WHISPER_REQUIRED,
        extra="whisper",
    )
