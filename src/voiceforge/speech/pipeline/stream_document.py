"""The finals of a live stream → the Transcript that a file of the same audio would have ended in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.pipeline.recogniser import Recogniser
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.transcript.stream_events import Final
from voiceforge.speech.transcript.types import Language, ModelRef, Transcript, TranscriptWarning


class StreamDocument:
    """Show it every `Final` of the stream, of all its channels; take the document at the end.

    Args:
        channels: how many channels the stream has; segments carry theirs only where there are several.
    """

    def __init__(self, model: ModelRef, channels: int = 1) -> None:
        self._model = model
        self._channels = channels
        self._finals: list[Final] = []

    def add(self, final: Final) -> None:
        self._finals.append(final)

    def transcript(self, recognisers: Sequence[Recogniser], processing_s: float = 0.0) -> Transcript:
        """Of everything that was final so far; segments are numbered by time.

        Args:
            recognisers: of all channels; coverage, removals and warnings come from them.
        """
        account = Account()
        for recogniser in recognisers:
            account.add(recogniser.account)
        duration = max((r.received_samples for r in recognisers), default=0) / SAMPLE_RATE_HZ
        segments = [segment for final in self._finals for segment in final.segments]
        segments.sort(key=lambda segment: (segment.start, segment.channel or 0))
        numbered = tuple(
            replace(segment, id=number, channel=segment.channel if self._channels > 1 else None)
            for number, segment in enumerate(segments)
        )
        return Transcript(
            text=" ".join(segment.text for segment in numbered),
            segments=numbered,
            duration=duration,
            language=self._language(),
            coverage=account.coverage(),
            model=self._model,
            removed=tuple(sorted(account.removed, key=lambda removal: (removal.start, removal.end))),
            warnings=self._warnings(recognisers, account),
            processing_s=processing_s,
            rtf=processing_s / duration if duration else 0.0,
            channels=self._channels,
        )

    def _language(self) -> Language | None:
        """The one with the most speech, and how sure the finals in it were on average."""
        speech_s: dict[str, float] = defaultdict(float)
        mass: dict[str, float] = defaultdict(float)
        for final in self._finals:
            if final.language is not None and final.segments:
                speech_s[final.language.code] += final.end - final.start
                mass[final.language.code] += (final.end - final.start) * final.language.probability
        if not mass:
            return None
        code = max(mass, key=lambda code: mass[code])
        return Language(code, mass[code] / speech_s[code] if speech_s[code] else 1.0)

    def _warnings(self, recognisers: Sequence[Recogniser], account: Account) -> tuple[TranscriptWarning, ...]:
        found = [warning for recogniser in recognisers for warning in recogniser.warnings]
        if account.speech_s == 0.0:
            found.append(TranscriptWarning("no_speech", "no speech was found"))
        elif not any(final.segments for final in self._finals):
            found.append(TranscriptWarning("no_speech", "no speech was found that could be recognised"))
        return tuple(dict.fromkeys(found))
