"""Blobs in an object store that dies, stalls, refuses and fills up; and what leaves us for it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from voiceforge.errors import BlobMissing, ChecksumMismatch, StorageFull, Unavailable
from voiceforge.infra.blobs.address import StoreAccess, parse_store_url
from voiceforge.infra.blobs.object_store import ObjectStoreBlobs
from voiceforge.testing.s3_server import (
    ACCESS_KEY_ID,
    BUCKET,
    SECRET_ACCESS_KEY,
    S3Server,
    find_rclone,
    s3_server,
)
from voiceforge.testing.scripted_store import Answer, Asked, scripted_store

KEY = "default/audio/0001"
MEBIBYTE = bytes(range(256)) * 4096
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if find_rclone() is None:
        pytest.skip("there is no S3 server here")
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def blobs(s3: S3Server) -> ObjectStoreBlobs:
    return ObjectStoreBlobs(s3.access(f"faults-{next(NUMBERS)}"))


def hasty(blobs: ObjectStoreBlobs, timeout_s: float) -> ObjectStoreBlobs:
    """The same store, with less patience; for what it cannot do in any time."""
    return ObjectStoreBlobs(replace(blobs.access, timeout_s=timeout_s))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def read_while(blobs: ObjectStoreBlobs, happens: Callable[[], None]) -> bytes:
    """What arrives before the store fails: something `happens` after each piece."""
    got = bytearray()
    try:
        async with aclosing(blobs.read(KEY)) as pieces:
            async for piece in pieces:
                got += piece
                happens()
    except Unavailable:
        return bytes(got)
    pytest.fail("the whole blob was read")


async def whole(blobs: ObjectStoreBlobs) -> bytes:
    return b"".join([piece async for piece in blobs.read(KEY)])


class Source:
    """So many mebibytes, then it waits for `go_on`, then as many again."""

    def __init__(self, mebibytes: int) -> None:
        self.halfway, self.go_on = asyncio.Event(), asyncio.Event()
        self._mebibytes = mebibytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._mebibytes):
            yield MEBIBYTE
        self.halfway.set()
        await self.go_on.wait()
        for _ in range(self._mebibytes):
            yield MEBIBYTE


# -- death and silence --------------------------------------------------------------------------------


async def test_killed_in_the_middle_of_a_put(s3: S3Server, blobs: ObjectStoreBlobs) -> None:
    source = Source(12)
    putting = asyncio.create_task(hasty(blobs, 2).put(KEY, source))
    await source.halfway.wait()
    s3.kill()
    source.go_on.set()
    with pytest.raises(Unavailable) as caught:
        await putting
    assert caught.value.retry_after_s
    s3.start()
    assert await blobs.info(KEY) is None
    assert [info async for info in blobs.list()] == []
    await blobs.put(KEY, source)
    assert await whole(blobs) == MEBIBYTE * 24


async def test_killed_in_the_middle_of_a_read(s3: S3Server, blobs: ObjectStoreBlobs) -> None:
    content = MEBIBYTE * 64  # more than sockets hold
    await blobs.put(KEY, content)
    got = await read_while(hasty(blobs, 1), s3.kill)
    s3.start()
    assert content.startswith(got)
    assert await whole(blobs) == content


async def test_a_store_that_is_away_is_unavailable_by_every_door_and_then_works(
    s3: S3Server, blobs: ObjectStoreBlobs, tmp_path: Path
) -> None:
    await blobs.put(KEY, b"text")
    s3.kill()
    await unavailable_by_every_door(hasty(blobs, 0.3), tmp_path)
    s3.start()
    assert await whole(blobs) == b"text"


async def test_a_store_that_stalls_is_unavailable_by_every_door_and_then_works(
    s3: S3Server, blobs: ObjectStoreBlobs, tmp_path: Path
) -> None:
    await blobs.put(KEY, b"text")
    s3.stall()
    try:
        await unavailable_by_every_door(hasty(blobs, 0.3), tmp_path)
    finally:
        s3.resume()
    assert await whole(blobs) == b"text"
    await blobs.put("later", b"another")
    assert [info.key async for info in blobs.list("default")] == [KEY]


async def unavailable_by_every_door(blobs: ObjectStoreBlobs, folder: Path) -> None:
    async def listed() -> None:
        async for _ in blobs.list():
            pass

    async def at_path() -> None:
        async with blobs.at_path(KEY, folder):
            pass

    # Not the key that is read: a store that stalls does it all when it goes on.
    for call in (
        *(blobs.put("small", b"another"), blobs.put("large", MEBIBYTE * 11), whole(blobs), at_path()),
        *(blobs.info(KEY), blobs.delete("small"), listed(), blobs.check()),
    ):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.retry_after_s
        assert caught.value.message == "the store does not answer"
    assert names_in(folder) == []


async def test_stalled_in_the_middle_of_a_put(s3: S3Server, blobs: ObjectStoreBlobs) -> None:
    source = Source(12)
    putting = asyncio.create_task(hasty(blobs, 2).put(KEY, source))
    await source.halfway.wait()
    s3.stall()
    source.go_on.set()
    try:
        with pytest.raises(Unavailable):
            await putting
    finally:
        s3.resume()
    assert await blobs.info(KEY) is None


async def test_stalled_in_the_middle_of_a_read(s3: S3Server, blobs: ObjectStoreBlobs) -> None:
    await blobs.put(KEY, MEBIBYTE * 64)
    try:
        await read_while(hasty(blobs, 1), s3.stall)
    finally:
        s3.resume()


async def test_a_slow_reader_is_not_a_store_that_stalls(blobs: ObjectStoreBlobs) -> None:
    await blobs.put(KEY, MEBIBYTE * 32)
    size_bytes = 0
    async for piece in hasty(blobs, 1).read(KEY):
        if size_bytes == 0:
            await asyncio.sleep(1.3)  # beyond the timeout: there is nothing here that could be awaited
        size_bytes += len(piece)
    assert size_bytes == 32 << 20


# -- what is not finished -----------------------------------------------------------------------------


async def test_a_put_that_breaks_off_forgets_its_parts(s3: S3Server, blobs: ObjectStoreBlobs) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield MEBIBYTE
        raise ZeroDivisionError

    def aborted() -> int:
        return s3.log.count("serve s3: abort multipart upload")

    before = aborted()
    with pytest.raises(ZeroDivisionError):
        await blobs.put(KEY, breaks_off())
    assert aborted() == before + 1

    with pytest.raises(ChecksumMismatch):
        await blobs.put(KEY, MEBIBYTE * 12, sha256=hashlib.sha256(b"").digest())
    assert aborted() == before + 2

    source = Source(12)
    putting = asyncio.create_task(blobs.put(KEY, source))
    await source.halfway.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert aborted() == before + 3
    assert await blobs.info(KEY) is None


async def test_a_large_blob_takes_little_memory(s3: S3Server) -> None:
    """In a process of its own, whose peak is only that of the store's work."""
    program = f"""
import asyncio, resource, sys
from voiceforge.infra.blobs.address import StoreAccess, parse_store_url
from voiceforge.infra.blobs.object_store import ObjectStoreBlobs
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
async def main():
    blobs = ObjectStoreBlobs(StoreAccess(
        parse_store_url("s3://{BUCKET}/memory"), endpoint="{s3.endpoint}", region="us-east-1",
        access_key_id="{ACCESS_KEY_ID}", secret_access_key="{SECRET_ACCESS_KEY}", allow_http=True))
    async def pieces():
        for _ in range(200): yield bytes(1 << 20)
    await blobs.put("small", bytes(1 << 20))
    idle = peak()
    await blobs.put("large", pieces())
    put = peak()
    read = 0
    async for piece in blobs.read("large"): read += len(piece)
    print(read, (put - idle) // 1024, (peak() - idle) // 1024)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    read_bytes, put_mib, both_mib = map(int, said.split())
    print(f"put: {put_mib} MiB, put and read: {both_mib} MiB")
    assert read_bytes == 200 << 20
    assert put_mib < 64
    assert both_mib < 72


# -- refusals -----------------------------------------------------------------------------------------


async def test_wrong_keys_and_a_missing_bucket_are_told_without_secrets(
    s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = replace(s3.access("faults"), secret_access_key="not-the-secret")
    nowhere = replace(s3.access(), url=parse_store_url("s3://not-a-bucket/faults"))
    for access, code in ((wrong, "SignatureDoesNotMatch"), (nowhere, "NoSuchBucket")):
        blobs = ObjectStoreBlobs(access)
        caplog.clear()
        for call in (blobs.check(), blobs.put(KEY, b"x"), blobs.put(KEY, MEBIBYTE * 6)):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.message == "the store refuses us"
        told = [vars(record)["voiceforge_values"] for record in caplog.records]
        assert [line["code"] for line in told] == [code] * 3
        for hidden in (SECRET_ACCESS_KEY, "not-the-secret", ACCESS_KEY_ID, KEY, "127.0.0.1"):
            assert hidden not in repr(told) + caplog.text


@pytest.mark.parametrize(
    ("status", "code"), [(507, "XMinioStorageFull"), (507, ""), (403, "QuotaExceeded")], ids=str
)
async def test_a_full_bucket_is_told_as_such(status: int, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    with scripted_store(lambda asked: Answer(status, body)) as store:
        blobs = ObjectStoreBlobs(access_to(store.endpoint, timeout_s=0.2))
        for content in (b"x", MEBIBYTE * 11):
            with pytest.raises(StorageFull):
                await blobs.put(KEY, content)


async def test_a_fault_that_passes_is_not_noticed() -> None:
    answers = iter([Answer(503), Answer(500)])
    with scripted_store(lambda asked: next(answers, Answer(200, headers={"ETag": '"1"'}))) as store:
        await ObjectStoreBlobs(access_to(store.endpoint)).put(KEY, b"x")
        assert [asked.method for asked in store.asked] == ["PUT"] * 3


async def test_less_than_was_stored_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    """A copy that was cut, or changed in the store, is never given to a reader as the blob."""

    def answer(asked: Asked) -> Answer:
        told = {"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT", "Content-Length": "100"}
        return Answer(200, b"x" * 50, {**told, "Connection": "close"})

    with scripted_store(answer) as store:
        blobs = ObjectStoreBlobs(access_to(store.endpoint, timeout_s=0.3))
        with pytest.raises(Unavailable):
            await whole(blobs)
        with pytest.raises(Unavailable):
            async with blobs.at_path(KEY, tmp_path):
                pass
    assert names_in(tmp_path) == []


async def test_a_download_is_checked_against_the_digest(blobs: ObjectStoreBlobs, tmp_path: Path) -> None:
    await blobs.put(KEY, b"changed in the store")
    with pytest.raises(Unavailable):
        async with blobs.at_path(KEY, tmp_path, sha256=hashlib.sha256(b"as it was").digest()):
            pass
    assert names_in(tmp_path) == []


# -- what leaves us -----------------------------------------------------------------------------------


def access_to(endpoint: str, url: str = f"s3://{BUCKET}/pre/fix", *, timeout_s: float = 5) -> StoreAccess:
    return StoreAccess(
        parse_store_url(url),
        endpoint=endpoint,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        allow_http=True,
        timeout_s=timeout_s,
    )


async def test_encryption_and_digest_are_asked_of_the_store() -> None:
    with scripted_store(lambda asked: Answer(200, headers={"ETag": '"1"'})) as store:
        plain = access_to(store.endpoint)
        await ObjectStoreBlobs(plain).put(KEY, b"x")
        await ObjectStoreBlobs(replace(plain, encryption="AES256")).put(KEY, b"x")
        by_kms = replace(plain, encryption="aws:kms", kms_key_id="alias/mine")
        await ObjectStoreBlobs(by_kms).put(KEY, b"x")
    header = "x-amz-server-side-encryption"
    assert [asked.headers.get(header) for asked in store.asked] == [None, "AES256", "aws:kms"]
    assert store.asked[2].headers[f"{header}-aws-kms-key-id"] == "alias/mine"
    for asked in store.asked:
        assert asked.path == f"/{BUCKET}/pre/fix/{KEY}"
        assert asked.headers["x-amz-content-sha256"] == hashlib.sha256(b"x").hexdigest()


async def test_reading_from_the_middle_asks_for_no_more() -> None:
    def answer(asked: Asked) -> Answer:
        told = {"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT"}
        if asked.method == "HEAD":
            return Answer(200, headers={**told, "Content-Length": "10"})
        return Answer(206, b"6789", {**told, "Content-Range": "bytes 6-9/10"})

    with scripted_store(answer) as store:
        blobs = ObjectStoreBlobs(access_to(store.endpoint))
        assert b"".join([piece async for piece in blobs.read(KEY, start=6)]) == b"6789"
    assert [asked.headers.get("range") for asked in store.asked] == [None, "bytes=6-"]


async def test_addresses_for_others_work_without_keys(blobs: ObjectStoreBlobs) -> None:
    upload = await blobs.upload_url(KEY, expires_s=60)
    download = await blobs.download_url(KEY, expires_s=60)
    assert upload is not None
    assert download is not None
    async with httpx.AsyncClient() as anyone:
        assert (await anyone.put(upload, content=b"from outside")).status_code == 200
        assert (await anyone.get(download)).content == b"from outside"
        assert (await anyone.get(download.replace("0001", "0002"))).status_code == 403
        assert (await anyone.put(download, content=b"x")).status_code == 403
    assert SECRET_ACCESS_KEY not in upload + download
    assert await whole(blobs) == b"from outside"


async def test_an_address_that_would_not_do_what_was_asked_is_not_given(s3: S3Server) -> None:
    encrypting = ObjectStoreBlobs(replace(s3.access(), encryption="AES256"))
    assert await encrypting.upload_url(KEY, expires_s=60) is None
    assert await encrypting.download_url(KEY, expires_s=60, filename="a.wav") is None
    for expires_s in (0, -1, 8 * 86_400):
        with pytest.raises(ValueError, match="seven days"):
            await encrypting.download_url(KEY, expires_s=expires_s)


async def test_the_bucket_stands_in_the_host_name_where_that_is_wished() -> None:
    access = replace(access_to("https://store.example:9000"), path_style=False)
    url = await ObjectStoreBlobs(access).download_url(KEY, expires_s=60)
    assert url is not None
    assert url.startswith(f"https://{BUCKET}.store.example:9000/pre/fix/{KEY}?")


async def test_azure_is_spoken_to_in_its_own_way(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "PUT":
            return Answer(201, headers={"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT"})
        return Answer(404)

    with scripted_store(answer) as store:
        blobs = ObjectStoreBlobs(
            replace(
                access_to(store.endpoint, "az://container/pre"),
                access_key_id="account",
                secret_access_key="c2VjcmV0",
            )
        )
        await blobs.put(KEY, b"x")
        await blobs.put(KEY, MEBIBYTE * 6)
        assert await blobs.info(KEY) is None
        with pytest.raises(BlobMissing):
            await whole(blobs)
        url = await blobs.download_url(KEY, expires_s=60)
    assert url is not None
    assert url.startswith(f"{store.endpoint}/container/pre/{KEY}?")
    first, *parts = [asked for asked in store.asked if asked.method == "PUT"]
    assert first.path == f"/container/pre/{KEY}"
    assert first.headers["x-ms-blob-type"] == "BlockBlob"
    assert first.headers["authorization"].startswith("SharedKey account:")
    assert ["comp=blocklist" in asked.path for asked in parts] == [False, False, True]


async def test_google_is_spoken_to_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "account.json"
    with scripted_store(
        lambda asked: Answer(404) if asked.method != "PUT" else Answer(200, headers={"ETag": '"1"'})
    ) as store:
        account = {"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": True}
        credentials.write_text(json.dumps({**account, "gcs_base_url": store.endpoint}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(credentials))
        blobs = ObjectStoreBlobs(
            StoreAccess(parse_store_url("gs://bucket/pre"), allow_http=True, timeout_s=2)
        )
        await blobs.put(KEY, b"x")
        assert await blobs.info(KEY) is None
        with pytest.raises(BlobMissing):
            await whole(blobs)
    assert unquote(store.asked[0].path) == f"/bucket/pre/{KEY}"
    assert store.asked[0].headers["authorization"].startswith("Bearer")
