"""Audio hosts as real processes: members crash, hang, hoard and are killed; nobody else notices."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from voiceforge.errors import Cancelled, DecoderCrashed, ShuttingDown, UnreadableAudio
from voiceforge.infra.audiohost.keeper import AudioHostKeeper, KeepingRules
from voiceforge.infra.audiohost.member import NICENESS
from voiceforge.infra.audiohost.pool import MemberPool
from voiceforge.infra.audiohost.remote_aligner import ALIGN, RemoteAligner
from voiceforge.infra.audiohost.remote_listener import LISTEN, RemoteListener
from voiceforge.main.build import keep_audio_host
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.alignment.english_pocketsphinx import ALIGNED_LANGUAGES, PocketsphinxAligner
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.pipeline.listen import (
    AudioSource,
    Ended,
    Heard,
    Listener,
    ListenEvent,
    ListenOptions,
    LocalListener,
)
from voiceforge.testing.fragile_audio_host import COMMAND, CRASH, FAIL, GARBLE, HANG, HOARD
from voiceforge.testing.processes import wait_until_gone

BECKETT, DICKENS = sample_recordings()
PLAIN = ListenOptions(longest_window_s=30.0, best_window_s=12.0)
LONGEST_WAIT_S = 30
PATIENCE_S = 2.0
"""For tests of what is stuck; all others wait for as long as a busy machine may need."""
SAID = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."


@dataclass
class Lost:
    """Observes a pool."""

    members: list[tuple[str, bool]] = field(default_factory=list)

    def audio_process_lost(self, craft: str, *, stuck: bool) -> None:
        self.members.append((craft, stuck))


@dataclass
class House:
    keeper: AudioHostKeeper
    pool: MemberPool
    listener: RemoteListener
    lost: Lost

    def members(self) -> list[psutil.Process]:
        return psutil.Process(self.keeper.pid).children()

    def close(self) -> None:
        self.listener.close()
        self.keeper.close()


def build(
    command: tuple[str, ...] = COMMAND, *, places: int = 2, patience_s: float = LONGEST_WAIT_S
) -> House:
    keeper = AudioHostKeeper(command, KeepingRules(silent_s=min(patience_s, KeepingRules().silent_s)))
    lost = Lost()
    pool = MemberPool(keeper.address, {LISTEN: places, ALIGN: 1}, patience_s=patience_s, observer=lost)
    return House(keeper, pool, RemoteListener(pool), lost)


@pytest.fixture
def house() -> Iterator[House]:
    house = build()
    yield house
    house.close()


@pytest.fixture
def hasty() -> Iterator[House]:
    house = build(patience_s=PATIENCE_S)
    yield house
    house.close()


def hear(listener: Listener, source: AudioSource) -> list[ListenEvent]:
    with closing(listener.open(source, PLAIN)) as recording:
        return list(recording.events())


def sound(events: list[ListenEvent]) -> list[tuple[object, bytes]]:
    """All that makes a transcript."""
    return [
        (audio.window, audio.samples.tobytes())
        for event in events
        if isinstance(event, Heard)
        for audio in event.windows
    ]


@pytest.fixture(scope="module")
def expected() -> dict[Path, list[tuple[object, bytes]]]:
    local = LocalListener()
    return {path: sound(hear(local, path)) for path in (BECKETT, DICKENS)}


def eventually(is_so: Callable[[], bool]) -> None:
    """For what another process does at a time of its own."""
    pause = threading.Event()
    for _ in range(LONGEST_WAIT_S * 50):
        if is_so():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come to pass")


# -- bad files


@pytest.mark.parametrize("word", [CRASH, FAIL, GARBLE, HOARD])
def test_a_file_that_breaks_the_decoder_costs_its_own_request_an_error(
    house: House, expected: dict[Path, list[tuple[object, bytes]]], word: bytes
) -> None:
    with closing(house.listener.open(DICKENS, PLAIN)) as beside:
        events = beside.events()
        before = [next(events)]
        with pytest.raises(DecoderCrashed) as caught:
            hear(house.listener, word + b"\n")
        assert (caught.value.code, caught.value.retryable) == ("audio_decoder_crashed", False)
        assert sound([*before, *events]) == expected[DICKENS]
    assert sound(hear(house.listener, BECKETT)) == expected[BECKETT]


def test_such_a_file_on_disk_too(house: House, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(CRASH + b"\n")
    with pytest.raises(DecoderCrashed):
        hear(house.listener, path)
    assert house.lost.members == [(LISTEN, False)] * 2  # it was given a second chance


def test_a_decoder_that_does_not_get_on_is_ended(
    hasty: House, expected: dict[Path, list[tuple[object, bytes]]]
) -> None:
    with pytest.raises(DecoderCrashed, match="did not get on"):
        hear(hasty.listener, HANG + b"\n")
    assert hasty.lost.members == [(LISTEN, True)]
    assert sound(hear(hasty.listener, BECKETT)) == expected[BECKETT]
    eventually(lambda: len(hasty.members()) == 1)


def test_a_stopped_member_is_ended(hasty: House) -> None:
    with closing(hasty.listener.open(DICKENS, PLAIN)) as recording:
        events = recording.events()
        next(events)
        (member,) = hasty.members()
        member.suspend()
        with pytest.raises(DecoderCrashed, match="did not get on"):
            list(events)
        wait_until_gone([member])


# -- members and hosts that end


def test_a_recording_goes_on_where_its_member_was_killed(
    house: House, expected: dict[Path, list[tuple[object, bytes]]]
) -> None:
    with closing(house.listener.open(DICKENS, PLAIN)) as recording:
        events = recording.events()
        heard: list[ListenEvent] = []
        while not sound(heard):
            heard.append(next(events))
        house.members()[0].kill()
        heard += events
    assert sound(heard) == expected[DICKENS]
    assert isinstance(heard[-1], Ended)
    assert house.lost.members == [(LISTEN, False)]


def test_a_second_death_is_the_files(house: House) -> None:
    with closing(house.listener.open(DICKENS, PLAIN)) as recording:
        events = recording.events()
        for _ in range(2):
            while not house.members():
                next(events)
            (member,) = house.members()
            member.kill()
            wait_until_gone([member])
        with pytest.raises(DecoderCrashed, match="broke down"):
            list(events)


def test_a_killed_host_is_replaced_and_what_was_under_way_goes_on(
    house: House, expected: dict[Path, list[tuple[object, bytes]]]
) -> None:
    with closing(house.listener.open(DICKENS, PLAIN)) as recording:
        events = recording.events()
        first = next(events)
        orphans = house.members()
        os.kill(house.keeper.pid, signal.SIGKILL)
        assert sound([first, *events]) == expected[DICKENS]
    wait_until_gone([*orphans])
    assert sound(hear(house.listener, BECKETT)) == expected[BECKETT]


def test_who_notices_late_that_the_host_was_killed_goes_on_too(
    house: House, expected: dict[Path, list[tuple[object, bytes]]]
) -> None:
    with (
        closing(house.listener.open(DICKENS, PLAIN)) as recording,
        closing(house.listener.open(DICKENS, PLAIN)) as late,
    ):
        events, late_events = recording.events(), late.events()
        first, late_first = next(events), next(late_events)
        os.kill(house.keeper.pid, signal.SIGKILL)
        assert sound([first, *events]) == expected[DICKENS]
        assert sound([late_first, *late_events]) == expected[DICKENS]


def test_a_host_that_does_not_answer_is_replaced(
    hasty: House, expected: dict[Path, list[tuple[object, bytes]]]
) -> None:
    assert hear(hasty.listener, BECKETT)
    before = psutil.Process(hasty.keeper.pid)
    before.suspend()
    wait_until_gone([before])
    assert sound(hear(hasty.listener, BECKETT)) == expected[BECKETT]


def test_a_host_that_cannot_start_is_said_to_be_unreachable_not_waited_for(tmp_path: Path) -> None:
    house = build((sys.executable, "-c", "import sys; sys.exit(3)"))
    threading.Timer(1.0, house.close).start()
    with pytest.raises(ShuttingDown):
        hear(house.listener, BECKETT)
    house.close()


def test_others_are_not_touched_while_members_are_killed_at_random(
    expected: dict[Path, list[tuple[object, bytes]]],
) -> None:
    house = build(places=8)
    chance = random.Random(7)
    done = threading.Event()
    kills = 0

    def kill_some() -> None:
        nonlocal kills
        while not done.wait(0.03):
            if members := house.members():
                with suppress(psutil.NoSuchProcess):
                    chance.choice(members).kill()
                    kills += 1

    def outcome(number: int) -> bool | DecoderCrashed:
        path = (BECKETT, DICKENS)[number % 2]
        try:
            return sound(hear(house.listener, path)) == expected[path]
        except DecoderCrashed as crashed:
            return crashed

    killer = threading.Thread(target=kill_some)
    killer.start()
    with ThreadPoolExecutor(32) as threads:
        outcomes = list(threads.map(outcome, range(32)))
    done.set()
    killer.join()
    crashed = [one for one in outcomes if isinstance(one, DecoderCrashed)]
    assert all(outcomes)  # equal, or an error: never something else
    assert kills > 2
    assert 2 * len(crashed) <= kills
    assert sound(hear(house.listener, DICKENS)) == expected[DICKENS]
    house.close()


# -- requests that end


def test_cancelling_ends_a_member_at_work(house: House) -> None:
    recording = house.listener.open(HANG + b"\n", PLAIN)
    with ThreadPoolExecutor(1) as threads:
        listening = threads.submit(list, recording.events())
        eventually(lambda: len(house.members()) == 1)
        (member,) = house.members()
        recording.cancel()
        with pytest.raises(Cancelled):
            listening.result(LONGEST_WAIT_S)
    wait_until_gone([member])
    recording.close()
    assert house.lost.members == []


def test_cancelling_ends_the_wait_for_a_place() -> None:
    house = build(places=1)
    busy = house.listener.open(HANG + b"\n", PLAIN)
    waiting = house.listener.open(BECKETT, PLAIN)
    with ThreadPoolExecutor(2) as threads:
        at_work = threads.submit(list, busy.events())
        eventually(lambda: len(house.members()) == 1)
        in_line = threads.submit(list, waiting.events())
        waiting.cancel()
        with pytest.raises(Cancelled):
            in_line.result(LONGEST_WAIT_S)
        assert not at_work.done()
        house.close()
        with pytest.raises((Cancelled, ShuttingDown)):
            at_work.result(LONGEST_WAIT_S)


def test_those_who_wait_for_an_engine_keep_nobody_from_listening(
    expected: dict[Path, list[tuple[object, bytes]]],
) -> None:
    house = build(places=1)
    paused = [house.listener.open(DICKENS, PLAIN) for _ in range(5)]
    for recording in paused:
        next(recording.events())
    assert sound(hear(house.listener, BECKETT)) == expected[BECKETT]
    for recording in paused:
        recording.close()
    eventually(lambda: len(house.members()) <= 2)  # the idle one, and it goes too
    eventually(lambda: house.members() == [])
    house.close()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    own = psutil.Process()
    folders = set(Path(tempfile.gettempdir()).glob("voiceforge-*"))
    before = own.num_fds(), threading.active_count(), len(own.children(recursive=True))
    house = build()
    hear(house.listener, BECKETT)
    paused = house.listener.open(DICKENS, PLAIN)
    next(paused.events())
    with pytest.raises(UnreadableAudio):
        hear(house.listener, b"no recording")
    with pytest.raises(DecoderCrashed):
        hear(house.listener, CRASH)
    everybody = [psutil.Process(house.keeper.pid), *house.members()]
    house.close()
    wait_until_gone([*everybody])
    with pytest.raises((Cancelled, ShuttingDown)):
        list(paused.events())
    paused.close()
    assert (own.num_fds(), threading.active_count(), len(own.children(recursive=True))) == before
    assert set(Path(tempfile.gettempdir()).glob("voiceforge-*")) == folders
    with pytest.raises(ShuttingDown):
        hear(house.listener, BECKETT)


SERVER = """
import os, sys
from voiceforge.infra.audiohost.keeper import AudioHostKeeper
from voiceforge.infra.audiohost.pool import MemberPool
from voiceforge.infra.audiohost.remote_listener import LISTEN, RemoteListener
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.pipeline.listen import ListenOptions
from voiceforge.testing.fragile_audio_host import COMMAND

keeper = AudioHostKeeper(COMMAND)
listener = RemoteListener(MemberPool(keeper.address, {LISTEN: 1}, patience_s=60))
recording = listener.open(sample_recordings()[1], ListenOptions(30.0, 12.0))
next(recording.events())
print(keeper.pid, flush=True)
list(listener.open(b"hang", ListenOptions(30.0, 12.0)).events())
"""


def test_a_server_that_is_killed_leaves_no_process_behind() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server, server.stdout:
        host = psutil.Process(int(server.stdout.readline()))
        eventually(lambda: len(host.children()) == 2)
        members = host.children()
        server.kill()
        wait_until_gone([host, *members])
        for folder in Path(tempfile.gettempdir()).glob("voiceforge-*/audio"):
            if folder.stat().st_mtime >= host.create_time() - 5:
                folder.unlink()
                folder.parent.rmdir()


# -- what a member is


def test_members_have_one_thread_and_are_confined(house: House) -> None:
    with closing(house.listener.open(DICKENS, PLAIN)) as recording:
        next(recording.events())
        host, (member,) = psutil.Process(house.keeper.pid), house.members()
        assert (host.num_threads(), member.num_threads()) == (1, 1)
        assert member.nice() == min(19, host.nice() + NICENESS)
        assert os.getsid(host.pid) == os.getsid(0)  # in one of its own, priorities would count for nothing
        assert os.getpgid(host.pid) != os.getpgid(0)
        assert member.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert member.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert member.rlimit(psutil.RLIMIT_AS)[1] < host.memory_info().vms + (1 << 30)


def test_members_serve_one_after_the_other_and_leave_when_idle(house: House) -> None:
    for _ in range(5):
        hear(house.listener, BECKETT)
    assert len(house.members()) == 1
    eventually(lambda: house.members() == [])
    assert hear(house.listener, BECKETT)


def long_recording(path: Path, minutes: int) -> Path:
    with open_audio(DICKENS) as stream:
        speech = np.concatenate([block[0] for block in stream.blocks()])
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="WAV") as file:
        for _ in range(minutes):
            file.write(np.resize(speech, 60 * SAMPLE_RATE_HZ))
    return path


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def most_kib(minutes: int) -> int:
        house = build()
        hear(house.listener, long_recording(tmp_path / f"{minutes}.wav", minutes))
        status = Path(f"/proc/{house.members()[0].pid}/status").read_text()
        house.close()
        return int(status.split("VmHWM:")[1].split()[0])

    assert most_kib(12) < most_kib(4) + 8_192  # eight minutes are 30 MiB


# -- alignment


@pytest.fixture
def speech() -> Waveform:
    with open_audio(BECKETT) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


def test_members_align_as_this_process_would(speech: Waveform) -> None:
    keeper = keep_audio_host()
    pool = MemberPool(keeper.address, {LISTEN: 1, ALIGN: 1}, patience_s=LONGEST_WAIT_S)
    aligner = RemoteAligner(pool, ALIGNED_LANGUAGES)
    here = PocketsphinxAligner(max_decoders=1)
    assert aligner.languages == here.languages
    for text in (SAID, "a text that is not in it at all", "", "  "):
        assert aligner.align(speech, text) == here.align(speech, text)
    pool.close()
    keeper.close()


def test_word_times_are_estimated_where_nobody_can_align(house: House, speech: Waveform) -> None:
    words = RemoteAligner(house.pool, ALIGNED_LANGUAGES).align(speech, SAID)
    assert [word.text for word in words] == SAID.split()
    assert all(word.estimated for word in words)
