"""The catalog: consistent with itself, and with the engines and libraries it speaks of."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from voiceforge.speech.engines.catalog import (
    CATALOG,
    RUNTIME_MODULES,
    UNPINNED,
    CatalogEntry,
    catalog_names,
    find_entry,
    folder_entry,
    hub_entry,
)

WHISPER = [entry for entry in CATALOG if entry.family == "whisper"]


def found(name: str) -> CatalogEntry:
    entry = find_entry(name)
    assert entry
    return entry


def test_no_name_means_two_models() -> None:
    names = Counter(name.casefold() for name in catalog_names())
    assert [name for name, count in names.items() if count > 1] == []
    sources = [entry.source for entry in CATALOG]
    assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("entry", WHISPER, ids=lambda entry: entry.id)
def test_whisper_rows(entry: CatalogEntry) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    assert entry.pinned
    assert (entry.runtime, entry.extra, entry.licence) == ("whisper_ct2", "whisper", "MIT")
    assert entry.capabilities
    english = entry.id.endswith(".en") or "distil" in entry.id
    assert (entry.languages == ("en",)) == english
    assert entry.capabilities.detects_language == (not english)
    translates = "translate" in entry.capabilities.tasks
    assert translates == (not english and entry.id != "whisper-turbo")
    assert ("yue" in entry.languages) == (entry.id in ("whisper-large-v3", "whisper-turbo"))


def test_sizes_grow_with_the_models() -> None:
    sizes = [
        found(f"whisper-{size}").size_bytes or 0 for size in ("tiny", "base", "small", "medium", "large")
    ]
    assert sizes == sorted(set(sizes))
    assert 75_000_000 < sizes[0] < 80_000_000
    assert 3_000_000_000 < sizes[-1] < 3_200_000_000


def test_repositories_are_those_faster_whisper_names() -> None:
    utils = pytest.importorskip("faster_whisper.utils")
    ours = {entry.source for entry in WHISPER}
    assert {utils._MODELS[name] for name in utils.available_models()} <= ours
    for name in utils.available_models():
        assert found(name).source == utils._MODELS[name], "its names are ours too"


def test_languages_are_those_whisper_has_in_iso_spelling() -> None:
    tokenizer = pytest.importorskip("faster_whisper.tokenizer")
    theirs = {"jv" if code == "jw" else code for code in tokenizer._LANGUAGE_CODES}
    assert set(found("whisper-large-v3").languages) == theirs
    assert set(found("whisper-small").languages) == theirs - {"yue"}


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("moonshine-tiny-en", "moonshine-tiny-en"),
        ("Moonshine", "moonshine-tiny-en"),
        ("whisper-small", "whisper-small"),
        ("WHISPER-SMALL", "whisper-small"),
        ("small", "whisper-small"),
        ("large", "whisper-large-v3"),
        ("whisper-large", "whisper-large-v3"),
        ("turbo", "whisper-turbo"),
        ("whisper-large-v3-turbo", "whisper-turbo"),
        ("Systran/faster-whisper-small", "whisper-small"),
        ("dropbox-dash/faster-whisper-large-v3-turbo", "whisper-turbo"),
    ],
)
def test_names_of_a_row(name: str, model_id: str) -> None:
    assert found(name).id == model_id


def test_hub_names() -> None:
    entry = hub_entry("acme/whisper-small-ct2")
    assert entry
    assert (entry.source, entry.revision, entry.origin) == ("acme/whisper-small-ct2", UNPINNED, "hub")
    assert not entry.pinned
    assert entry.capabilities is None
    assert entry.languages == ()
    commit = "0123456789abcdef0123456789abcdef01234567"
    pinned = hub_entry(f"acme/whisper-small-ct2@{commit}")
    assert pinned
    assert (pinned.source, pinned.revision, pinned.pinned) == ("acme/whisper-small-ct2", commit, True)
    assert pinned.id != entry.id


@pytest.mark.parametrize(
    "name",
    [
        *("", "whisper-small", "/etc/passwd", "../acme/x", "acme/../x", "acme/a--b", "a/b/c", "acme/"),
        *("acme/x\n", "acme/x@", "acme/x@../y", "ac me/x", "acme/..", ".acme/x", "a/b@c/d", "~/x"),
        "http://a/b",
    ],
)
def test_what_is_no_hub_name(name: str) -> None:
    assert hub_entry(name) is None


@pytest.mark.parametrize("name", ["/srv/models/mine", "./mine", "../mine", "~/mine"])
def test_folders_show_themselves(name: str) -> None:
    entry = folder_entry(name)
    assert entry
    assert (entry.id, entry.source, entry.origin, entry.runtime) == (name, name, "folder", "whisper_ct2")


@pytest.mark.parametrize("name", ["mine", "acme/x", "", "whisper-small"])
def test_what_is_no_folder(name: str) -> None:
    assert folder_entry(name) is None


def test_every_runtime_can_be_looked_for() -> None:
    assert {entry.runtime for entry in CATALOG} == set(RUNTIME_MODULES)
