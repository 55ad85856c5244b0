"""An `Aligner` whose work is done by members: the library behind it lets no other thread run meanwhile,
and its memory is the host's, once for all.
"""

from __future__ import annotations

import numpy as np

from voiceforge.infra.audiohost.line import Garbled, Parcel
from voiceforge.infra.audiohost.pool import MemberLost, MemberPool
from voiceforge.speech.alignment.timeline import proportional_words
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.transcript.types import Word
from voiceforge.telemetry.logger import Logger

ALIGN = "align"
"""The craft."""
_TRIES = 2

_log = Logger(__name__)


class RemoteAligner:
    """See `Aligner`. Where members break down over a text, its words are estimated.

    Args:
        languages: those that the aligner in the members can align.
    """

    def __init__(self, pool: MemberPool, languages: frozenset[str]) -> None:
        self._pool = pool
        self._languages = languages

    @property
    def languages(self) -> frozenset[str]:
        return self._languages

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        if not text.split():
            return ()
        for _ in range(_TRIES):
            errand = self._pool.errand(ALIGN)
            try:
                return _words(errand.ask({"align": text}, [np.ascontiguousarray(samples).data]))
            except (MemberLost, Garbled):
                continue
            finally:
                errand.close()
        _log.error("alignment broke down; word times are estimated")
        return proportional_words(text, 0.0, len(samples) / SAMPLE_RATE_HZ)


def _words(answer: Parcel) -> tuple[Word, ...]:
    try:
        return tuple(Word(*word) for word in answer.message["words"])
    except (KeyError, TypeError) as error:
        raise Garbled from error
