"""What holds of every listener: the one in this process, and the one whose members are processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voiceforge.errors import AudioTooLong, AudioTooShort, Cancelled, NoAudioTrack, VoiceForgeError
from voiceforge.infra.audiohost.pool import MemberPool
from voiceforge.infra.audiohost.remote_listener import LISTEN, RemoteListener
from voiceforge.main.build import keep_audio_host
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import AudioLimits, ChannelMode, RawFormat, VadOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.listen import (
    AudioSource,
    Ended,
    Heard,
    Listener,
    ListenEvent,
    ListenOptions,
    LocalListener,
    Opened,
)
from voiceforge.testing.recordings import KINDS, Kind, encode, silent_film

BECKETT, DICKENS = sample_recordings()
PLAIN = ListenOptions(longest_window_s=30.0, best_window_s=12.0)
LONGEST_WAIT_S = 20


@pytest.fixture(scope="module")
def local() -> LocalListener:
    return LocalListener()


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteListener]:
    keeper = keep_audio_host()
    listener = RemoteListener(MemberPool(keeper.address, {LISTEN: 2}, patience_s=LONGEST_WAIT_S))
    yield listener
    listener.close()
    keeper.close()


@pytest.fixture(scope="module", params=["local", "remote"])
def listener(request: pytest.FixtureRequest) -> Listener:
    found: Listener = request.getfixturevalue(request.param)
    return found


def hear(listener: Listener, source: AudioSource, options: ListenOptions = PLAIN) -> list[ListenEvent]:
    with closing(listener.open(source, options)) as recording:
        return list(recording.events())


def windows_of(events: list[ListenEvent]) -> list[WindowAudio]:
    return [window for event in events if isinstance(event, Heard) for window in event.windows]


def assert_same(one: list[ListenEvent], other: list[ListenEvent]) -> None:
    """But for how often it was told how far it got."""
    assert one[0] == other[0]
    assert one[-1] == other[-1]
    assert isinstance(one[-2], Heard)
    assert isinstance(other[-2], Heard)
    assert one[-2].decoded_s == other[-2].decoded_s
    for mine, yours in zip(windows_of(one), windows_of(other), strict=True):
        assert (mine.channel, mine.window) == (yours.channel, yours.window)
        np.testing.assert_array_equal(mine.samples, yours.samples)


@pytest.fixture(scope="module")
def speech() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with open_audio(BECKETT) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])[: 6 * SAMPLE_RATE_HZ]


# -- what is heard


@pytest.mark.parametrize("source", [DICKENS, DICKENS.read_bytes()], ids=["file", "bytes"])
def test_it_is_told_what_it_is_then_what_is_heard_then_how_it_ended(
    listener: Listener, source: AudioSource
) -> None:
    opened, *heard, ended = hear(listener, source)
    assert isinstance(opened, Opened)
    assert (opened.info.container, opened.info.sample_rate_hz, opened.channel_count) == ("wav", 48_000, 1)
    assert isinstance(ended, Ended)
    assert len(ended.levels) == 1
    assert not ended.truncated
    far_s = [event.decoded_s for event in heard if isinstance(event, Heard)]
    assert len(far_s) == len(heard)
    assert far_s == sorted(far_s)
    assert far_s[-1] == pytest.approx(44.4, abs=0.1)
    windows = windows_of([*heard])
    assert len(windows) > 2
    for window in windows:
        assert window.samples.dtype == np.float32
        assert len(window.samples) == window.window.end - window.window.start <= 12.4 * SAMPLE_RATE_HZ
    for before, event in itertools.pairwise(heard):
        assert isinstance(before, Heard)
        speech = [region for audio in windows_of([event]) for region in audio.window.regions]
        assert all(region.start >= before.settled_samples for region in speech)


def test_windows_come_before_the_recording_is_read_to_its_end(listener: Listener) -> None:
    with closing(listener.open(DICKENS, PLAIN)) as recording:
        for event in recording.events():
            if isinstance(event, Heard) and event.windows:
                assert event.decoded_s < 40
                return
    raise AssertionError("no window at all")


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_hears_what_a_thread_hears(
    local: LocalListener, remote: RemoteListener, speech: np.ndarray, kind: Kind, tmp_path: Path
) -> None:
    rate_hz = 8_000 if kind in ("amr", "wav-gsm") else 16_000
    samples = np.ascontiguousarray(speech[:: 16_000 // rate_hz, np.newaxis])
    try:
        data = encode(samples, rate_hz, kind)
    except LookupError:
        pytest.skip("no encoder for it here")
    path = tmp_path / "recording"
    path.write_bytes(data)
    expected = hear(local, path)
    assert windows_of(expected)
    assert_same(hear(remote, path), expected)
    assert_same(hear(remote, data), expected)


@pytest.mark.parametrize(
    "options",
    [
        ListenOptions(30.0, 12.0, channels="split"),
        ListenOptions(30.0, 4.0, normalize_peak=False),
        ListenOptions(1.0, 1.0, vad=VadOptions(threshold=0.8, padding_ms=50, min_silence_ms=100)),
        ListenOptions(30.0, 30.0, limits=AudioLimits(1.0, 100.0)),
    ],
    ids=["split", "short windows, not lifted", "strict", "limits"],
)
def test_options_mean_the_same(
    local: LocalListener, remote: RemoteListener, speech: np.ndarray, options: ListenOptions
) -> None:
    stereo = encode(np.stack([speech, np.roll(speech, 16_000)], axis=1), 16_000, "flac")
    assert_same(hear(remote, stereo, options), hear(local, stereo, options))


def test_raw_samples_mean_the_same(local: LocalListener, remote: RemoteListener, speech: np.ndarray) -> None:
    data = (speech[::2] * 32767).astype("<i2").tobytes()
    options = ListenOptions(30.0, 12.0, raw=RawFormat("s16le", 8_000, 1))
    expected = hear(local, data, options)
    assert windows_of(expected)
    assert_same(hear(remote, data, options), expected)


def test_a_long_recording_is_looked_through_where_that_is_asked_for(listener: Listener) -> None:
    """Two minutes of reading, then four in which nobody speaks."""
    with open_audio(DICKENS) as stream:
        reading = np.concatenate([block[0] for block in stream.blocks()])
    said = np.tile(reading, 3)[: 120 * SAMPLE_RATE_HZ]
    long = encode(np.pad(said, (0, 240 * SAMPLE_RATE_HZ))[:, np.newaxis], SAMPLE_RATE_HZ, "flac")
    looked = replace(PLAIN, survey=True)
    events = hear(listener, long, looked)
    (opened, *_), (plain, *_) = events, hear(listener, long)
    assert isinstance(opened, Opened)
    assert isinstance(plain, Opened)
    assert plain.outline is None
    assert opened.outline is not None
    assert len(opened.outline.shares) == 36
    assert 60 < opened.outline.speech_s(120.0) == opened.outline.speech_s(360.0) < 120
    # Nothing is heard otherwise for it.
    windows = windows_of(events)
    assert windows[0].window.start < 2 * SAMPLE_RATE_HZ
    assert 110 * SAMPLE_RATE_HZ < windows[-1].window.end < 122 * SAMPLE_RATE_HZ
    (short, *_) = hear(listener, DICKENS, looked)
    assert isinstance(short, Opened)
    assert short.outline is None


def test_a_truncated_file_is_said_to_be_one(listener: Listener) -> None:
    whole = BECKETT.read_bytes()
    *_, ended = hear(listener, whole[: len(whole) // 2])
    assert isinstance(ended, Ended)
    assert ended.truncated


# -- what is refused


def refusal(listener: Listener, source: AudioSource, options: ListenOptions) -> tuple[object, ...]:
    with pytest.raises(VoiceForgeError) as caught:
        hear(listener, source, options)
    error = caught.value
    return type(error), error.message, error.field, error.choices, error.retry_after_s


SHORT = encode(np.zeros((800, 1), np.float32), 16_000, "wav-s16")
MANY = np.zeros((16_000, 6), np.float32)
SPLIT: ChannelMode = "split"
REFUSED: dict[str, tuple[AudioSource, ListenOptions]] = {
    "empty": (b"", PLAIN),
    "text": (b"Dear Sir or Madam, " * 100, PLAIN),
    "zeros": (bytes(5_000), PLAIN),
    "noise": (np.random.default_rng(5).bytes(20_000), PLAIN),
    "film without sound": (silent_film(), PLAIN),
    "too short": (SHORT, PLAIN),
    "too long": (BECKETT, ListenOptions(30.0, 12.0, limits=AudioLimits(0.1, 5.0))),
    "no such file": (Path("nowhere") / "secret-name.wav", PLAIN),
    "a folder": (BECKETT.parent, PLAIN),
    "less than a sample": (b"\0", ListenOptions(30.0, 12.0, raw=RawFormat("s16le"))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_thread_refuses_a_process_refuses_in_the_same_words(
    local: LocalListener, remote: RemoteListener, name: str
) -> None:
    source, options = REFUSED[name]
    told = refusal(local, source, options)
    assert told[1]
    assert refusal(remote, source, options) == told


@pytest.mark.parametrize(
    ("name", "kind"),
    [("too short", AudioTooShort), ("too long", AudioTooLong), ("film without sound", NoAudioTrack)],
)
def test_each_refusal_keeps_its_kind(listener: Listener, name: str, kind: type[VoiceForgeError]) -> None:
    with pytest.raises(kind):
        hear(listener, *REFUSED[name])


def test_too_many_channels_to_split_are_refused(local: LocalListener, remote: RemoteListener) -> None:
    raw = ListenOptions(30.0, 12.0, channels=SPLIT, raw=RawFormat("s16le", 16_000, 32))
    told = refusal(local, bytes(64 * 16_000), raw)
    assert told[2] == "channels"
    assert refusal(remote, bytes(64 * 16_000), raw) == told


# -- ends that are not the end


def test_nothing_is_opened_before_somebody_listens(listener: Listener, tmp_path: Path) -> None:
    path = tmp_path / "late.wav"
    with closing(listener.open(path, PLAIN)) as recording:
        path.write_bytes(BECKETT.read_bytes())
        assert len(list(recording.events())) > 2


def test_a_cancelled_recording_ends(listener: Listener) -> None:
    with closing(listener.open(DICKENS, PLAIN)) as recording:
        events = recording.events()
        next(events)
        recording.cancel()
        with pytest.raises(Cancelled):
            list(events)


def test_one_cancelled_before_it_began_is_not_read(listener: Listener) -> None:
    with closing(listener.open(DICKENS, PLAIN)) as recording:
        recording.cancel()
        with pytest.raises(Cancelled):
            next(recording.events())


def test_closing_twice_and_cancelling_after_is_nothing(listener: Listener) -> None:
    recording = listener.open(DICKENS, PLAIN)
    next(recording.events())
    recording.close()
    recording.close()
    recording.cancel()
    assert hear(listener, BECKETT)
