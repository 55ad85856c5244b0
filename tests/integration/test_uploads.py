"""Uploads in pieces: an unmodified tus client, broken connections, several processes, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native.tus_headers import checksum_of, filename_of, metadata_of
from voiceforge.errors import Conflict, EmptyAudio, InvalidRequest, NotFound, StorageFull, UploadTooLarge
from voiceforge.infra.db import uploads as rows
from voiceforge.infra.db.database import Database
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.uploads import Uploads
from voiceforge.testing.job_house import TestClock
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

MIB = 1 << 20
CONTENT = bytes(range(256)) * (20 * 4096)  # 20 MiB
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


def uploads_of(database: Database, tmp_path: Path, **wishes: object) -> Uploads:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return Uploads(
        **{  # type: ignore[arg-type]
            "database": database,
            "folder": tmp_path / "uploads",
            "temp_dir": tmp_path / "tmp",
            "max_bytes": 32 * MIB,
            **wishes,
        }
    )


async def pieces(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


@pytest_asyncio.fixture
async def uploads(database: Database, tmp_path: Path) -> Uploads:
    return uploads_of(database, tmp_path)


@dataclass(frozen=True)
class Servers:
    """Two processes' worth of one server, on the same database and folder."""

    one: str
    other: str
    folder: Path


@dataclass
class ClosesAtTheEnd:
    """The server's loop is the one its database belongs to."""

    app: ASGIApp
    database: Database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.database.close()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def servers(database_url: str, tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        urls = []
        for _ in range(2):
            services, database = (
                scripted_services(ScriptedTranscriptions(), tmp_path),
                Database(database_url),
            )
            services = replace(services, uploads=uploads_of(database, tmp_path))
            served = create_app(services, HttpConfig(temp_dir=tmp_path / "tmp", version="0"))
            app = ClosesAtTheEnd(served, database)
            urls.append(stack.enter_context(live_server(app)).url)
            stack.callback(services.engines.close, 0.0)
        yield Servers(*urls, folder=tmp_path / "uploads")


def begun(url: str, length: int, **headers: str) -> str:
    reply = httpx.post(f"{url}/v1/uploads", headers=TUS | {"Upload-Length": str(length)} | headers)
    assert reply.status_code == 201, reply.text
    return reply.headers["Location"]


def break_off(url: str, path: str, stored: Path, data: bytes, *, claimed: int) -> None:
    """Say that `claimed` bytes follow, send `data`, and vanish once some of it has arrived."""
    parts, offset = urlsplit(url), stored.stat().st_size
    with socket.create_connection((parts.hostname, parts.port)) as line:
        line.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {claimed}\r\n\r\n".encode()
        )
        line.sendall(data)
        while stored.stat().st_size == offset:
            time.sleep(0.01)


def offset_at(url: str, path: str) -> int:
    reply = httpx.head(f"{url}{path}", headers=TUS)
    assert reply.status_code == 200
    assert reply.headers["Cache-Control"] == "no-store"
    return int(reply.headers["Upload-Offset"])


def test_an_unmodified_client_uploads_and_resumes(servers: Servers, tmp_path: Path) -> None:
    recording = tmp_path / "a talk.wav"
    recording.write_bytes(CONTENT)
    first = TusClient(f"{servers.one}/v1/uploads").uploader(
        str(recording), chunk_size=3 * MIB, metadata={"filename": "a talk.wav"}, upload_checksum=True
    )
    first.upload(stop_at=7 * MIB)
    assert first.offset == 7 * MIB
    path = urlsplit(first.url).path
    # The connection breaks in the middle of a piece, and the rest goes to another process.
    (stored,) = servers.folder.iterdir()
    break_off(servers.one, path, stored, CONTENT[7 * MIB : 11 * MIB + 77], claimed=13 * MIB)
    resumed = TusClient(f"{servers.other}/v1/uploads").uploader(
        str(recording), chunk_size=4 * MIB, url=f"{servers.other}{path}"
    )
    assert 7 * MIB < resumed.offset <= 11 * MIB + 77
    resumed.upload()
    assert stored.read_bytes() == CONTENT
    shown = httpx.head(f"{servers.one}{path}", headers=TUS).headers
    assert (shown["Upload-Offset"], shown["Upload-Length"]) == (str(len(CONTENT)),) * 2
    assert shown["Upload-Metadata"] == "filename " + base64.b64encode(b"a talk.wav").decode()
    assert "GMT" in shown["Upload-Expires"]


def test_a_client_is_told_of_a_damaged_piece(servers: Servers) -> None:
    path = begun(servers.one, 10)
    damaged = PIECE | {
        "Upload-Offset": "0",
        "Upload-Checksum": "sha1 " + base64.b64encode(b"x" * 20).decode(),
    }
    reply = httpx.patch(f"{servers.one}{path}", headers=damaged, content=b"0123456789")
    assert reply.status_code == 460
    assert offset_at(servers.one, path) == 0
    right = base64.b64encode(hashlib.sha256(b"0123456789").digest()).decode()
    reply = httpx.patch(
        f"{servers.one}{path}",
        headers=PIECE | {"Upload-Offset": "0", "Upload-Checksum": f"sha256 {right}"},
        content=b"0123456789",
    )
    assert (reply.status_code, reply.headers["Upload-Offset"]) == (204, "10")


def test_speaks_the_protocol(servers: Servers) -> None:
    told = httpx.options(f"{servers.one}/v1/uploads")
    assert told.status_code == 204
    assert told.headers["Tus-Version"] == "1.0.0"
    assert told.headers["Tus-Max-Size"] == str(32 * MIB)
    assert set(told.headers["Tus-Extension"].split(",")) >= {"creation", "termination", "expiration"}

    with_body = httpx.post(
        f"{servers.one}/v1/uploads", headers=PIECE | {"Upload-Length": "6"}, content=b"abcd"
    )
    assert (with_body.status_code, with_body.headers["Upload-Offset"]) == (201, "4")
    url = servers.one + with_body.headers["Location"]

    replies = {
        "no version": httpx.head(url),
        "another version": httpx.patch(url, headers=PIECE | {"Tus-Resumable": "0.2.2"}, content=b"e"),
        "wrong type": httpx.patch(
            url, headers=TUS | {"Upload-Offset": "4", "Content-Type": "text/plain"}, content=b"e"
        ),
        "no offset": httpx.patch(url, headers=PIECE, content=b"e"),
        "wrong offset": httpx.patch(url, headers=PIECE | {"Upload-Offset": "3"}, content=b"e"),
        "too much": httpx.patch(url, headers=PIECE | {"Upload-Offset": "4"}, content=b"efg"),
        "unknown": httpx.patch(
            f"{servers.one}/v1/uploads/up_none", headers=PIECE | {"Upload-Offset": "0"}, content=b"e"
        ),
        "no length": httpx.post(f"{servers.one}/v1/uploads", headers=TUS),
        "huge": httpx.post(f"{servers.one}/v1/uploads", headers=TUS | {"Upload-Length": str(32 * MIB + 1)}),
        "bad metadata": httpx.post(
            f"{servers.one}/v1/uploads", headers=TUS | {"Upload-Length": "1", "Upload-Metadata": "a ?"}
        ),
    }
    assert {name: reply.status_code for name, reply in replies.items()} == {
        "no version": 412,
        "another version": 412,
        "wrong type": 415,
        "no offset": 422,
        "wrong offset": 409,
        "too much": 413,
        "unknown": 404,
        "no length": 422,
        "huge": 413,
        "bad metadata": 422,
    }
    assert {reply.headers["Tus-Resumable"] for reply in replies.values()} == {"1.0.0"}
    assert offset_at(servers.one, with_body.headers["Location"]) == 4

    # A client that has only POST, and no Content-Length.
    posted = httpx.post(
        url,
        headers=PIECE | {"Upload-Offset": "4", "X-HTTP-Method-Override": "PATCH"},
        content=iter([b"e", b"f"]),
    )
    assert (posted.status_code, posted.headers["Upload-Offset"]) == (204, "6")
    assert httpx.delete(url, headers=TUS).status_code == 204
    assert httpx.head(url, headers=TUS).status_code == 404
    assert list(servers.folder.iterdir()) == []


def test_an_expired_one_is_not_found_by_whatever_asks_for_it(servers: Servers, database_url: str) -> None:
    """And says nothing of where it was: clients begin a new one."""
    path = begun(servers.one, 6)

    async def expire() -> None:
        database = Database(database_url)
        async with database.transaction() as connection:
            await rows.expire_by(connection, path.rpartition("/")[2], time.time() - 1)
        await database.close()

    asyncio.run(expire())
    for reply in (
        httpx.head(f"{servers.one}{path}", headers=TUS),
        httpx.patch(f"{servers.other}{path}", headers=PIECE | {"Upload-Offset": "0"}, content=b"e"),
        httpx.delete(f"{servers.one}{path}", headers=TUS),
    ):
        assert reply.status_code == 404
        assert "Upload-Offset" not in reply.headers


def test_more_than_was_said_stops_where_it_crosses(servers: Servers) -> None:
    path = begun(servers.one, 5)
    reply = httpx.patch(
        f"{servers.one}{path}", headers=PIECE | {"Upload-Offset": "0"}, content=iter([b"abc", b"defgh"])
    )
    assert reply.status_code == 413
    assert offset_at(servers.one, path) <= 5
    with pytest.raises(TusCommunicationError):
        TusClient(f"{servers.one}/v1/uploads").uploader(
            file_stream=io.BytesIO(b"abc"), url=f"{servers.one}/v1/uploads/up_none"
        )


def test_a_request_that_hangs_makes_room_for_the_next(servers: Servers) -> None:
    """Its client has gone without a word, and comes again, to another process."""
    path = begun(servers.one, 10)
    parts = urlsplit(servers.one)
    with socket.create_connection((parts.hostname, parts.port)) as hanging:
        hanging.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            "Content-Type: application/offset+octet-stream\r\nContent-Length: 10\r\n\r\nabcd".encode()
        )
        while not list(servers.folder.glob("*")):
            time.sleep(0.01)
        offset = offset_at(servers.other, path)
        assert offset in (0, 4)  # what had been read by then
        rest = b"abcdefghij"[offset:]
        reply = httpx.patch(
            f"{servers.other}{path}", headers=PIECE | {"Upload-Offset": str(offset)}, content=rest
        )
        assert reply.status_code == 204
    assert next(servers.folder.iterdir()).read_bytes() == b"abcdefghij"


async def test_what_came_before_the_end_stays(uploads: Uploads) -> None:
    upload = await uploads.create(OWNER, 10)
    with pytest.raises(ConnectionError):
        await uploads.append(OWNER, upload.id, 0, pieces(b"abc", b"d", ConnectionError()))
    assert (await uploads.show(OWNER, upload.id)).offset_bytes == 4
    with pytest.raises(Conflict, match="byte 4"):
        await uploads.append(OWNER, upload.id, 3, pieces(b"defghij"))
    done = await uploads.append(OWNER, upload.id, 4, pieces(b"efghij"))
    assert done.is_complete
    again = await uploads.append(OWNER, upload.id, 10, pieces())
    assert again.is_complete


async def test_bytes_beyond_what_was_saved_do_not_count(
    uploads: Uploads, tmp_path: Path, database: Database
) -> None:
    """A killed process leaves them behind."""
    upload = await uploads.create(OWNER, 6)
    await uploads.append(OWNER, upload.id, 0, pieces(b"abc"))
    with (tmp_path / "uploads" / upload.id).open("ab") as file:
        file.write(b"XXX")
    again = uploads_of(database, tmp_path)
    assert (await again.show(OWNER, upload.id)).offset_bytes == 3
    await again.append(OWNER, upload.id, 3, pieces(b"def"))
    assert (tmp_path / "uploads" / upload.id).read_bytes() == b"abcdef"


async def test_a_finished_one_is_a_recording(uploads: Uploads, tmp_path: Path) -> None:
    upload = await uploads.create(OWNER, 6, filename="a.wav")
    with pytest.raises(Conflict, match="0 of 6"):
        async with uploads.source(OWNER, upload.id):
            pass
    await uploads.append(OWNER, upload.id, 0, pieces(b"abcdef"))
    for _ in range(2):  # a request may be made again
        async with uploads.source(OWNER, upload.id) as given:
            assert given.filename == "a.wav"
            assert given.audio.sha256 == hashlib.sha256(b"abcdef").digest()
            given.audio.path.rename(tmp_path / "taken")
        assert (tmp_path / "taken").read_bytes() == b"abcdef"
    with pytest.raises(RuntimeError):
        async with uploads.source(OWNER, upload.id, keep=False):
            raise RuntimeError("it was not accepted")
    async with uploads.source(OWNER, upload.id, keep=False):
        pass
    with pytest.raises(NotFound):
        async with uploads.source(OWNER, upload.id):
            pass
    assert list((tmp_path / "uploads").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """As if the disk were full beyond it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_what_came_before_the_disk_was_full_stays(uploads: Uploads, tmp_path: Path) -> None:
    parts = [bytes([number]) * MIB for number in range(8)]
    upload = await uploads.create(OWNER, 8 * MIB)
    with largest_file(5 * MIB), pytest.raises(StorageFull):
        await uploads.append(OWNER, upload.id, 0, pieces(*parts))
    assert (await uploads.show(OWNER, upload.id)).offset_bytes == 5 * MIB
    with pytest.raises(Conflict):
        await uploads.append(OWNER, upload.id, 0, pieces(*parts))
    done = await uploads.append(OWNER, upload.id, 5 * MIB, pieces(*parts[5:]))
    assert done.is_complete
    stored = await asyncio.to_thread((tmp_path / "uploads" / upload.id).read_bytes)
    assert stored == b"".join(parts)


async def test_nobody_else_s(uploads: Uploads) -> None:
    upload = await uploads.create(trusted("somebody"), 3)
    for act in (
        uploads.show(OWNER, upload.id),
        uploads.remove(OWNER, upload.id),
        uploads.append(OWNER, upload.id, 0, pieces(b"abc")),
    ):
        with pytest.raises(NotFound):
            await act


async def test_nothing_in_it_and_too_much_for_it(uploads: Uploads) -> None:
    empty = await uploads.create(OWNER, 0)
    with pytest.raises(EmptyAudio):
        async with uploads.source(OWNER, empty.id):
            pass
    with pytest.raises(UploadTooLarge):
        await uploads.create(OWNER, 32 * MIB + 1)


async def test_goes_when_its_time_is_over(database: Database, tmp_path: Path) -> None:
    clock = TestClock()
    uploads = uploads_of(database, tmp_path, clock=clock, expire_s=100)
    unfinished, used = await uploads.create(OWNER, 6), await uploads.create(OWNER, 3)
    await uploads.append(OWNER, unfinished.id, 0, pieces(b"abc"))
    await uploads.append(OWNER, used.id, 0, pieces(b"abc"))
    assert await uploads.sweep() == 0
    clock.ahead_s = 101
    with pytest.raises(NotFound):
        await uploads.show(OWNER, unfinished.id)
    assert await uploads.sweep() == 2
    assert await uploads.sweep() == 0
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_each_machine_removes_its_own_files_of_what_another_forgot(
    database: Database, tmp_path: Path
) -> None:
    clock = TestClock()
    here, there = (
        uploads_of(database, tmp_path, folder=tmp_path / name, clock=clock, expire_s=3600) for name in "ab"
    )
    gone = await here.create(OWNER, 6)
    await here.append(OWNER, gone.id, 0, pieces(b"abc"))
    clock.ahead_s = 3601
    kept = await here.create(OWNER, 6)
    await here.append(OWNER, kept.id, 0, pieces(b"abc"))
    assert await there.sweep() == 1
    assert await there.remove_strays() == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {gone.id, kept.id}
    assert await here.remove_strays() == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == [kept.id]


async def test_a_silent_client_is_not_waited_for(database: Database, tmp_path: Path) -> None:
    uploads = uploads_of(database, tmp_path, idle_s=0.1)

    async def silent() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    upload = await uploads.create(OWNER, 6)
    with pytest.raises(InvalidRequest, match="nothing"):
        await uploads.append(OWNER, upload.id, 0, silent())
    assert (await uploads.show(OWNER, upload.id)).offset_bytes == 3


@given(st.dictionaries(st.from_regex(r"[a-z!#-]{1,10}", fullmatch=True), st.text(max_size=30), max_size=5))
def test_metadata_is_read_as_it_was_written(metadata: dict[str, str]) -> None:
    header = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
    assert metadata_of(header) == metadata


@given(st.text(max_size=200))
@example("0 \x80")
def test_headers_are_read_or_refused(text: str) -> None:
    for read in (metadata_of, checksum_of):
        with suppress(InvalidRequest):
            read(text)


@given(st.text(max_size=400))
def test_a_file_s_name_is_a_name(text: str) -> None:
    name = filename_of({"filename": text})
    assert name is None or (0 < len(name) <= 255 and "/" not in name and name.isprintable())
