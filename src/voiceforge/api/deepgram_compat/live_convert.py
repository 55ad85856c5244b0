"""From the events of a live stream to Deepgram's messages.

Every message has every field that SDK 5 insists on: one that lacks any ends its loop without a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from voiceforge.api.deepgram_compat.convert import model_info, model_uuid, timestamp
from voiceforge.api.deepgram_compat.live_wishes import LiveWish
from voiceforge.api.deepgram_compat.writing import (
    Spoken,
    confidence_of,
    spoken,
    spoken_in,
    text_of,
    word_documents,
)
from voiceforge.speech.transcript import ModelRef
from voiceforge.speech.transcript.stream_events import (
    Final,
    Flushed,
    Interim,
    SpeechEnded,
    SpeechStarted,
    StreamEvent,
    UtteranceEnd,
)

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    """What every message of a stream says alike. created: with a time zone. family: of the model."""

    request_id: str
    created: datetime
    model: ModelRef
    family: str


class LiveMessages:
    """One stream's messages, in order."""

    def __init__(self, wish: LiveWish, session: Session) -> None:
        self._wish = wish
        self._session = session
        self._frozen_until: defaultdict[int, float] = defaultdict(float)
        self._finalize_told = False

    def of(self, event: StreamEvent, channels: int) -> list[Message]:
        """
        Args:
            channels: of the stream, as far as is known.
        """
        match event:
            case SpeechStarted():
                if not self._wish.vad_events:
                    return []
                place = [event.channel, channels]
                return [{"type": "SpeechStarted", "channel": place, "timestamp": round(event.at, 3)}]
            case Interim():
                return [self._interim(event, channels)]
            case Final():
                return [self._final(event, channels)]
            case SpeechEnded():
                return self._speech_ended(event, channels)
            case UtteranceEnd():
                place = [event.channel, channels]
                end = round(event.last_word_end, 3)
                return [{"type": "UtteranceEnd", "channel": place, "last_word_end": end}]
            case Flushed():
                return self._flushed(event, channels)
            case _:
                return []

    def _interim(self, event: Interim, channels: int) -> Message:
        words = spoken(event.words, self._wish.writing.replacements)
        return self._results(event.channel, channels, event.start, event.end, words, None)

    def _final(self, event: Final, channels: int) -> Message:
        words = spoken_in(event.segments, self._wish.writing.replacements)
        self._frozen_until[event.channel] = event.end
        from_finalize = event.reason == "finalize"
        self._finalize_told = self._finalize_told or from_finalize
        return self._results(
            event.channel,
            channels,
            event.start,
            event.end,
            words,
            event.language.code if event.language else None,
            is_final=True,
            # Who benchmarks reads the last word of these.
            speech_final=event.reason == "silence" and bool(words),
            from_finalize=from_finalize,
        )

    def _speech_ended(self, event: SpeechEnded, channels: int) -> list[Message]:
        """Who was told that speech started hears that nothing was said in it."""
        self._frozen_until[event.channel] = event.end
        if not self._wish.vad_events:
            return []
        return [self._results(event.channel, channels, event.start, event.end, [], None, is_final=True)]

    def _flushed(self, event: Flushed, channels: int) -> list[Message]:
        """Clients wait for one answer to each `Finalize`, whether or not anything was said."""
        told, self._finalize_told = self._finalize_told, False
        if told:
            return []
        start = min(self._frozen_until[0], event.at)
        return [self._results(0, channels, start, event.at, [], None, is_final=True, from_finalize=True)]

    def _results(
        self,
        channel: int,
        channels: int,
        start: float,
        end: float,
        words: Sequence[Spoken],
        language: str | None,
        *,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Message:
        session, writing = self._session, self._wish.writing
        code = language or self._wish.request.options.language
        alternative: dict[str, Any] = {
            "transcript": text_of(words, writing, code),
            "confidence": confidence_of(words),
            "words": [word.model_dump(exclude_none=True) for word in word_documents(words, writing)],
        }
        if self._wish.multilingual:
            alternative["languages"] = [code] if code and words else []
        return {
            "type": "Results",
            "channel_index": [channel, channels],
            "duration": round(max(end - start, 0.0), 3),
            "start": round(start, 3),
            "is_final": is_final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative]},
            "metadata": {
                "request_id": session.request_id,
                "model_info": model_info(session.model, session.family).model_dump(),
                "model_uuid": model_uuid(session.model),
            },
        }

    def metadata(self, *, sha256: str, duration: float, channels: int) -> Message:
        """The last message of a stream that was closed.

        Args:
            sha256: of all audio that was received. duration: of it, in seconds.
        """
        session, wish = self._session, self._wish
        known = model_uuid(session.model)
        message: dict[str, Any] = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": session.request_id,
            "sha256": sha256,
            "created": timestamp(session.created),
            "duration": round(duration, 3),
            "channels": channels,
            "models": [known],
            "model_info": {known: model_info(session.model, session.family).model_dump()},
        }
        if wish.tags:
            message["tags"] = list(wish.tags)
        if wish.extra:
            message["extra"] = wish.extra
        if wish.warnings:
            message["warnings"] = [one.model_dump(exclude_none=True) for one in wish.warnings]
        return message
