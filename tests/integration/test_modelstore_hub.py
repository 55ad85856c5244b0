"""The disk model store against a small local server that speaks the hub's HTTP API."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from voiceforge.errors import (
    Conflict,
    DependencyMissing,
    ModelNotFound,
    ModelNotInstalled,
    PermissionDenied,
    Unavailable,
    UpstreamFailed,
)
from voiceforge.infra.modelstore.base import PullProgress
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub, HubAddress, default_address
from voiceforge.speech.engines.catalog import CatalogEntry, find_entry, folder_entry, hub_entry
from voiceforge.testing.hub_server import COMMIT, FILES, REPOSITORY, HubServer, blob_sha1


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HubServer]:
    hub = HubServer()
    async with hub.listening():
        yield hub


@pytest.fixture
def store(server: HubServer, tmp_path: Path) -> DiskModelStore:
    return make_store(server, tmp_path)


@pytest.fixture
def entry() -> CatalogEntry:
    return made(REPOSITORY)


def make_store(server: HubServer, root: Path, *, retries: int = 3, **settings: object) -> DiskModelStore:
    hub = Hub(HubAddress(server.endpoint, token="secret"), retry_delays_s=[0.0] * retries)
    return DiskModelStore(root / "models", hub, **settings)  # type: ignore[arg-type]


def made(name: str) -> CatalogEntry:
    entry = hub_entry(name)
    assert entry
    return entry


def silent(progress: PullProgress) -> None:
    """No progress wanted."""


def ranges(server: HubServer) -> list[str | None]:
    return [headers.get("range") for target, headers in server.requests if target.endswith("/model.bin")]


async def test_brings_the_wanted_files_and_records_the_commit(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, tmp_path: Path
) -> None:
    seen: list[PullProgress] = []
    model = await store.pull(entry, seen.append)

    assert model.files.revision == COMMIT
    assert model.files.path == tmp_path / "models" / "acme--tiny-ct2" / COMMIT
    wanted = {"config.json", "model.bin", "tokenizer.json", "vocabulary.txt"}
    assert {p.name for p in model.files.path.iterdir()} == wanted | {"voiceforge.json"}
    assert all((model.files.path / name).read_bytes() == FILES[name] for name in wanted)
    assert model.size_bytes == sum(len(FILES[name]) for name in wanted)
    assert store.locate(entry) == model
    assert model in store.installed()
    assert {p.file for p in seen} == wanted
    assert [p.done_bytes for p in seen] == sorted(p.done_bytes for p in seen)
    assert {p.total_bytes for p in seen} == {model.size_bytes}
    assert seen[-1].done_bytes == model.size_bytes


@pytest.mark.parametrize(
    ("said", "known"), [("mit", "mit"), (None, None), (["mit", "cc-by-4.0"], None), ("a\nb", None)]
)
async def test_keeps_the_licence_that_the_hub_names(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, said: object, known: str | None
) -> None:
    server.licence = said
    assert (await store.pull(entry, silent)).licence == known
    found = store.locate(entry)
    assert found
    assert found.licence == known


async def test_a_pinned_model_that_is_here_needs_no_network(server: HubServer, store: DiskModelStore) -> None:
    entry = made(f"{REPOSITORY}@{COMMIT}")
    first = await store.pull(entry, silent)
    asked = len(server.requests)
    assert await store.pull(entry, silent) == first
    assert len(server.requests) == asked


async def test_main_is_asked_again_and_a_new_commit_is_added(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    old = await store.pull(entry, silent)
    server.commit, server.files["config.json"] = "b" * 40, b'{"newer": 1}'
    new = await store.pull(entry, silent)
    assert new.files.revision == "b" * 40
    assert store.locate(entry) == new
    assert old.files.path.is_dir()
    pinned_to_old = made(f"{REPOSITORY}@{COMMIT}")
    assert store.locate(pinned_to_old) is None, "another id, another folder"


async def test_goes_on_where_the_connection_broke(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    server.cuts = [100_000, 0, 50_000]
    model = await store.pull(entry, silent)
    assert (model.files.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]


async def test_a_pull_that_gave_up_is_continued_by_the_next_process(
    server: HubServer, entry: CatalogEntry, tmp_path: Path
) -> None:
    server.cuts = [100_000, 0]
    impatient = make_store(server, tmp_path, retries=1)
    with pytest.raises(UpstreamFailed, match="100000 of 307200 bytes"):
        await impatient.pull(entry, silent)
    assert impatient.locate(entry) is None
    assert entry.id not in {model.id for model in impatient.installed()}

    seen: list[PullProgress] = []
    model = await make_store(server, tmp_path).pull(entry, seen.append)
    assert ranges(server)[-1] == "bytes=100000-"
    assert seen[0].done_bytes >= 100_000, "what was here counts from the start"
    assert (model.files.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert sum(target.endswith("config.json") for target, _ in server.requests) == 1


async def test_a_cancelled_pull_leaves_nothing_that_looks_installed(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    server.gate = asyncio.Event()
    pull = asyncio.create_task(store.pull(entry, silent))
    await server.waiting.wait()
    with pytest.raises(Conflict, match="being pulled"):
        await store.pull(entry, silent)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    server.gate.set()
    assert store.locate(entry) is None
    assert (await store.pull(entry, silent)).files.revision == COMMIT, "and the lock is free again"


async def test_a_server_without_ranges_starts_over(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    server.cuts, server.ignores_range = [100_000], True
    model = await store.pull(entry, silent)
    assert (model.files.path / "model.bin").read_bytes() == FILES["model.bin"]


async def test_a_stale_beginning_is_replaced(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, tmp_path: Path
) -> None:
    staging = tmp_path / "models" / ".staging" / "acme--tiny-ct2" / COMMIT
    staging.mkdir(parents=True)
    (staging / "model.bin.partial").write_bytes(b"x" * 1000)
    (staging / "tokenizer.json.partial").write_bytes(b"longer than the real file")
    model = await store.pull(entry, silent)
    assert (model.files.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert (model.files.path / "tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
async def test_other_bytes_than_announced_are_refused(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, name: str
) -> None:
    server.served[name] = bytes(len(FILES[name]))
    with pytest.raises(UpstreamFailed, match=rf"{name}.*checksum"):
        await store.pull(entry, silent)
    assert store.locate(entry) is None
    server.served.clear()
    assert await store.pull(entry, silent)


async def test_more_bytes_than_announced_are_refused(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    server.served["model.bin"] = FILES["model.bin"] * 2
    with pytest.raises(UpstreamFailed, match="more than it announced"):
        await store.pull(entry, silent)
    assert store.locate(entry) is None


async def test_a_passing_failure_is_waited_out_and_a_lasting_one_told(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    server.failures = 3
    assert await store.pull(entry, silent)
    server.failures = 100
    with pytest.raises(UpstreamFailed, match="503"):
        await store.pull(entry, silent)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "RepoNotFound", ModelNotFound),
        (401, "RepoNotFound", ModelNotFound),
        (404, "RevisionNotFound", ModelNotFound),
        (401, "GatedRepo", PermissionDenied),
        (403, "", PermissionDenied),
        (401, "", PermissionDenied),
        (400, "", UpstreamFailed),
    ],
)
async def test_the_hub_says_no(
    server: HubServer,
    store: DiskModelStore,
    entry: CatalogEntry,
    status: int,
    code: str,
    error: type[Exception],
) -> None:
    server.status, server.error_code = status, code
    with pytest.raises(error, match=REPOSITORY):
        await store.pull(entry, silent)
    assert len(server.requests) == 1, "no use in asking again"


@pytest.mark.parametrize("lacking", ["model.bin", "vocabulary.txt"])
async def test_a_repository_of_something_else_is_refused_before_any_file(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, lacking: str
) -> None:
    del server.files[lacking]
    with pytest.raises(ModelNotFound, match=lacking.partition(".")[0]):
        await store.pull(entry, silent)
    assert len(server.requests) == 1


async def test_another_commit_than_the_pinned_one_is_refused(
    server: HubServer, store: DiskModelStore
) -> None:
    with pytest.raises(UpstreamFailed, match="another commit"):
        await store.pull(made(f"{REPOSITORY}@{'c' * 40}"), silent)


async def test_a_hub_that_is_not_there(entry: CatalogEntry, tmp_path: Path) -> None:
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    store = DiskModelStore(tmp_path, Hub(HubAddress(f"http://127.0.0.1:{port}"), retry_delays_s=[]))
    with pytest.raises(UpstreamFailed, match="could not be asked"):
        await store.pull(entry, silent)


async def test_offline_works_with_what_is_here_and_asks_nobody(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, tmp_path: Path
) -> None:
    offline = make_store(server, tmp_path, offline=True)
    with pytest.raises(Unavailable, match="offline"):
        await offline.pull(entry, silent)
    assert server.requests == []
    model = await store.pull(entry, silent)
    assert offline.locate(entry) == model


async def test_the_token_stays_with_the_hub(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    storage = HubServer()
    listener = await asyncio.start_server(storage.answer, "127.0.0.1", 0)
    server.redirect_to = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        model = await store.pull(entry, silent)
    assert (model.files.path / "model.bin").read_bytes() == FILES["model.bin"]
    assert all(headers["authorization"] == "Bearer secret" for _, headers in server.requests)
    assert storage.requests
    assert all("authorization" not in headers for _, headers in storage.requests)


async def test_a_full_disk_is_told_before_anything_is_fetched(
    server: HubServer, entry: CatalogEntry, tmp_path: Path
) -> None:
    full = make_store(server, tmp_path, free_bytes=lambda _: 1_000_000)
    with pytest.raises(Unavailable, match="disk space"):
        await full.pull(entry, silent)
    assert ranges(server) == []


async def test_a_models_folder_that_cannot_be_made(
    server: HubServer, entry: CatalogEntry, tmp_path: Path
) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(Unavailable, match="models folder"):
        await make_store(server, tmp_path).pull(entry, silent)


async def test_remove_drops_every_revision_and_what_was_begun(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry, tmp_path: Path
) -> None:
    await store.pull(entry, silent)
    server.commit = "b" * 40
    await store.pull(entry, silent)
    server.commit, server.cuts = "c" * 40, [10, 0, 0, 0, 0]
    with pytest.raises(UpstreamFailed):
        await store.pull(entry, silent)
    store.remove(entry)
    assert store.locate(entry) is None
    left = [p for p in (tmp_path / "models").rglob("*") if p.is_file()]
    assert [p.suffix for p in left] == [".lock"]
    with pytest.raises(ModelNotInstalled):
        store.remove(entry)


async def test_a_damaged_model_is_not_installed_and_can_be_pulled_again(
    server: HubServer, store: DiskModelStore, entry: CatalogEntry
) -> None:
    model = await store.pull(entry, silent)
    (model.files.path / "model.bin").write_bytes(b"cut")
    assert store.locate(entry) is None
    again = await store.pull(entry, silent)
    assert (again.files.path / "model.bin").read_bytes() == FILES["model.bin"]


async def test_the_bundled_model_is_here_and_stays(store: DiskModelStore) -> None:
    moonshine = find_entry("moonshine-tiny-en")
    assert moonshine
    model = store.locate(moonshine)
    assert model
    assert model.origin == "wheel"
    assert (model.files.path / "encoder_model.ort").is_file()
    assert model.size_bytes == moonshine.size_bytes
    assert model.files.revision == moonshine.revision
    assert await store.pull(moonshine, silent) == model
    with pytest.raises(Conflict, match="can't be removed"):
        store.remove(moonshine)


async def test_a_folder_of_the_user_is_used_where_it_lies(store: DiskModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    entry = folder_entry(str(folder))
    assert entry
    with pytest.raises(ModelNotFound):
        await store.pull(entry, silent)
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes(FILES[name])
    model = store.locate(entry)
    assert model
    assert model.files.path == folder
    assert await store.pull(entry, silent) == model
    with pytest.raises(Conflict, match="yours"):
        store.remove(entry)
    assert (folder / "model.bin").exists()


async def test_a_folder_whose_files_have_been_replaced_is_another_revision(
    store: DiskModelStore, tmp_path: Path
) -> None:
    entry = folder_entry(str(tmp_path / "mine"))
    assert entry is not None
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes(FILES[name])

    def revision() -> str:
        model = store.locate(entry)
        assert model is not None
        return model.files.revision

    before = revision()
    assert revision() == before
    other = bytes(reversed(FILES["model.bin"]))  # as long as the old one
    (folder / "model.bin").write_bytes(other)
    os.utime(folder / "model.bin", ns=(1, 1))
    assert revision() != before


async def test_the_hubs_own_client_understands_this_server(server: HubServer) -> None:
    """What we are tested against is the hub's API as its makers read it."""
    library = pytest.importorskip("huggingface_hub")
    client = library.HfApi(endpoint=server.endpoint, token=False)
    info = await asyncio.to_thread(client.model_info, REPOSITORY, revision="main", files_metadata=True)
    assert info.sha == COMMIT
    large = next(file for file in info.siblings if file.rfilename == "model.bin")
    assert large.lfs.sha256 == hashlib.sha256(FILES["model.bin"]).hexdigest()
    small = next(file for file in info.siblings if file.rfilename == "config.json")
    assert (small.blob_id, small.size) == (blob_sha1(FILES["config.json"]), len(FILES["config.json"]))


def test_the_hub_library_knows_the_public_address() -> None:
    pytest.importorskip("huggingface_hub")
    assert default_address().endpoint.startswith("https://")


async def test_without_hub_library_an_address_must_be_set(
    entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyMissing, match="hub_endpoint"):
        await DiskModelStore(tmp_path, Hub()).pull(entry, silent)
