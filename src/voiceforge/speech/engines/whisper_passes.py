"""Several windows through one Whisper together; each answer is what the window gets alone.

    windows ─▶ features ─▶ encode ─▶ language ─▶ generate; what failed, hotter ─▶ stretches ─▶ words
                              ▲                                                       │
                              └── rows whose text ends before their audio, from there ┘

Rows share calls into CTranslate2 and nothing else. What is asked of the model, when an answer is refused
and where a row goes on are the rules of faster-whisper's `WhisperModel.transcribe` without conditioning on
previous text, which are OpenAI's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Wanted, always_wanted, go_on
from voiceforge.speech.engines.whisper_stretches import FRAME_S, FRAMES_PER_S, cut
from voiceforge.speech.options import Task

COMPRESSION_RATIO_LIMIT = 2.4
LOG_PROBABILITY_LIMIT = -1.0
NO_SPEECH_LIMIT = 0.6
"""OpenAI's: text that packs better goes round in circles, text below that probability is a guess, and above
this one a guess means silence."""

_SAMPLES_WHEN_HOT = 5  # the best of as many is taken at a temperature above 0
_LATEST_FIRST_TIMESTAMP = 50  # of 20 ms: the first word comes within a second
_LEAST_FRAMES_WITH_WORDS = 2  # one position of the encoder; less has nothing to align with
_PUNCTUATION_BEFORE = "\"'“¿([{-"
_PUNCTUATION_AFTER = "\"'.。,，!！?？:：”)]}、"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of every window of a batch.

    language: a code of Whisper's; None: heard from each window.
    prompt: tokens of text that came before a window. hotwords: come before all that is decoded.
    temperatures: tried in turn until an answer is good enough.
    """

    language: str | None
    task: Task
    words: bool
    beam_size: int
    temperatures: tuple[float, ...]
    prompt: tuple[int, ...] = ()
    hotwords: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one pass over a row, and how sure it was."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float

    @property
    def goes_round(self) -> bool:
        return self.compression_ratio > COMPRESSION_RATIO_LIMIT

    @property
    def is_silence(self) -> bool:
        return self.no_speech_prob > NO_SPEECH_LIMIT and not self.avg_logprob > LOG_PROBABILITY_LIMIT

    @property
    def needs_another_try(self) -> bool:
        guessed = self.avg_logprob < LOG_PROBABILITY_LIMIT
        return (self.goes_round or guessed) and not (guessed and self.no_speech_prob > NO_SPEECH_LIMIT)


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """As the tokens give it, with the space before it. Times in seconds from the start of the window."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class SpokenStretch:
    """Times in seconds from the start of the window; they may lie beyond its end, or overlap."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    answer: Answer
    words: tuple[SpokenWord, ...]


@dataclass(slots=True)
class Heard:
    """One window's answer. language: a code of Whisper's, probability 1 where it was not detected."""

    stretches: list[SpokenStretch] = field(default_factory=list)
    language: str = "en"
    language_probability: float = 1.0


@dataclass(eq=False, slots=True)
class _Row:
    """features: shape (mel bins, frames). seek: the first frame that is not done."""

    features: Floats
    heard: Heard
    seek: int = 0
    spoken_until_s: float = 0.0

    @property
    def frames(self) -> int:
        return int(self.features.shape[1])


class WhisperPasses:
    """Thread-safe as far as the model is.

    Args:
        whisper: a faster_whisper.WhisperModel; its parts are used, its `transcribe` is not.
        encoder_rows: windows per call of the encoder. On a CPU it gains nothing from company, and each
            row takes 54 MB (tiny) to 180 MB (large) while it is encoded.
    """

    def __init__(self, whisper: Any, *, encoder_rows: int) -> None:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        self._whisper = whisper
        self._model = whisper.model
        self._encoder_rows = encoder_rows
        self._multilingual: bool = whisper.model.is_multilingual
        self._frames: int = whisper.feature_extractor.nb_max_frames
        self._make_tokenizer = Tokenizer
        tokenizer = self._tokenizer("en", "transcribe")
        self._suppressed = get_suppressed_tokens(tokenizer, [-1])
        self._first_timestamp = int(tokenizer.timestamp_begin)

    def hear(self, windows: Sequence[Waveform], wish: Wish, wanted: Wanted = always_wanted) -> list[Heard]:
        """Answer each window, in order.

        Args:
            windows: each float32, shape (n_samples,), 16 kHz mono, up to 30 s.

        Raises:
            Cancelled: nobody wanted it any more.
            Exception: whatever CTranslate2 and faster-whisper raise.
        """
        if not windows:
            return []
        language = (wish.language or "en") if self._multilingual else "en"
        rows = [_Row(self._features(window), Heard(language=language)) for window in windows]
        encoded = self._encode(rows, wanted)
        if self._multilingual and wish.language is None:
            self._detect_languages(rows, encoded)
        self._pass(rows, encoded, wish, wish.prompt, wanted)
        least = _LEAST_FRAMES_WITH_WORDS if wish.words else 1
        while left := [row for row in rows if row.frames - row.seek >= least]:
            # The prompt is what was said before the window, so it comes before its beginning only.
            self._pass(left, self._encode(left, wanted), wish, (), wanted)
        return [row.heard for row in rows]

    def _detect_languages(self, rows: Sequence[_Row], encoded: _Encoded) -> None:
        """faster-whisper encodes each window once more for this, with one frame of padding more."""
        found = self._model.detect_language(encoded.rows(range(len(rows))))
        for row, best_first in zip(rows, found, strict=True):
            token, row.heard.language_probability = best_first[0]
            row.heard.language = token.removeprefix("<|").removesuffix("|>")

    def _pass(
        self,
        rows: Sequence[_Row],
        encoded: _Encoded,
        wish: Wish,
        prompt: Sequence[int],
        wanted: Wanted,
    ) -> None:
        """Decode each row from its `seek` on, once, and move that forward."""
        tokenizers = [self._tokenizer(row.heard.language, wish.task) for row in rows]
        prompts = [
            self._whisper.get_prompt(tokenizer, list(prompt), hotwords=wish.hotwords)
            for tokenizer in tokenizers
        ]
        answers = self._answers(encoded, prompts, tokenizers[0], wish, wanted)
        for index, (row, answer, tokenizer) in enumerate(zip(rows, answers, tokenizers, strict=True)):
            if answer.is_silence:
                row.seek = row.frames
                continue
            before = row.seek
            align_to = encoded.rows([index]) if wish.words else None
            for stretch in self._spoken(row, answer, tokenizer, align_to):
                text = tokenizer.decode(stretch["tokens"])
                if stretch["start"] != stretch["end"] and text.strip():
                    row.heard.stretches.append(_told(stretch, text, answer))
            if row.seek == before and not prompt:
                row.seek = row.frames  # the same question again would get the same answer, for ever

    def _features(self, window: Waveform) -> Floats:
        """Log-mel spectrogram, shape (mel bins, frames), without the frame that only padding fills."""
        features: Floats = self._whisper.feature_extractor(window)
        return features[:, :-1]

    def _encode(self, rows: Sequence[_Row], wanted: Wanted) -> _Encoded:
        from ctranslate2 import StorageView

        padded = np.zeros((len(rows), rows[0].features.shape[0], self._frames), np.float32)
        for row, into in zip(rows, padded, strict=True):
            features = row.features[:, row.seek :]
            into[:, : features.shape[1]] = features
        step = self._encoder_rows
        pieces = []
        for at in range(0, len(rows), step):
            go_on(wanted)
            # Rows are picked out in the computer's memory, a row alone can stay where it is.
            piece = StorageView.from_array(padded[at : at + step])
            pieces.append(self._model.encode(piece, to_cpu=len(rows) > 1))
        return _Encoded(pieces)

    def _answers(
        self,
        encoded: _Encoded,
        prompts: Sequence[list[int]],
        tokenizer: Any,
        wish: Wish,
        wanted: Wanted,
    ) -> list[Answer]:
        """Of each row the first that is good enough, by rising temperature, else the most probable."""
        tries: list[list[Answer]] = [[] for _ in prompts]
        left = list(range(len(prompts)))
        for temperature in wish.temperatures:
            go_on(wanted)
            results = self._model.generate(
                encoded.rows(left),
                [prompts[index] for index in left],
                max_length=self._whisper.max_length,
                return_scores=True,
                return_no_speech_prob=True,
                suppress_blank=True,
                suppress_tokens=self._suppressed,
                max_initial_timestamp_index=_LATEST_FIRST_TIMESTAMP,
                **_search(temperature, wish.beam_size),
            )
            for index, result in zip(left, results, strict=True):
                tries[index].append(_answer(result, tokenizer, temperature))
            left = [index for index in left if tries[index][-1].needs_another_try]
            if not left:
                break
        for index in left:
            straight = [answer for answer in tries[index] if not answer.goes_round]
            best = max(straight or tries[index], key=lambda answer: answer.avg_logprob)
            tries[index].append(replace(best, temperature=wish.temperatures[-1]))
        return [found[-1] for found in tries]

    def _spoken(self, row: _Row, answer: Answer, tokenizer: Any, encoded: Any | None) -> list[dict[str, Any]]:
        """The stretches of an answer, as faster-whisper's alignment wants them; moves the row's `seek`.

        Args:
            encoded: the row's audio; None: no words are wanted. One row at a time: CTranslate2 aligns rows
                of equal length over each other's padding.
        """
        seek, frames = row.seek, row.frames - row.seek
        pieces = cut(answer.tokens, first_timestamp=self._first_timestamp, offset_frames=seek, frames=frames)
        row.seek += pieces.frames
        spoken: list[dict[str, Any]] = [
            {"seek": seek, "start": stretch.start, "end": stretch.end, "tokens": list(stretch.tokens)}
            for stretch in pieces.stretches
        ]
        if encoded is None:
            return spoken
        self._whisper.add_word_timestamps(
            [spoken], tokenizer, encoded, frames, _PUNCTUATION_BEFORE, _PUNCTUATION_AFTER, row.spoken_until_s
        )
        ends = [stretch["words"][-1]["end"] for stretch in spoken if stretch["words"]]
        row.spoken_until_s = ends[-1] if ends else spoken[-1]["end"]
        if not pieces.to_the_end and row.spoken_until_s > seek * FRAME_S:
            row.seek = round(row.spoken_until_s * FRAMES_PER_S)
        return spoken

    def _tokenizer(self, language: str, task: Task) -> Any:
        return self._make_tokenizer(
            self._whisper.hf_tokenizer, self._multilingual, language=language, task=task
        )


class _Encoded:
    """What the encoder made of some rows, in one or several pieces of shape (rows, positions, width)."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        self._pieces = pieces
        self._count = sum(piece.shape[0] for piece in pieces)

    def rows(self, indices: Sequence[int]) -> Any:
        """A StorageView of those rows, in that order."""
        from ctranslate2 import StorageView

        if len(self._pieces) == 1 and len(indices) == self._count:
            return self._pieces[0]
        arrays = [row for piece in self._pieces for row in _array(piece)]
        return StorageView.from_array(np.stack([arrays[index] for index in indices]))


def _array(storage: Any) -> NDArray[Any]:
    """The same memory for numpy; a copy where numpy does not know the number type."""
    from ctranslate2 import DataType

    known = storage if storage.dtype != DataType.bfloat16 else storage.to(DataType.float32)
    return np.asarray(known)


def _search(temperature: float, beam_size: int) -> dict[str, Any]:
    if temperature == 0:
        return {"beam_size": beam_size, "patience": 1}
    return {
        "beam_size": 1,
        "num_hypotheses": _SAMPLES_WHEN_HOT,
        "sampling_topk": 0,
        "sampling_temperature": temperature,
    }


def _answer(result: Any, tokenizer: Any, temperature: float) -> Answer:
    from faster_whisper.transcribe import get_compression_ratio

    tokens = tuple(result.sequences_ids[0])
    return Answer(
        tokens=tokens,
        # The score is the mean over the text; the end token counts too.
        avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
        no_speech_prob=result.no_speech_prob,
        compression_ratio=get_compression_ratio(tokenizer.decode(tokens).strip()),
        temperature=temperature,
    )


def _told(stretch: dict[str, Any], text: str, answer: Answer) -> SpokenStretch:
    return SpokenStretch(
        start=float(stretch["start"]),
        end=float(stretch["end"]),
        text=text,
        tokens=tuple(stretch["tokens"]),
        answer=answer,
        words=tuple(
            SpokenWord(word["word"], float(word["start"]), float(word["end"]), float(word["probability"]))
            for word in stretch.get("words", ())
        ),
    )
