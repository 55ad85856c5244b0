"""Blobs on a real disk: full, shared, left in the middle, and what lies there afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from voiceforge.errors import StorageFull, Unavailable
from voiceforge.infra.blobs.local_disk import PARTIAL, LocalDiskBlobs

KEY = "default/audio/0001"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def put_by_a_process_of_limited_files(root: Path, script: str) -> str:
    """What a process says that may not write files beyond 1 MiB, as on a disk without more room."""
    program = f"""
import asyncio, resource, sys
from pathlib import Path
from voiceforge.errors import StorageFull
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
async def main():
    blobs = LocalDiskBlobs(Path(sys.argv[1]))
{script}
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(root), stdout=subprocess.PIPE, env={**os.environ}
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_a_full_disk_stores_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    said = await put_by_a_process_of_limited_files(
        tmp_path,
        f"""
    try:
        await blobs.put("{KEY}", bytes(3 << 20))
    except StorageFull as error:
        print(error.message)
    print(await blobs.info("{KEY}"))
    print((await blobs.put("{KEY}", b"small")).size_bytes)
""",
    )
    assert said.splitlines() == ["there is no room left where this should be stored", "None", "5"]
    assert files(tmp_path) == [KEY]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
async def test_no_room_at_the_source_of_the_error_is_told_as_such(tmp_path: Path) -> None:
    """ENOSPC from a real device, through the one door that all writes take."""
    from voiceforge.infra.blobs.off_loop import disk_errors, write_all

    handle = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFull), disk_errors():
            write_all(handle, b"x")
    finally:
        os.close(handle)


async def test_a_killed_put_is_invisible_and_swept_when_it_is_old(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
async def stuck():
    yield bytes(2 << 20)
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(LocalDiskBlobs(Path(sys.argv[1])).put("{KEY}", stuck()))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()

    later = 0.0
    blobs = LocalDiskBlobs(tmp_path, wall_clock=lambda: time.time() + later)
    assert await blobs.info(KEY) is None
    assert [info async for info in blobs.list()] == []
    assert len(files(tmp_path / PARTIAL)) == 1
    assert await blobs.sweep_partial(3600) == 0
    later = 3601
    assert await blobs.sweep_partial(3600) == 1
    assert files(tmp_path) == []


async def test_nobody_else_may_look(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path / "data" / "blobs")
    upload = tmp_path / "upload"
    upload.write_bytes(b"x")
    await blobs.put(KEY, b"x")
    await blobs.put("default/other/0002", upload, take=True)
    for folder in [tmp_path / "data" / "blobs", *(tmp_path / "data" / "blobs").rglob("*")]:
        if folder.is_dir():
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_taken_file_is_moved_not_copied(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path / "blobs")
    upload = tmp_path / "upload"
    upload.write_bytes(b"x")
    os.utime(upload, (1, 1))
    inode = upload.stat().st_ino
    put = await blobs.put(KEY, upload, take=True)
    assert (tmp_path / "blobs" / KEY).stat().st_ino == inode
    assert put.stored_at > time.time() - 60


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev,
    reason="no second file system here",
)
async def test_a_file_of_another_file_system_is_taken_too(tmp_path: Path) -> None:
    upload = Path("/dev/shm") / f"voiceforge-test-{os.getpid()}"
    upload.write_bytes(b"x")
    try:
        blobs = LocalDiskBlobs(tmp_path / "blobs")
        await blobs.put(KEY, upload, take=True)
        assert not upload.exists()
        assert (tmp_path / "blobs" / KEY).read_bytes() == b"x"
    finally:
        upload.unlink(missing_ok=True)


async def test_the_stored_file_itself_is_read_at_its_path(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path / "blobs")
    await blobs.put(KEY, b"x")
    async with blobs.at_path(KEY, tmp_path) as path:
        assert path == tmp_path / "blobs" / KEY


async def test_deleting_leaves_no_empty_folders(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path)
    await blobs.put("a/b/c/d", b"x")
    await blobs.put("a/e", b"x")
    assert await blobs.delete("a/b/c/d")
    assert files(tmp_path) == ["a/e"]
    assert not (tmp_path / "a" / "b").exists()


async def test_puts_and_deletes_beside_each_other_do_not_disturb(tmp_path: Path) -> None:
    """A delete removes empty folders, and must not take one that somebody is about to use."""
    blobs = LocalDiskBlobs(tmp_path)

    async def work(number: int) -> None:
        for _ in range(40):
            await blobs.put(f"default/same/{number}", b"x")
            assert await blobs.delete(f"default/same/{number}")

    await asyncio.gather(*(work(number) for number in range(8)))
    assert files(tmp_path) == []


async def test_a_key_is_not_the_folder_of_another(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path)
    await blobs.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(ValueError, match="folder of another"):
            await blobs.put(key, b"y")
    assert files(tmp_path) == ["a/b"]


async def test_a_store_that_cannot_be_written_says_so_without_its_path(tmp_path: Path) -> None:
    in_the_way = tmp_path / "blobs"
    in_the_way.write_bytes(b"a file where the folder should be")
    blobs = LocalDiskBlobs(in_the_way)
    for call in (blobs.check(), blobs.put(KEY, b"x")):
        with pytest.raises(Unavailable) as caught:
            await call
        assert str(tmp_path) not in caught.value.message
        assert caught.value.retry_after_s


async def test_a_put_cancelled_at_any_moment_leaves_all_or_nothing_and_no_rest(tmp_path: Path) -> None:
    blobs = LocalDiskBlobs(tmp_path)
    content = bytes(2 << 20)
    for turns in range(40):
        putting = asyncio.create_task(blobs.put(KEY, content))
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        info = await blobs.info(KEY)
        assert info is None or info.size_bytes == len(content)
        assert files(tmp_path / PARTIAL) == []
        await blobs.delete(KEY)


async def test_two_stores_on_one_folder_share_it(tmp_path: Path) -> None:
    one, other = LocalDiskBlobs(tmp_path), LocalDiskBlobs(tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    await one.put(KEY, pieces())
    assert await other.info(KEY) == await one.info(KEY)
    assert await other.delete(KEY)
    assert await one.info(KEY) is None
