"""The finals of a live stream → the Transcript that a file of the same audio would have ended in."""

from __future__ import annotations

from collections.abc import Sequence

from voiceforge.speech.pipeline.recogniser import Recogniser
from voiceforge.speech.transcript.stream_events import Final
from voiceforge.speech.transcript.types import ModelRef, Transcript


class StreamDocument:
    """Show it every `Final` of the stream, of all its channels; take the document at the end.

    Args:
        channels: how many channels the stream has; segments are numbered by time, and carry their channel
            only where there are several.
    """

    def __init__(self, model: ModelRef, channels: int = 1) -> None:
        self._model = model
        self._channels = channels
        self._finals: list[Final] = []

    def add(self, final: Final) -> None:
        self._finals.append(final)

    def transcript(self, recognisers: Sequence[Recogniser], processing_s: float = 0.0) -> Transcript:
        """Of everything that was final so far.

        Args:
            recognisers: of all channels; coverage, removals and warnings come from them.
        """
        raise NotImplementedError
