"""What every store of blobs must do, wherever it keeps them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import BlobMissing, ChecksumMismatch
from voiceforge.infra.blobs.base import MAX_KEY_CHARS, Blobs, check_key, check_prefix
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.s3_server import S3Server, find_rclone, s3_server

KEY = "default/audio/0001"
NUMBERS = itertools.count()
LARGE = bytes(range(256)) * 50_021  # 12.8 MB, of no even number of blocks


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if find_rclone() is None:
        pytest.skip("there is no S3 server here")
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local disk", "memory", "s3"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    made: Blobs
    match request.param:
        case "local disk":
            made = LocalDiskBlobs(tmp_path / "blobs")
        case "memory":
            made = MemoryBlobs()
        case _:
            from voiceforge.infra.blobs.object_store import ObjectStoreBlobs

            server = request.getfixturevalue("s3")
            made = ObjectStoreBlobs(server.access(f"of-all/test-{next(NUMBERS)}"))
    yield made
    await made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(LARGE)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


async def whole(blobs: Blobs, key: str = KEY, *, start: int = 0) -> bytes:
    return b"".join([piece async for piece in blobs.read(key, start=start)])


async def keys(blobs: Blobs, prefix: str = "") -> list[str]:
    return sorted([info.key async for info in blobs.list(prefix)])


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def reads(path: Path) -> bytes:
    return path.read_bytes()


async def pieces_of(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def breaking_off(after_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(0, after_bytes, 1 << 16):
        yield bytes(1 << 16)
    raise ConnectionResetError(errno.ECONNRESET, "the client went away")


@pytest.mark.parametrize("content", [b"", b"text", bytes(1 << 20), LARGE], ids=len)
async def test_what_is_put_is_read(blobs: Blobs, content: bytes) -> None:
    before = time.time()
    put = await blobs.put(KEY, content)
    assert (put.key, put.size_bytes) == (KEY, len(content))
    assert before - 2 <= put.stored_at <= time.time() + 2
    assert await whole(blobs) == content
    info = await blobs.info(KEY)
    assert info is not None
    assert (info.key, info.size_bytes) == (KEY, len(content))
    assert abs(info.stored_at - put.stored_at) < 2


@pytest.mark.parametrize("size", [1 << 10, 700_001, 1 << 20, 20 << 20])
async def test_a_stream_is_put_whatever_its_pieces_are(blobs: Blobs, size: int) -> None:
    await blobs.put(KEY, pieces_of(LARGE, size), sha256=hashlib.sha256(LARGE).digest())
    assert await whole(blobs) == LARGE


async def test_an_empty_stream_is_an_empty_blob(blobs: Blobs) -> None:
    await blobs.put(KEY, pieces_of(b"", 1))
    assert await whole(blobs) == b""


@pytest.mark.parametrize("digest", [None, hashlib.sha256(LARGE).digest()], ids=["unchecked", "checked"])
async def test_a_file_is_copied_or_taken(blobs: Blobs, file: Path, digest: bytes | None) -> None:
    await blobs.put(KEY, file, sha256=digest)
    with file.open("r+b") as upload:
        upload.write(b"changed afterwards")
    assert await whole(blobs) == LARGE
    changed = reads(file)
    await blobs.put("default/audio/0002", file, sha256=digest and hashlib.sha256(changed).digest(), take=True)
    assert file.name not in names_in(file.parent)
    assert await whole(blobs, "default/audio/0002") == changed


@pytest.mark.parametrize("start", [1, 1 << 20, 5_000_001, len(LARGE) - 1, len(LARGE), len(LARGE) + 1])
async def test_reading_starts_anywhere(blobs: Blobs, start: int) -> None:
    await blobs.put(KEY, LARGE)
    assert await whole(blobs, start=start) == LARGE[start:]


async def test_pieces_are_small_whatever_the_blob(blobs: Blobs) -> None:
    await blobs.put(KEY, LARGE)
    assert max([len(piece) async for piece in blobs.read(KEY)]) <= 2 << 20


async def test_reading_can_stop_early(blobs: Blobs) -> None:
    await blobs.put(KEY, LARGE)
    async with aclosing(blobs.read(KEY)) as pieces:
        async for piece in pieces:
            assert LARGE.startswith(piece)
            break
    assert await whole(blobs) == LARGE


async def test_a_put_replaces(blobs: Blobs) -> None:
    await blobs.put(KEY, LARGE)
    await blobs.put(KEY, b"short")
    assert await whole(blobs) == b"short"
    assert await keys(blobs) == [KEY]


async def test_a_wrong_digest_stores_nothing(blobs: Blobs, file: Path) -> None:
    wrong = hashlib.sha256(b"another").digest()
    for content in (LARGE, b"short", pieces_of(LARGE, 1 << 20), file):
        with pytest.raises(ChecksumMismatch):
            await blobs.put(KEY, content, sha256=wrong, take=True)
        assert await blobs.info(KEY) is None
    assert reads(file) == LARGE
    await blobs.put(KEY, b"before")
    with pytest.raises(ChecksumMismatch):
        await blobs.put(KEY, LARGE, sha256=wrong)
    assert await whole(blobs) == b"before"


@pytest.mark.parametrize("after_bytes", [0, 1 << 16, 12 << 20])
async def test_a_source_that_breaks_off_stores_nothing_and_its_error_arrives(
    blobs: Blobs, after_bytes: int
) -> None:
    with pytest.raises(ConnectionResetError):
        await blobs.put(KEY, breaking_off(after_bytes))
    assert await blobs.info(KEY) is None
    assert await keys(blobs) == []


async def test_a_file_that_is_not_there_stores_nothing(blobs: Blobs, tmp_path: Path) -> None:
    for take in (False, True):
        with pytest.raises(FileNotFoundError):
            await blobs.put(KEY, tmp_path / "nothing", take=take)
    assert await blobs.info(KEY) is None


@pytest.mark.parametrize("after_bytes", [0, 12 << 20])
async def test_a_put_cancelled_midway_stores_nothing(blobs: Blobs, after_bytes: int) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield bytes(after_bytes)
        reached.set()
        await never.wait()

    putting = asyncio.create_task(blobs.put(KEY, stuck()))
    await reached.wait()
    assert await blobs.info(KEY) is None
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await blobs.info(KEY) is None
    await blobs.put(KEY, b"later")
    assert await whole(blobs) == b"later"


async def test_two_puts_of_one_key_at_once_leave_one_of_them_whole(blobs: Blobs) -> None:
    contents = [bytes([number]) * 6_000_000 for number in range(4)]
    await asyncio.gather(*(blobs.put(KEY, pieces_of(content, 1 << 20)) for content in contents))
    assert await whole(blobs) in contents
    assert await keys(blobs) == [KEY]


async def test_what_is_not_there_is_missing_by_every_door(blobs: Blobs, scratch: Path) -> None:
    await blobs.put("default/audio/0001/full", b"x")
    for key in (KEY, "default", "none", "default/audio/0001/full/more"):
        assert await blobs.info(key) is None
        assert await blobs.delete(key) is False
        with pytest.raises(BlobMissing):
            await whole(blobs, key)
        with pytest.raises(BlobMissing):
            async with blobs.at_path(key, scratch):
                pass
    assert names_in(scratch) == []


async def test_deleting_removes_one(blobs: Blobs) -> None:
    await blobs.put(KEY, b"one")
    await blobs.put("default/audio/0002", b"two")
    assert await blobs.delete(KEY) is True
    assert await blobs.delete(KEY) is False
    assert await keys(blobs) == ["default/audio/0002"]
    await blobs.put(KEY, b"again")
    assert await whole(blobs) == b"again"


async def test_listing_goes_by_whole_segments(blobs: Blobs) -> None:
    names = ["a/b/c", "a/b/d/e", "a/bc", "ab/c", "z"]
    for name in names:
        await blobs.put(name, name.encode())
    assert await keys(blobs) == names
    assert await keys(blobs, "a") == ["a/b/c", "a/b/d/e", "a/bc"]
    assert await keys(blobs, "a/b") == await keys(blobs, "a/b/") == ["a/b/c", "a/b/d/e"]
    assert await keys(blobs, "a/b/c") == await keys(blobs, "none") == []
    assert {info.key: info.size_bytes async for info in blobs.list("a/b")} == {"a/b/c": 5, "a/b/d/e": 7}


async def test_listing_tells_all_of_many(blobs: Blobs) -> None:
    names = [f"many/{number % 7}/{number:04}" for number in range(1_200)]
    for some in range(0, len(names), 50):
        await asyncio.gather(*(blobs.put(name, b"") for name in names[some : some + 50]))
    assert await keys(blobs, "many") == sorted(names)


async def test_at_path_is_a_file_to_read(blobs: Blobs, scratch: Path) -> None:
    await blobs.put(KEY, LARGE)
    async with blobs.at_path(KEY, scratch, sha256=hashlib.sha256(LARGE).digest()) as path:
        assert reads(path) == LARGE
    assert names_in(scratch) == []
    with pytest.raises(ZeroDivisionError):
        async with blobs.at_path(KEY, scratch):
            raise ZeroDivisionError
    assert names_in(scratch) == []
    assert await whole(blobs) == LARGE


async def test_there_is_nothing_partial_to_sweep_and_the_store_is_fit(blobs: Blobs) -> None:
    await blobs.check()
    await blobs.put(KEY, b"x")
    await blobs.check()
    assert await blobs.sweep_partial(0) == 0
    assert await keys(blobs) == [KEY]


BAD_KEYS = [
    *("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", ".partial/x", "a/.b", "a.", "a b", "ä"),
    *("a\0", "a\n", "a\\b", "~", "a?b", "a#b", "a%2e", "x" * 129, "/".join(["x" * 100] * 6)),
]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_what_is_no_key_is_refused_by_every_door(blobs: Blobs, key: str, scratch: Path) -> None:
    with pytest.raises(ValueError, match="not the key"):
        await blobs.put(key, b"x")
    with pytest.raises(ValueError, match="not the key"):
        await whole(blobs, key)
    with pytest.raises(ValueError, match="not the key"):
        await blobs.info(key)
    with pytest.raises(ValueError, match="not the key"):
        await blobs.delete(key)
    with pytest.raises(ValueError, match="not the key"):
        async with blobs.at_path(key, scratch):
            pass
    with pytest.raises(ValueError, match="not the key"):
        await blobs.download_url(key, expires_s=60)
    with pytest.raises(ValueError, match="not the key"):
        await blobs.upload_url(key, expires_s=60)
    assert await keys(blobs) == []


SEGMENTS = st.from_regex(r"[A-Za-z0-9_-]([A-Za-z0-9._-]{0,20}[A-Za-z0-9_-])?", fullmatch=True)


@given(st.lists(SEGMENTS, min_size=1, max_size=8))
def test_keys_of_good_segments_are_keys_and_prefixes(segments: list[str]) -> None:
    key = "/".join(segments)
    assert check_key(key) == key
    assert check_prefix(key) == check_prefix(f"{key}/") == key


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z./ ~\\-]{1,12}", fullmatch=True))
def test_what_passes_for_a_key_stays_inside_its_folder(text: str) -> None:
    try:
        key = check_key(text)
    except ValueError:
        return
    root = Path("/store")
    path = root / key
    assert str(path) == f"/store/{key}"  # nothing was folded, nothing is absolute
    assert path.is_relative_to(root)
    assert not any(part.startswith(".") for part in path.relative_to(root).parts)
    assert key.isascii()
    assert len(key) <= MAX_KEY_CHARS
