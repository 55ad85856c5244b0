"""Blobs in an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Up to one part goes in one request. More goes in parts of that size, which the store shows as a whole when the
last has arrived, and forgets when we say that it will not.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore import delete_async, get_async, head_async, put_async, sign_async
from obstore import list as list_objects
from obstore.exceptions import BaseError, GenericError
from obstore.store import AzureStore, GCSStore, S3Store

from voiceforge.errors import BlobMissing, StorageFull, Unavailable, VoiceForgeError
from voiceforge.infra.blobs.address import StoreAccess
from voiceforge.infra.blobs.base import BLOCK_BYTES, BlobInfo, Content, check_key, check_prefix
from voiceforge.infra.blobs.content import blocks, read_back, verified
from voiceforge.infra.blobs.off_loop import COMES_BACK_S, fetched, to_end
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:  # the library has these for type checkers only
    from obstore import GetResult
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

PART_BYTES = 5 << 20
"""The least that S3 takes for a part; it takes 10,000 of them, 52 GB."""
_PARTS_AT_ONCE = 2
_LISTED_AT_ONCE = 500
_MAX_RETRIES = 4
_MAX_EXPIRY_S = 7 * 86_400.0
_PROBE = "voiceforge-probe"

_FULL = frozenset(
    {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
)
_NO_BUCKET = re.compile(r"<Code>(NoSuchBucket|ContainerNotFound)</Code>|bucket does not exist")

# What the library says of a store that does not mark the answer to such a request, as `rclone serve s3`.
_NO_RANGES = "non-partial response when range requested"

log = Logger(__name__)


class ObjectStoreBlobs:
    """See `Blobs`. Not to be carried over a fork: the library's threads stay behind.

    A request that the store does not answer or answers with a fault of its own is tried again, within
    `access.timeout_s` from its start. A put in parts holds up to four of them in memory, a read about two
    blocks.
    """

    def __init__(self, access: StoreAccess) -> None:
        self.access = access
        self._store = _open(access)

    async def put(
        self, key: str, content: Content, *, sha256: bytes | None = None, take: bool = False
    ) -> BlobInfo:
        check_key(key)
        async with aclosing(verified(blocks(content, PART_BYTES), sha256)) as parts:
            first, second = await anext(parts, b""), await anext(parts, None)
            if second is None:
                with _store_errors():
                    await put_async(self._store, key, first, use_multipart=False)
                size_bytes = len(first)
            else:
                size_bytes = await self._put_in_parts(key, [first, second], parts)
        if take and isinstance(content, Path):
            await to_end(lambda: content.unlink(missing_ok=True))
        return BlobInfo(key, size_bytes, time.time())

    async def read(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        check_key(key)
        if start < 0:
            raise ValueError("start is negative")
        if start:
            info = await self.info(key)
            if info is None:
                raise _missing()
            if start >= info.size_bytes:  # stores answer such a range with an error
                return
        with _or_missing():
            found, skipped_bytes = await self._get(key, start)
            awaited_bytes = found.meta["size"] - start
            async for piece in found.stream(BLOCK_BYTES):
                wanted = piece[skipped_bytes:]
                skipped_bytes = max(0, skipped_bytes - len(piece))
                awaited_bytes -= len(wanted)
                if wanted:
                    yield wanted
        if awaited_bytes:
            raise _unavailable("the store broke off in the middle of a blob")

    @asynccontextmanager
    async def at_path(self, key: str, folder: Path, *, sha256: bytes | None = None) -> AsyncIterator[Path]:
        async with fetched(read_back(self.read(key), sha256), folder) as path:
            yield path

    async def info(self, key: str) -> BlobInfo | None:
        check_key(key)
        try:
            with _or_missing():
                found = await head_async(self._store, key)
        except BlobMissing:
            return None
        return BlobInfo(key, found["size"], found["last_modified"].timestamp())

    async def delete(self, key: str) -> bool:
        if await self.info(key) is None:  # S3 does not say whether there was anything
            return False
        try:
            with _or_missing():
                await delete_async(self._store, key)
        except BlobMissing:
            return False
        return True

    async def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        below = check_prefix(prefix)
        with _store_errors():
            async for some in list_objects(self._store, below or None, chunk_size=_LISTED_AT_ONCE):
                for found in some:
                    try:
                        key = check_key(found["path"])
                    except ValueError:  # somebody else's
                        continue
                    yield BlobInfo(key, found["size"], found["last_modified"].timestamp())

    async def download_url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        check_key(key)
        if filename is not None:  # the library signs no more than the key
            return None
        return await self._signed("GET", key, expires_s)

    async def upload_url(self, key: str, *, expires_s: float) -> str | None:
        check_key(key)
        if self.access.encryption is not None:  # whoever has the address would leave it out
            return None
        return await self._signed("PUT", key, expires_s)

    async def sweep_partial(self, older_than_s: float) -> int:
        """Nothing: the library cannot list unfinished uploads; the bucket needs a rule for them."""
        return 0

    async def check(self) -> None:
        """The bucket answers us; whether it may be written shows at the first put."""
        try:
            with _or_missing():
                await get_async(self._store, _PROBE)
        except BlobMissing:
            pass

    async def close(self) -> None:
        pass

    async def _get(self, key: str, start: int) -> tuple[GetResult, int]:
        """What the store sends, and how many of its first bytes nobody wants."""
        if start:
            try:
                return await get_async(self._store, key, options={"range": {"offset": start}}), 0
            except GenericError as error:
                if _NO_RANGES not in str(error):
                    raise
        return await get_async(self._store, key), start

    async def _signed(self, method: str, key: str, expires_s: float) -> str:
        if not 0 < expires_s <= _MAX_EXPIRY_S:
            raise ValueError("an address lives for up to seven days")
        with _store_errors():
            return await sign_async(
                self._store, "PUT" if method == "PUT" else "GET", key, timedelta(seconds=expires_s)
            )

    async def _put_in_parts(self, key: str, begun: Sequence[bytes], rest: AsyncIterator[bytes]) -> int:
        """The source is read in the task of the caller; the library only sees what is handed on, and an
        exception in place of the next part when the others are to be forgotten."""
        handed: asyncio.Queue[bytes | _BrokenOff | None] = asyncio.Queue(1)

        async def parts() -> AsyncIterator[bytes]:
            while (part := await handed.get()) is not None:
                if isinstance(part, _BrokenOff):
                    raise part
                yield part

        async def hand_on(part: bytes | None) -> None:
            handing = asyncio.ensure_future(handed.put(part))
            try:
                await asyncio.wait({handing, uploading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                handing.cancel()
            if uploading.done() and (error := uploading.exception()) is not None:
                raise error

        async def upload() -> None:
            await put_async(
                *(self._store, key, parts()), chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

        uploading = asyncio.create_task(upload())
        size_bytes = 0
        try:
            for part in begun:
                size_bytes += len(part)
                with _store_errors():
                    await hand_on(part)
            async for part in rest:
                size_bytes += len(part)
                with _store_errors():
                    await hand_on(part)
            with _store_errors():
                await hand_on(None)
                await asyncio.shield(uploading)
        except BaseException:
            while not handed.empty():
                handed.get_nowait()
            handed.put_nowait(_BrokenOff())
            await _ended(uploading, self.access.timeout_s)
            raise
        return size_bytes


class _BrokenOff(Exception):
    """There will be no more parts."""


async def _ended(task: asyncio.Task[None], within_s: float) -> None:
    """Wait for it, also when cancelled meanwhile, and see its exception."""
    deadline = time.monotonic() + within_s
    while not task.done() and (left_s := deadline - time.monotonic()) > 0:
        try:
            await asyncio.wait({task}, timeout=left_s)
        except asyncio.CancelledError:
            continue  # the caller raises what came first
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _open(access: StoreAccess) -> S3Store | GCSStore | AzureStore:
    timeout = timedelta(seconds=access.timeout_s)
    client: ClientConfig = {
        "allow_http": access.allow_http,
        "connect_timeout": timeout,
        # From one sign of life to the next; a whole download may take as long as it takes.
        "read_timeout": timeout,
        "timeout": timedelta(days=7),
    }
    retries: RetryConfig = {"max_retries": _MAX_RETRIES, "retry_timeout": timeout}
    place, prefix = access.url, access.url.prefix or None
    try:
        match place.scheme:
            case "s3":
                return S3Store(
                    place.bucket,
                    prefix=prefix,
                    config=_s3(access),
                    client_options=client,
                    retry_config=retries,
                )
            case "gs":
                google: GCSConfig = {"base_url": access.endpoint} if access.endpoint is not None else {}
                return GCSStore(
                    place.bucket, prefix=prefix, config=google, client_options=client, retry_config=retries
                )
            case "az":
                return AzureStore(
                    place.bucket,
                    prefix=prefix,
                    config=_azure(access),
                    client_options=client,
                    retry_config=retries,
                )
    except BaseError as error:
        raise _refused(error) from error


def _s3(access: StoreAccess) -> S3Config:
    config: S3Config = {"virtual_hosted_style_request": not access.path_style, "disable_bulk_delete": True}
    if access.endpoint is not None:
        parts = urlsplit(access.endpoint)
        host = parts.netloc if access.path_style else f"{access.url.bucket}.{parts.netloc}"
        config["endpoint"] = parts._replace(netloc=host).geturl()
    if access.region is not None:
        config["region"] = access.region
    if access.access_key_id is not None:
        config["access_key_id"] = access.access_key_id
    if access.secret_access_key is not None:
        config["secret_access_key"] = access.secret_access_key
    if access.encryption is not None:
        config["server_side_encryption"] = access.encryption
    if access.kms_key_id is not None:
        config["sse_kms_key_id"] = access.kms_key_id
    return config


def _azure(access: StoreAccess) -> AzureConfig:
    config: AzureConfig = {}
    if access.endpoint is not None:
        config["endpoint"] = access.endpoint
    if access.access_key_id is not None:
        config["account_name"] = access.access_key_id
    if access.secret_access_key is not None:
        config["account_key"] = access.secret_access_key
    return config


@contextmanager
def _store_errors() -> Iterator[None]:
    """The library's exceptions as ours. Their texts hold addresses, keys and answers: none of it goes on."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise _refused(error) from error


@contextmanager
def _or_missing() -> Iterator[None]:
    """Likewise, where what is not found can be the blob itself."""
    with _store_errors():
        try:
            yield
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise
            raise _missing() from error


def _refused(error: Exception) -> VoiceForgeError:
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w{1,64})</Code>", text)
    log.warning(
        "store_failed",
        error=type(error).__name__,
        status=int(status[1]) if status else None,
        code=code[1] if code else None,
    )
    if (code and code[1] in _FULL) or (status and status[1] == "507"):
        return StorageFull("there is no room left where this should be stored")
    return _unavailable("the store refuses us" if status else "the store does not answer")


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, retry_after_s=COMES_BACK_S)


def _missing() -> BlobMissing:
    return BlobMissing("what was stored here is not there any more")
