"""The turns of a realtime session: events of a stream in, OpenAI's server events out.

    speech_started ─▶ delta … ─▶ speech_stopped ─▶ committed ─▶ item ─▶ delta ─▶ completed ─▶ done
                                                 ▲
                     a silence ends the turn, or the client commits it

A turn may hold several finals: those that ended because they grew long wait for the turn's end. Deltas are
sent as soon as words are certain; an item's deltas together are its transcript, always.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from voiceforge.api.openai_compat.realtime_session import Dialect
from voiceforge.errors import InvalidRequest
from voiceforge.speech.transcript.growing_text import GrowingText
from voiceforge.speech.transcript.stream_events import (
    Final,
    Flushed,
    Interim,
    SpeechEnded,
    SpeechStarted,
    StreamEvent,
)
from voiceforge.speech.transcript.types import Word

ServerEvent = dict[str, Any]

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_LEAST_COMMIT_S = 0.1
# Positions are the client's count of bytes on one side and resampled audio on the other.
_SLACK_S = 0.05


class CommitEmpty(InvalidRequest):
    code = "input_audio_buffer_commit_empty"


@dataclass(slots=True)
class _Turn:
    """One item, before and after its commit. Seconds from the start of the session.

    since: where its audio begins. until: where it ended. started: the client knows that somebody speaks.
    spoken_from: where its first final begins. after: the item before it, once it is committed.
    """

    item_id: str
    since: float
    until: float | None = None
    started: bool = False
    spoken_from: float | None = None
    after: str | None = None
    discarded: bool = False
    text: GrowingText = field(default_factory=GrowingText)
    words: list[Word] = field(default_factory=list)
    languages: dict[str, None] = field(default_factory=dict)


class Turns:
    """
    Args:
        new_id: makes an id of a kind, such as `item`.
    """

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self.dialect: Dialect = "ga"
        self.detecting = True  # a silence ends a turn
        self.logprobs = False
        self._new_id = new_id
        self._last_item: str | None = None
        self._heard_until = 0.0
        # Of speech whose turn is not the current one yet: what is said next is noticed before the final of
        # what was said last is there.
        self._starts: deque[float] = deque()
        self._current = self._new_turn(0.0)
        # Ended by the client; their finals are on the way, and a `Flushed` for each.
        self._flushing: deque[_Turn] = deque()

    def heard(self, event: StreamEvent) -> list[ServerEvent]:
        match event:
            case SpeechStarted(at=at):
                return self._speech_started(at)
            case Interim():
                return self._interim(event)
            case Final():
                return self._final(event)
            case SpeechEnded():
                return self._speech_ended(event)
            case Flushed():
                return self._flushed()
            case _:
                return []

    def commit(self, at: float) -> list[ServerEvent]:
        """The client ends the turn at second `at`. A `Flushed` must follow what was said until then.

        Raises:
            CommitEmpty: not even 100 ms came since the last one.
        """
        held_s = at - self._current.since
        if held_s < _LEAST_COMMIT_S - 1e-9:
            raise CommitEmpty(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {max(0.0, held_s) * 1000:.2f}ms of audio."
            )
        turn = self._end_turn(at)
        return self._committed(turn)

    def clear(self, at: float) -> list[ServerEvent]:
        """The client takes back what it sent until `at` and did not commit. A `Flushed` must follow."""
        self._end_turn(at).discarded = True
        return [{"type": "input_audio_buffer.cleared"}]

    def finish(self) -> list[ServerEvent]:
        """Nothing comes any more: what has been said of turns is said to its end."""
        told: list[ServerEvent] = []
        while self._flushing:
            told += self._flushed()
        if self._current.text.text:
            turn = self._end_turn(self._heard_until)
            told += self._committed(turn) + self._completed(turn)
            self._flushing.clear()
        return told

    def failed(self, error: Mapping[str, object]) -> list[ServerEvent]:
        """The stream broke: whatever item a client waits for says so."""
        waited_for = [turn for turn in self._flushing if not turn.discarded]
        if self._current.started or self._current.text.text:
            waited_for.append(self._current)
        self._flushing.clear()
        self._current = self._new_turn(self._current.since)
        return [
            {"type": f"{_TRANSCRIPTION}.failed", "item_id": turn.item_id, "content_index": 0, "error": error}
            for turn in waited_for
        ]

    def _speech_started(self, at: float) -> list[ServerEvent]:
        if not self.detecting or self._turn_at(at) is not self._current:
            return []
        if self._current.started:
            self._starts.append(at)
            return []
        self._current.started = True
        return [
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": _ms(at),
                "item_id": self._current.item_id,
            }
        ]

    def _next_start(self) -> list[ServerEvent]:
        """Of the turn that follows the one which ended, where somebody speaks already."""
        while self._starts and self._starts[0] < self._current.since:
            self._starts.popleft()
        return self._speech_started(self._starts.popleft()) if self._starts else []

    def _interim(self, event: Interim) -> list[ServerEvent]:
        if self._flushing:
            return []  # the next one repeats what is certain
        return self._told_to_speak(event.start) + self._delta(self._current, self._current.text.heard(event))

    def _final(self, event: Final) -> list[ServerEvent]:
        self._heard_until = event.end
        turn = self._turn_at((event.start + event.end) / 2)
        if self.logprobs:
            turn.words += event.words
        turn.spoken_from = event.start if turn.spoken_from is None else turn.spoken_from
        if event.language is not None and event.text:
            turn.languages[event.language.code] = None
        over = self.detecting and turn is self._current and event.reason in ("silence", "close")
        told: list[ServerEvent] = []
        if over:
            told += self._told_to_speak(event.start)
            told += self._stopped(turn, turn.spoken_from, event.end)
        elif turn is self._current and event.text:
            told += self._told_to_speak(event.start)
        told += self._delta(turn, turn.text.settled(event))
        if over:
            told += self._settled(turn)
        return told

    def _speech_ended(self, event: SpeechEnded) -> list[ServerEvent]:
        """Nothing was said: a turn that the client knows of ends all the same."""
        self._heard_until = event.end
        turn = self._turn_at((event.start + event.end) / 2)
        if not self.detecting or turn is not self._current or not turn.started:
            return []
        since = event.start if turn.spoken_from is None else turn.spoken_from
        return self._stopped(turn, since, event.end) + self._settled(turn)

    def _stopped(self, turn: _Turn, since: float, until: float) -> list[ServerEvent]:
        """A silence ends the current turn; `_settled` must follow."""
        turn.since = since
        self._end_turn(until)
        stopped = {"audio_end_ms": _ms(until), "item_id": turn.item_id}
        return [{"type": "input_audio_buffer.speech_stopped", **stopped}, *self._committed(turn)]

    def _settled(self, turn: _Turn) -> list[ServerEvent]:
        self._flushing.remove(turn)
        return self._completed(turn) + self._next_start()

    def _told_to_speak(self, at: float) -> list[ServerEvent]:
        """Speech that goes on over a commit is not noticed anew, but is the first of its turn."""
        return [] if self._current.started else self._speech_started(at)

    def _flushed(self) -> list[ServerEvent]:
        if not self._flushing:
            return []
        turn = self._flushing.popleft()
        return ([] if turn.discarded else self._completed(turn)) + self._next_start()

    def _turn_at(self, at: float) -> _Turn:
        for turn in self._flushing:
            if turn.until is not None and at < turn.until - _SLACK_S:
                return turn
        return self._current

    def _new_turn(self, since: float) -> _Turn:
        return _Turn(self._new_id("item"), since)

    def _end_turn(self, at: float) -> _Turn:
        turn = self._current
        turn.until = max(at, turn.since)
        self._flushing.append(turn)
        self._current = self._new_turn(turn.until)
        return turn

    def _committed(self, turn: _Turn) -> list[ServerEvent]:
        turn.after, self._last_item = self._last_item, turn.item_id
        added = "conversation.item.added" if self.dialect == "ga" else "conversation.item.created"
        return [
            {
                "type": "input_audio_buffer.committed",
                "item_id": turn.item_id,
                "previous_item_id": turn.after,
            },
            {"type": added, "previous_item_id": turn.after, "item": _item(turn, None)},
        ]

    def _delta(self, turn: _Turn, text: str) -> list[ServerEvent]:
        if not text or turn.discarded:
            return []
        return [
            {"type": f"{_TRANSCRIPTION}.delta", "item_id": turn.item_id, "content_index": 0, "delta": text}
        ]

    def _completed(self, turn: _Turn) -> list[ServerEvent]:
        assert turn.until is not None
        text = turn.text.text
        completed: ServerEvent = {
            "type": f"{_TRANSCRIPTION}.completed",
            "item_id": turn.item_id,
            "content_index": 0,
            "transcript": text,
            "usage": {"type": "duration", "seconds": round(turn.until - turn.since, 3)},
        }
        if self.logprobs and (logprobs := _logprobs(turn.words)) is not None:
            completed["logprobs"] = logprobs
        if self.dialect == "beta":
            return [completed]
        completed["languages"] = [{"code": code} for code in turn.languages]
        done = {
            "type": "conversation.item.done",
            "previous_item_id": turn.after,
            "item": _item(turn, text),
        }
        return [completed, done]


def _item(turn: _Turn, transcript: str | None) -> dict[str, Any]:
    return {
        "id": turn.item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": transcript}],
    }


def _logprobs(words: list[Word]) -> list[dict[str, Any]] | None:
    """Of words, which is all we know; None where the engine is sure of none."""
    made: list[dict[str, Any]] = []
    for word in words:
        if not word.confidence:
            return None
        token = f" {word.text}" if made else word.text
        made.append(
            {"token": token, "bytes": list(token.encode()), "logprob": round(math.log(word.confidence), 4)}
        )
    return made or None


def _ms(at: float) -> int:
    return max(0, round(at * 1000))
