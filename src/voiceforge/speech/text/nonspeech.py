"""Decides from evidence whether recognised text was invented: heard in noise, music or silence.

Recognisers answer anything with words. No single sign is trusted against a clear voice: text goes
only where the voice detector is in doubt and the recogniser is too, or where nothing can be said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from voiceforge.speech.transcript.types import RemovalReason


@dataclass(frozen=True, slots=True)
class SpeechEvidence:
    """What is known about a piece of text and the sound it is said to come from.

    speech_s: seconds of speech the voice detector found there.
    speech_probability: its mean probability over the clearest of those stretches; 0 if there is none.
    avg_logprob, no_speech_prob: the recogniser's own doubts; None where it has none to tell.
    """

    text: str
    speech_s: float
    speech_probability: float
    avg_logprob: float | None = None
    no_speech_prob: float | None = None


@dataclass(frozen=True, slots=True)
class InventionLimits:
    """Where doubt is enough. Measured with Moonshine tiny on the Silero regions of 230 clips: 350
    windows of speech, and the 7 that music, hens, noise and clicks left.

    doubtful_speech: mean probability below which a stretch may be no voice. All false windows but two
        lie below; so do a few true ones, hence never a reason alone.
    doubtful_logprob: with a probability that low, false text had -0.5 and less, true text -0.4 and more.
    doubtful_s: only of windows with less speech than this: a long one is no accident.
    unclear_logprob: at any probability below `clear_speech`: one false text (music) had -0.84; true
        speech heard so badly had hardly a right word.
    scrap_s, scrap_speech, scrap_logprob: a click: shorter, less like speech, and answered less surely.
    doubtful_stock_logprob: the same for what models are known to say to noise (at -0.46 to -0.76);
        a real "Thank you." had -0.14.
    fastest_letters_per_s, speech_margin_s: more letters than can be said in speech_s and the margin a
        detector cuts off. True text has up to 16 (two mishearings more); a click had 30.
    hasty_logprob: how sure the recogniser must be for such text to stay.
    silent_probability: Whisper drops text with a no_speech_prob above 0.6 and an avg_logprob below -1.0
        (openai/whisper, transcribe.py; Radford et al. 2022, section 4.5).
    clear_speech: a voice this clear is believed over that.
    """

    doubtful_speech: float = 0.75
    doubtful_logprob: float = -0.5
    doubtful_s: float = 2.0
    unclear_logprob: float = -0.75
    scrap_s: float = 0.3
    scrap_speech: float = 0.65
    scrap_logprob: float = -0.3
    doubtful_stock_logprob: float = -0.4
    fastest_letters_per_s: float = 25.0
    speech_margin_s: float = 0.4
    hasty_logprob: float = -0.7
    silent_probability: float = 0.6
    silent_logprob: float = -1.0
    clear_speech: float = 0.9


# Said to noise and silence by models that learnt from subtitles; people say some of it too.
_STOCK_PHRASES = frozenset(
    {
        "bye",
        "oh",
        "please subscribe",
        "so",
        "subtitles by the amara org community",
        "thank you",
        "thank you for watching",
        "thank you so much for watching",
        "thank you very much",
        "thanks for watching",
        "you",
        "youre welcome",
    }
)
_LETTERS_ONLY = re.compile(r"[^\w\s]|_")


def is_invented(evidence: SpeechEvidence, limits: InventionLimits | None = None) -> RemovalReason | None:
    """Why the text should go; None: it may stay."""
    limits = limits or InventionLimits()
    letters = sum(c.isalnum() for c in evidence.text)
    if letters == 0:
        return "no_speech_hallucination"  # notes, dots and dashes: nobody says them
    if evidence.speech_s <= 0.0:
        return "no_speech"
    logprob = 0.0 if evidence.avg_logprob is None else evidence.avg_logprob
    if (
        (evidence.no_speech_prob or 0.0) > limits.silent_probability
        and logprob < limits.silent_logprob
        and evidence.speech_probability < limits.clear_speech
    ):
        return "no_speech"
    if evidence.speech_probability < limits.clear_speech and logprob < limits.unclear_logprob:
        return "no_speech_hallucination"
    if evidence.speech_probability >= limits.doubtful_speech:
        return None
    if logprob < limits.doubtful_logprob and evidence.speech_s < limits.doubtful_s:
        return "no_speech_hallucination"
    if _is_scrap(evidence, limits) and logprob < limits.scrap_logprob:
        return "no_speech_hallucination"
    if logprob < limits.doubtful_stock_logprob and _is_stock(evidence.text):
        return "no_speech_hallucination"
    sayable = limits.fastest_letters_per_s * (evidence.speech_s + limits.speech_margin_s)
    hasty = letters > sayable and (evidence.avg_logprob is None or logprob < limits.hasty_logprob)
    return "no_speech_hallucination" if hasty else None


def _is_scrap(evidence: SpeechEvidence, limits: InventionLimits) -> bool:
    return evidence.speech_s < limits.scrap_s and evidence.speech_probability < limits.scrap_speech


def _is_stock(text: str) -> bool:
    return " ".join(_LETTERS_ONLY.sub("", text).casefold().split()) in _STOCK_PHRASES
