"""Whisper in CTranslate2, through faster-whisper: waveforms in, hypotheses out.

Any size, English-only or multilingual, from a local folder; fetching is not done here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from voiceforge.errors import (
    Cancelled,
    DependencyMissing,
    EngineFailed,
    InvalidRequest,
    ModelNotInstalled,
    OutOfDeviceMemory,
)
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import (
    Capabilities,
    DecodeOptions,
    Hypothesis,
    HypothesisSegment,
    Wanted,
    always_wanted,
)
from voiceforge.speech.engines.device import DeviceChoice
from voiceforge.speech.engines.whisper_layout import layout
from voiceforge.speech.engines.whisper_passes import Heard, SpokenStretch, SpokenWord, WhisperPasses, Wish
from voiceforge.speech.options import Task
from voiceforge.speech.transcript.types import Language, ModelRef, Word

LONGEST_WINDOW_S = 30.0
BEST_WINDOW_S = 28.0
"""Every window costs a whole 30 s in the encoder, so nearly full ones are cheapest; the rest is room
for the planner to cut in a pause."""

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""OpenAI's fall-back: hotter each time the text loops or is improbable."""

DEFAULT_BEAM_SIZE = 5
MAX_KEYTERMS = 100

_WEIGHTS = "model.bin"

CONTEXT_TOKENS = 223
"""Prompt and keyterms together: half of Whisper's 448 positions, less one. faster-whisper grants
that to each of them, and both together then leave no room for the text."""

KEYTERM_TOKENS = 160
"""The keyterms' share of it; the end of the prompt gets what they leave."""

# Whisper's codes that ISO 639-1 writes differently.
TO_ISO = {"jw": "jv"}
_FROM_ISO = {iso: code for code, iso in TO_ISO.items()}


class WhisperCt2:
    """One loaded Whisper model. `decode` may be called from several threads at the same time; on a CPU each
    works on its share of the threads.

    Args:
        model_path: folder with model.bin, a vocabulary, tokenizer.json and, for models of 128 mel
            bins, preprocessor_config.json.
        parallel_decodes: None: two, or half of a CPU's threads where that is more.
        languages: what the weights were trained for where that is less than their tokenizer names
            (Distil-Whisper, fine-tuned models). A single one is never detected.
        tasks: likewise (large-v3-turbo does not translate).

    Raises:
        DependencyMissing: faster-whisper is not installed.
        ModelNotInstalled: the folder is not a whole model.
        EngineFailed: CTranslate2 could not load it.
    """

    def __init__(
        self,
        model_path: Path,
        model: ModelRef,
        *,
        device: DeviceChoice,
        parallel_decodes: int | None = None,
        languages: frozenset[str] | None = None,
        tasks: frozenset[Task] | None = None,
    ) -> None:
        try:
            import ctranslate2
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DependencyMissing(
                "Whisper models need faster-whisper: pip install 'voiceforge[whisper]'"
            ) from error

        _require_files(model_path, model)
        plan = layout(device, (model_path / _WEIGHTS).stat().st_size, parallel_decodes)
        # Sampling, the last resort of the fall-back, then repeats itself from one process to the next.
        ctranslate2.set_random_seed(0)
        try:
            loaded = WhisperModel(
                str(model_path),
                device=device.device,
                compute_type=device.compute_type,
                cpu_threads=plan.threads,
                num_workers=plan.workers,
            )
        except Exception as error:  # whatever the runtime or the tokenizer make of broken files
            raise EngineFailed(f"model {model.id} could not be loaded: {type(error).__name__}") from error
        if loaded.model.n_mels != loaded.feature_extractor.mel_filters.shape[0]:
            raise ModelNotInstalled(
                f"model {model.id} needs {loaded.model.n_mels} mel bins, and preprocessor_config.json, "
                "which says so, is missing from its folder or from another model"
            )
        self._model = model
        self._whisper: Any | None = loaded
        self._passes = WhisperPasses(loaded, encoder_rows=plan.encoder_rows)
        self._tokenizer = loaded.hf_tokenizer
        known = _languages(loaded)
        spoken = (known if languages is None else known & languages) or known
        self._only_language = next(iter(spoken)) if len(spoken) == 1 else None
        both: frozenset[Task] = frozenset(("transcribe", "translate"))
        self._capabilities = Capabilities(
            languages=spoken,
            longest_window_s=LONGEST_WINDOW_S,
            best_window_s=BEST_WINDOW_S,
            tasks=(tasks or both) if loaded.model.is_multilingual else frozenset(("transcribe",)),
            segment_times=True,
            word_times=has_alignment_heads(model_path),
            detects_language=len(spoken) > 1,
            prompt=True,
            max_keyterms=MAX_KEYTERMS,
            temperature=True,
            beam=True,
            max_batch_rows=plan.rows,
            parallel_decodes=plan.calls,
        )

    @property
    def model(self) -> ModelRef:
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        """See `Engine.decode`. A temperature above 0 samples: such text differs from call to call.

        Raises:
            InvalidRequest: the keyterms do not fit into Whisper's context.
            OutOfDeviceMemory: the windows together take more memory than there is.
            EngineFailed: the runtime broke on this input, or the engine is closed.
        """
        whisper = self._whisper
        if whisper is None:
            raise EngineFailed(f"model {self._model.id} is closed")
        language = options.language or self._only_language
        prompt, hotwords = self._context(options)
        wish = Wish(
            language=_FROM_ISO.get(language, language) if language else None,
            task=options.task,
            words=options.words,
            beam_size=options.beam_size or DEFAULT_BEAM_SIZE,
            temperatures=TEMPERATURES if options.temperature is None else (options.temperature,),
            prompt=tuple(prompt),
            hotwords=hotwords,
        )
        try:
            heard = self._passes.hear(windows, wish, wanted)
        except Cancelled:
            raise
        except Exception as error:  # CTranslate2 raises RuntimeError and ValueError, numpy IndexError
            raise decode_failure(self._model, error) from error
        return [
            Hypothesis(
                segments=_segments(answer.stretches, window.shape[0] / SAMPLE_RATE_HZ),
                # What was detected where nothing is said means nothing.
                language=_language(answer) if answer.stretches or language else None,
            )
            for answer, window in zip(heard, windows, strict=True)
        ]

    def close(self) -> None:
        """See `Engine.close`. May be called again."""
        whisper, self._whisper = self._whisper, None
        if whisper is not None:
            whisper.model.unload_model()

    def _context(self, options: DecodeOptions) -> tuple[list[int], str | None]:
        """Prompt tokens and hotwords that fit beside each other."""
        hotwords = _plain(", ".join(options.keyterms)) or None
        used = len(self._encode(hotwords)) if hotwords else 0
        if used > KEYTERM_TOKENS:
            raise InvalidRequest(
                f"the {len(options.keyterms)} keyterms take {used} tokens; {KEYTERM_TOKENS} fit",
                field="keyterms",
            )
        prompt = _plain(options.prompt or "")
        # The end of a prompt is nearest to what follows, so the end is kept (as OpenAI's API does).
        return self._encode(prompt)[used - CONTEXT_TOKENS :] if prompt else [], hotwords

    def _encode(self, text: str) -> list[int]:
        """Text tokens, with the leading space that faster-whisper gives its prompts."""
        ids: list[int] = self._tokenizer.encode(f" {text}", add_special_tokens=False).ids
        return ids


# CTranslate2 raises RuntimeError with the words of CUDA, or with the status names of cuBLAS and cuDNN.
_NO_MEMORY = ("out of memory", "_ALLOC_FAILED", "bad_alloc")


def decode_failure(model: ModelRef, error: Exception) -> EngineFailed:
    """What our callers get for an exception of the runtime."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return OutOfDeviceMemory(f"model {model.id} ran out of memory")
    return EngineFailed(f"model {model.id} failed: {type(error).__name__}")


def _plain(text: str) -> str:
    """Without control tokens: `<|endoftext|>` in a caller's prompt would otherwise act as one."""
    return text.replace("<|", "").replace("|>", "").strip()


def _require_files(folder: Path, model: ModelRef) -> None:
    """faster-whisper would look a missing tokenizer up on the network."""
    missing = [name for name in (_WEIGHTS, "tokenizer.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("vocabulary.json", "vocabulary.txt")):
        missing.append("vocabulary.json")
    if missing:
        raise ModelNotInstalled(
            f"model {model.id} is incomplete, {', '.join(missing)} missing: voiceforge models pull {model.id}"
        )


def has_alignment_heads(folder: Path) -> bool:
    """Whether the conversion kept what word times are read from."""
    try:
        return "alignment_heads" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _languages(whisper: Any) -> frozenset[str]:
    """Those the tokenizer has a token for; Cantonese, say, exists in large-v3 only."""
    known = (c for c in whisper.supported_languages if whisper.hf_tokenizer.token_to_id(f"<|{c}|>"))
    return frozenset(TO_ISO.get(code, code) for code in known)


def _language(heard: Heard) -> Language:
    return Language(TO_ISO.get(heard.language, heard.language), float(heard.language_probability))


def _segments(heard: Sequence[SpokenStretch], duration_s: float) -> tuple[HypothesisSegment, ...]:
    """Whisper's times may pass the window's end (it hears 30 s of padding) and, after the mends of long
    words, run backwards; ours stay inside and in order."""
    words = [[word for word in stretch.words if word.text.strip()] for stretch in heard]
    spans: list[SpokenWord | SpokenStretch] = []
    for stretch, own in zip(heard, words, strict=True):
        spans += own or [stretch]
    times = iter(_ordered(((span.start, span.end) for span in spans), duration_s))
    made = []
    for stretch, own in zip(heard, words, strict=True):
        bounds = [next(times) for _ in own or (stretch,)]
        answer = stretch.answer
        made.append(
            HypothesisSegment(
                start=bounds[0][0],
                end=bounds[-1][1],
                text=stretch.text.strip(),
                avg_logprob=answer.avg_logprob,
                no_speech_prob=answer.no_speech_prob,
                words=tuple(
                    Word(word.text.strip(), start, end, confidence=min(1.0, max(0.0, word.probability)))
                    for word, (start, end) in zip(own, bounds, strict=bool(own))
                ),
                tokens=stretch.tokens,
                temperature=answer.temperature,
                compression_ratio=answer.compression_ratio,
            )
        )
    return tuple(made)


def _ordered(spans: Iterable[tuple[float, float]], duration_s: float) -> list[tuple[float, float]]:
    """Spans inside [0, duration_s], starts rising, none reaching into the next."""
    starts: list[float] = []
    ends: list[float] = []
    for start, end in spans:
        starts.append(min(max(start, starts[-1] if starts else 0.0), duration_s))
        ends.append(min(max(end, starts[-1]), duration_s))
    nexts = [*starts[1:], duration_s]
    return [(start, min(end, following)) for start, end, following in zip(starts, ends, nexts, strict=False)]
