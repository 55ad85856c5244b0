"""Whatever the audio, the pieces it comes in and the order in which answers come: what a stream promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.recogniser import DecodeDropped, DecodeResult, DecodeWanted, RecogniserOutput
from voiceforge.speech.transcript.stream_events import Closed, Final, Flushed, Interim, StreamEvent
from voiceforge.testing.scripted_stream import Driver, answer, audio, heard, recogniser, settled, words_in

sounds = st.lists(
    st.tuples(st.sampled_from((0.05, 0.1, 0.2, 0.4, 1.1)), st.sampled_from((0.0, 0.4, 1.0))), max_size=15
).map(lambda runs: audio(*runs))
splits = st.lists(st.integers(0, 9_000), max_size=12)
options = st.builds(
    StreamOptions,
    interim=st.booleans(),
    interim_every_ms=st.sampled_from((200, 500)),
    endpointing_ms=st.sampled_from((None, 100, 300, 700)),
    utterance_end_ms=st.sampled_from((None, 1000)),
    min_utterance_ms=st.sampled_from((0, 600)),
    max_utterance_s=st.sampled_from((None, 2.0)),
)


def wavering(wanted: DecodeWanted) -> DecodeResult:
    """Hypotheses that depend on the window, and finals that disagree with them."""
    words = words_in(wanted.audio.window)
    if wanted.purpose != "interim":
        return settled(wanted.audio.window, words)
    texts = [word.text for word in words]
    mark = (wanted.audio.window.end // 512) % 3
    return heard(" ".join(texts[:mark] + ["um"] * (mark == 2) + texts[mark + (mark == 1) :]))


@given(sounds, splits, options, st.sampled_from((answer, wavering)))
def test_the_pieces_the_audio_comes_in_change_nothing_in_the_finals(
    samples: Waveform, split: list[int], wish: StreamOptions, decode: Callable[[DecodeWanted], DecodeResult]
) -> None:
    # Interims are told apart only where no call brings more than the next of them.
    most = len(samples) if not wish.interim else 1_600
    pieces = [min(length, most) for length in split]
    rest = len(samples) - sum(pieces)
    pieces += [most] * max(0, rest // most if most else 0)
    one, other = Driver(recogniser(wish), decode), Driver(recogniser(wish), decode)
    one.push(samples, [1_600] * (len(samples) // 1_600))
    other.push(samples, pieces)
    one.close()
    other.close()
    assert one.finals == other.finals


class Chaos:
    """Answers wishes in any order, sheds interims and speculations, finalizes and pushes in between."""

    def __init__(self, wish: StreamOptions, data: st.DataObject) -> None:
        self.recogniser = recogniser(wish)
        self.events: list[StreamEvent] = []
        self._open: dict[int, DecodeWanted] = {}
        self._data = data

    def take(self, told: list[RecogniserOutput]) -> None:
        for output in told:
            if isinstance(output, DecodeWanted):
                self._open[output.id] = output
                interims = [w for w in self._open.values() if w.purpose == "interim"]
                assert len(interims) <= 1
            elif isinstance(output, DecodeDropped):
                del self._open[output.id]
            else:
                self.events.append(output)

    def answer_some(self, *, all_of_them: bool = False) -> None:
        while self._open and (all_of_them or self._data.draw(st.booleans())):
            wanted = self._open.pop(self._data.draw(st.sampled_from(sorted(self._open))))
            shed = wanted.purpose != "final" and self._data.draw(st.booleans())
            self.take(self.recogniser.decoded(wanted.id, None if shed else wavering(wanted)))


@given(sounds, options, st.data())
def test_whatever_is_shed_or_late_the_promises_hold(
    samples: Waveform, wish: StreamOptions, data: st.DataObject
) -> None:
    chaos = Chaos(wish, data)
    at = 0
    while at < len(samples):
        length = data.draw(st.sampled_from((512, 1_600, 5_000)))
        chaos.take(chaos.recogniser.push(samples[at : at + length]))
        at += length
        chaos.answer_some()
        if data.draw(st.integers(0, 9)) == 0:
            chaos.take(chaos.recogniser.finalize())
    chaos.take(chaos.recogniser.close())
    chaos.answer_some(all_of_them=True)
    events = chaos.events
    assert [type(e) for e in events].count(Closed) == 1
    assert isinstance(events[-1], Closed)
    finals = [e for e in events if isinstance(e, Final)]
    assert [f.utterance for f in finals] == list(range(len(finals)))
    stable: tuple[str, ...] = ()
    number = 0
    for event in events:
        if isinstance(event, Interim):
            assert event.utterance == number
            assert event.text.split()[: len(stable)] == list(stable)
            assert [word.text for word in event.words] == event.text.split()
            stable = tuple(event.text.split()[: event.stable])
        elif isinstance(event, Final):
            texts = tuple(event.text.split())
            if event.reason != "max_length":
                assert texts[: len(stable)] == stable
            # Behind a cut some of them may be the first of what comes next.
            assert texts[: len(stable)] == stable[: len(texts)]
            stable, number = stable[len(texts) :], number + 1
    for one, next_one in itertools.pairwise(finals):
        assert one.end <= next_one.start
    times = [t for f in finals for w in f.words for t in (w.start, w.end)]
    assert times == sorted(times)
    flushed = [e.at for e in events if isinstance(e, Flushed)]
    assert flushed == sorted(flushed)


@given(sounds, options)
def test_every_speech_region_is_in_a_final_or_a_gap_or_too_short(
    samples: Waveform, wish: StreamOptions
) -> None:
    driver = Driver(recogniser(replace(wish, interim=False)))
    driver.push(samples, [1_600] * (len(samples) // 1_600))
    driver.close()
    # A speculation that came to nothing is followed by another wish for the same utterance.
    windows = {w.audio.window.start: w.audio.window for w in driver.wishes}.values()
    regions = [r for window in windows for r in window.regions]
    edges = [edge for r in regions for edge in (r.start, r.end)]
    assert edges == sorted(edges)
    told = set(driver.text.split())
    for window in windows:
        assert told.issuperset(word.text for word in words_in(window))
    speech_s = sum(r.samples for r in regions) / 16_000
    assert abs(driver.recogniser.account.speech_s - speech_s) < 1e-6
    voiced = np.count_nonzero(samples == 1.0) / 16_000
    assert speech_s >= voiced - 0.1 * 16
