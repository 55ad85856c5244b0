"""The files that polished streams are written to."""

from __future__ import annotations

import os
import resource
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.records import Retention
from voiceforge.services.recordings import AudioFile, content_of
from voiceforge.services.stream_spool import Spool, SpoolNote
from voiceforge.speech.options import TranscribeOptions

NOTE = SpoolNote("me", "a-model", TranscribeOptions(keyterms=("Beckett",), words=True), Retention(5.0))
SECOND = 16_000
WAIT_S = 20


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def stops() -> list[tuple[float, VoiceForgeError]]:
    return []


@pytest.fixture
def spool(
    tmp_path: Path, threads: ThreadPoolExecutor, stops: list[tuple[float, VoiceForgeError]]
) -> Iterator[Spool]:
    made = Spool.create(tmp_path, "one", NOTE)
    made.begin(threads, lambda at, error: stops.append((at, error)), lambda: None)
    yield made
    made.release()


def rows(*values: int, count: int = SECOND) -> np.ndarray:
    """One row of samples for each value; s16."""
    return np.repeat(np.array(values, np.float32)[:, np.newaxis] / 32_768, count, axis=1)


def left(folder: Path) -> tuple[list[Spool], list[Path]]:
    return Spool.left_behind(folder, before=folder.stat().st_mtime + 60)


def read_wav(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (SECOND, 2)
        return file.getnchannels(), np.frombuffer(file.readframes(file.getnframes()), "<i2")


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=8),
    channels=st.integers(1, 3),
    start=st.floats(-1, 8),
    length=st.floats(0, 8),
)
def test_what_is_put_stands_in_the_file_and_can_be_read_meanwhile(
    tmp_path_factory: pytest.TempPathFactory,
    threads: ThreadPoolExecutor,
    cuts: list[int],
    channels: int,
    start: float,
    length: float,
) -> None:
    said = np.random.default_rng(1).integers(-32_768, 32_768, (channels, sum(cuts)))
    spool = Spool.create(tmp_path_factory.mktemp("spool"), "one", NOTE)
    spool.begin(threads, lambda at, error: None, lambda: None)
    for until, size in zip(np.cumsum(cuts), cuts, strict=True):
        spool.put((said[:, until - size : until] / 32_768).astype(np.float32))
    first, last = int(max(start, 0) * SECOND), int((start + length) * SECOND)
    heard = np.frombuffer(spool.read(channels - 1, start, start + length), "<i2")
    assert np.array_equal(heard, said[-1, first : max(first, last)])
    spool.finish()
    found, samples = read_wav(spool.path)
    assert found == channels
    assert np.array_equal(samples.reshape(-1, channels).T, said)
    spool.remove()
    assert list(spool.path.parent.iterdir()) == []


def test_loud_samples_are_clipped(spool: Spool) -> None:
    spool.put(np.array([[2.0, -2.0]], np.float32))
    assert np.frombuffer(spool.read(0, 0, 1), "<i2").tolist() == [32_767, -32_768]


def test_nobody_takes_what_is_worked_on(spool: Spool, tmp_path: Path) -> None:
    spool.put(rows(1))
    assert left(tmp_path) == ([], [])


def test_what_a_killed_process_left_is_found_with_all_that_was_written(spool: Spool, tmp_path: Path) -> None:
    spool.put(rows(7, 8, count=2 * SECOND))
    spool.read(0, 0, 1)  # written by then
    os.truncate(spool.path, spool.path.stat().st_size - 3)  # as if killed in the midst of a sample
    spool.release()
    (found,), _ = left(tmp_path)
    assert found.note == NOTE
    assert left(tmp_path) == ([], [])
    found.finish()
    channels, samples = read_wav(found.path)
    assert channels == 2
    assert samples.tolist() == [7, 8] * (2 * SECOND - 1)
    found.release()


def test_a_note_written_anew_is_the_one_that_is_found(spool: Spool, tmp_path: Path) -> None:
    spool.renote(SpoolNote("me", "another", TranscribeOptions(), None, "tr_1"))
    spool.release()
    (found,), _ = left(tmp_path)
    assert (found.note.model, found.note.transcription_id) == ("another", "tr_1")
    found.release()


def test_files_that_belong_to_none_are_told_apart(tmp_path: Path) -> None:
    for name in ("lone.json", "lone.new", "noteless.wav", "other.wav"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "other.json").write_text('{"of": "another program"}')
    spools, strays = left(tmp_path)
    assert spools == []
    assert [path.name for path in strays] == ["lone.json", "lone.new", "noteless.wav", "other.wav"]


def test_when_it_was_written_last_is_not_changed_by_finishing_it_again(spool: Spool) -> None:
    spool.put(rows(1))
    spool.finish()
    os.utime(spool.path, (1_000, 1_000))
    spool.finish()
    assert spool.changed_at == 1_000


def test_who_moves_what_was_lent_leaves_it_here(spool: Spool, tmp_path: Path) -> None:
    spool.put(rows(5))
    spool.finish()
    lent = spool.lend()
    assert isinstance(lent, AudioFile)
    path = content_of(lent)
    assert isinstance(path, Path)
    path.rename(tmp_path / "taken")
    assert read_wav(spool.path)[1].shape == read_wav(tmp_path / "taken")[1].shape == (SECOND,)


def test_a_full_disk_ends_the_keeping_and_what_was_kept_stays(
    spool: Spool, stops: list[tuple[float, VoiceForgeError]]
) -> None:
    spool.put(rows(1))
    spool.read(0, 0, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.path.stat().st_size + 101, before[1]))
    try:
        spool.put(rows(2, count=100))
        spool.read(0, 0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    spool.put(rows(3))
    spool.finish()
    ((at, error),) = stops
    assert (at, error.code) == (1.0, "storage_full")
    assert set(read_wav(spool.path)[1]) == {1}


def test_a_disk_that_takes_nothing_ends_the_keeping_without_holding_anybody_up(
    tmp_path: Path, stops: list[tuple[float, VoiceForgeError]]
) -> None:
    stuck = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(stuck.wait, WAIT_S)
        spool = Spool.create(tmp_path, "one", NOTE)
        spool.begin(threads, lambda at, error: stops.append((at, error)), lambda: None)
        spool.put(rows(1))
        spool._writing_since = spool._writing_since and spool._writing_since - 60
        spool.put(rows(1))
        assert stops[0][1].code == "overloaded"
        assert spool.pending_s == 0
        stuck.set()
    spool.remove()
