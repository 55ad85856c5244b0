"""Live speech of one channel, recognised by an engine that only takes whole windows."""

from __future__ import annotations

from collections.abc import Collection

from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.engines.base import Capabilities, Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.recogniser import DecodeWanted, Recogniser, SettledWindow
from voiceforge.speech.vad.silero import SileroModel


def make_recogniser(
    options: StreamOptions,
    capabilities: Capabilities,
    aligned_languages: Collection[str],
    vad: SileroModel,
    *,
    channel: int = 0,
) -> Recogniser:
    """The recogniser for one channel of a stream.

    Raises:
        UnsupportedOption: the model cannot do what `options` ask.
    """
    raise NotImplementedError


def settle_wish(
    wanted: DecodeWanted, hypothesis: Hypothesis, ticket: Ticket, aligner: Aligner | None
) -> SettledWindow:
    """What the engine heard in a speculative or final wish → the answer to it. Blocks: speech without text
    is decoded again on `ticket`, and words are aligned.

    Raises: what the futures of the ticket raise.
    """
    raise NotImplementedError
