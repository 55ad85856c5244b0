"""The audio of live streams on its way to files of their own, and what is to become of them.

A file stands for one stream and is locked for as long as its process works on it. A process that is killed
leaves it unlocked, with a note beside it that says what was asked: whoever finds the two can go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from voiceforge.errors import Overloaded, StorageFull, VoiceForgeError
from voiceforge.infra.blobs.off_loop import disk_errors, write_all
from voiceforge.infra.db.records import Retention
from voiceforge.services.recordings import AudioFile, LocalSource, file_digest
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import TranscribeOptions

_WRITE_SAMPLES = SAMPLE_RATE_HZ
"""One second is written at a time: that much a killed process loses."""
_PATIENCE_S = 10.0
"""For so long the disk may take to write what is pending."""
_SAMPLE_BYTES = 2
_HEADER_BYTES = 44
_MOST_BYTES = 0xFFFF_0000
"""What a WAV file can tell the size of, nearly."""

_AUDIO, _NOTE, _LENT, _NEW = ".wav", ".json", ".lent", ".new"


@dataclass(frozen=True, slots=True)
class SpoolNote:
    """What is to become of the audio.

    model: by its id. retention: None: as the server's policy says.
    transcription_id: under which it was, or is about to be, kept; None: nobody was told of one.
    user_id, key_id: who spoke, or had somebody speak.
    """

    tenant: str
    model: str
    options: TranscribeOptions
    retention: Retention | None = None
    transcription_id: str | None = None
    user_id: str | None = None
    key_id: str | None = None


_NOTES = TypeAdapter(SpoolNote)

OnStopped = Callable[[float, VoiceForgeError], None]
"""From any thread: nothing behind so many seconds is kept, and why."""
OnWritten = Callable[[], None]
"""From any thread: less is pending than was."""


class Spool:
    """The audio of one stream. `put` belongs to any thread and does not wait; all else blocks."""

    def __init__(self, path: Path, handle: int, note: SpoolNote) -> None:
        self.path = path
        self.note = note
        self._handle = handle
        self._threads: Executor | None = None
        self._on_stopped: OnStopped = lambda at, error: None
        self._on_written: OnWritten = lambda: None
        self._lock = threading.Lock()
        self._disk = threading.Lock()
        self._pending: list[Rows] = []
        self._pending_samples = 0
        self._writing_since: float | None = None
        self._taking = False
        self._channels = 0
        self._samples = 0

    @classmethod
    def create(cls, folder: Path, name: str, note: SpoolNote) -> Spool:
        """
        Raises:
            Unavailable, StorageFull
        """
        path = folder / f"{name}{_AUDIO}"
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            made = cls(path, handle, note)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                made._write_note()
            except BaseException:
                made.remove()
                raise
        return made

    @classmethod
    def left_behind(cls, folder: Path, *, before: float) -> tuple[list[Spool], list[Path]]:
        """Those in the folder that nobody works on and nobody has written to since `before`, Unix seconds;
        they are the caller's until `release` or `remove`. And files that belong to none.

        Raises:
            Unavailable
        """
        spools: list[Spool] = []
        strays: list[Path] = []
        with disk_errors():
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime >= before:
                        continue
                    if path.suffix != _AUDIO:
                        if not path.with_suffix(_AUDIO).exists():
                            strays.append(path)
                        continue
                    try:
                        if (spool := cls._taken_over(path)) is not None:
                            spools.append(spool)
                    except _NoNote:
                        strays.append(path)
        return spools, strays

    @classmethod
    def _taken_over(cls, path: Path) -> Spool | None:
        """None: somebody works on it.

        Raises:
            _NoNote, OSError
        """
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink == 0:
                raise FileNotFoundError(path)
            note = _read_note(path)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        spool = cls(path, handle, note)
        header = os.pread(handle, _HEADER_BYTES, 0)
        if len(header) == _HEADER_BYTES:
            spool._channels = _channels_in(header)
            size = os.fstat(handle).st_size - _HEADER_BYTES
            spool._samples = size // (_SAMPLE_BYTES * spool._channels)
        return spool

    @property
    def duration_s(self) -> float:
        """Of what was written."""
        return self._samples / SAMPLE_RATE_HZ

    @property
    def changed_at(self) -> float:
        """Unix seconds."""
        return os.fstat(self._handle).st_mtime

    @property
    def pending_s(self) -> float:
        """Audio that is not written yet."""
        return self._pending_samples / SAMPLE_RATE_HZ

    def begin(self, threads: Executor, on_stopped: OnStopped, on_written: OnWritten) -> None:
        """From here on it takes audio.

        Args:
            threads: where it is written.
        """
        self._on_stopped, self._on_written = on_stopped, on_written
        self._threads, self._taking = threads, True

    def put(self, rows: Rows) -> None:
        """Some more, of as many channels as before; nobody changes it any more."""
        with self._lock:
            if not self._taking or self._threads is None:
                return
            self._pending.append(rows)
            self._pending_samples += rows.shape[1]
            start = self._writing_since is None and self._pending_samples >= _WRITE_SAMPLES
            if start:
                self._writing_since = time.monotonic()
        if start:
            with contextlib.suppress(RuntimeError):  # closed: what is pending is written at the end
                self._threads.submit(self._write)
        self.stop_where_stuck()

    def stop_where_stuck(self) -> None:
        """Keep no more where the disk takes nothing."""
        since = self._writing_since
        if since is not None and time.monotonic() - since >= _PATIENCE_S:
            self._stop(Overloaded("the disk takes it too slowly"))

    def read(self, channel: int, start: float, end: float) -> bytes:
        """s16le, 16 kHz, mono: what was put between those seconds, as far as it is kept.

        Raises:
            Unavailable, StorageFull
        """
        self._write()
        first, last = int(max(start, 0.0) * SAMPLE_RATE_HZ), int(end * SAMPLE_RATE_HZ)
        frame = _SAMPLE_BYTES * self._channels
        count = min(last, self._samples) - first
        if count <= 0:
            return b""
        with disk_errors():
            data = os.pread(self._handle, count * frame, _HEADER_BYTES + first * frame)
        whole = data[: len(data) - len(data) % frame]
        return np.frombuffer(whole, "<i2").reshape(-1, self._channels)[:, channel].tobytes()

    def finish(self) -> None:
        """Nothing more comes: write what is pending, and the size into the header.

        Raises:
            Unavailable, StorageFull
        """
        self._write()
        with self._lock:
            self._taking = False
        with self._disk, disk_errors():
            if not self._channels:
                return
            size = self._samples * self._channels * _SAMPLE_BYTES
            header = _header(self._channels, size)
            if os.pread(self._handle, _HEADER_BYTES, 0) == header:
                return  # finished before; when it was written last is to stay known
            os.ftruncate(self._handle, _HEADER_BYTES + size)
            os.pwrite(self._handle, header, 0)
            os.fsync(self._handle)

    def renote(self, note: SpoolNote) -> None:
        """
        Raises:
            Unavailable, StorageFull
        """
        self.note = note
        with disk_errors():
            self._write_note()

    def lend(self) -> LocalSource:
        """The finished file for who may move it away: under another name, so that it is still here where that
        goes wrong.

        Raises:
            UnreadableAudio
        """
        lent = self.path.with_suffix(_LENT)
        try:
            lent.unlink(missing_ok=True)
            os.link(self.path, lent)
        except OSError:  # there are no second names here
            return self.path
        return AudioFile(lent, file_digest(lent))

    def remove(self) -> None:
        """For good."""
        for suffix in (_LENT, _AUDIO, _NOTE):  # without audio, a note is nothing
            with contextlib.suppress(OSError):
                self.path.with_suffix(suffix).unlink()
        self.release()

    def release(self) -> None:
        """Whoever comes next may have it. Idempotent."""
        with self._lock:
            self._taking = False
        with self._disk:
            handle, self._handle = self._handle, -1
            if handle >= 0:
                os.close(handle)

    # -- inside

    def _write(self) -> None:
        """Everything that is pending."""
        while True:
            with self._disk:
                with self._lock:
                    pending, self._pending = self._pending, []
                    self._pending_samples = 0
                    if not pending or self._handle < 0:
                        self._writing_since = None
                        return
                    self._writing_since = time.monotonic()
                try:
                    with disk_errors():
                        self._append(np.concatenate(pending, axis=1))
                except VoiceForgeError as error:
                    stopped: VoiceForgeError | None = error
                else:
                    stopped = None
            if stopped is not None:
                self._stop(stopped)
            self._on_written()

    def _append(self, rows: Rows) -> None:
        samples = np.clip(np.rint(rows.T * 32_768.0), -32_768, 32_767).astype("<i2", order="C")
        if not self._channels:
            self._channels = rows.shape[0]
            os.lseek(self._handle, 0, os.SEEK_SET)
            write_all(self._handle, _header(self._channels, 0))
        frame = _SAMPLE_BYTES * self._channels
        end = _HEADER_BYTES + self._samples * frame
        if end + samples.nbytes > _MOST_BYTES:
            raise StorageFull("a recording cannot be longer")
        os.lseek(self._handle, end, os.SEEK_SET)
        write_all(self._handle, samples.tobytes())
        self._samples += rows.shape[1]

    def _stop(self, error: VoiceForgeError) -> None:
        with self._lock:
            if not self._taking:
                return
            self._taking = False
            self._pending, self._pending_samples = [], 0
        self._on_stopped(self.duration_s, error)

    def _write_note(self) -> None:
        """In one step: what was there before, or all of this."""
        new = self.path.with_suffix(_NEW)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, _NOTES.dump_json(self.note))
        finally:
            os.close(handle)
        new.replace(self.path.with_suffix(_NOTE))


class _NoNote(Exception):
    """There is none, or it is another program's."""


def _read_note(path: Path) -> SpoolNote:
    """
    Raises:
        _NoNote
    """
    try:
        return _NOTES.validate_json(path.with_suffix(_NOTE).read_bytes())
    except (FileNotFoundError, ValidationError):
        raise _NoNote from None


def _header(channels: int, size_bytes: int) -> bytes:
    frame = _SAMPLE_BYTES * channels
    layout = (16, 1, channels, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * frame, frame, 8 * _SAMPLE_BYTES)
    head = struct.pack("<4sI4s", b"RIFF", _HEADER_BYTES - 8 + size_bytes, b"WAVE")
    return head + struct.pack("<4sIHHIIHH4sI", b"fmt ", *layout, b"data", size_bytes)


def _channels_in(header: bytes) -> int:
    return int(struct.unpack_from("<H", header, 22)[0])
