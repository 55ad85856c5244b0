"""Wishes × capabilities → a plan. What an engine lacks is supplied by another stage, refused, or
listed as a warning; never dropped in silence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from voiceforge.errors import UnsupportedOption
from voiceforge.speech.engines.base import Capabilities, DecodeOptions
from voiceforge.speech.options import StreamOptions, TranscribeOptions
from voiceforge.speech.transcript.types import TranscriptWarning

WordTimes = Literal["none", "engine", "aligner", "estimate"]


@dataclass(frozen=True, slots=True)
class Plan:
    """decode: what the engine is asked. word_times: which stage supplies them."""

    decode: DecodeOptions
    word_times: WordTimes
    warnings: tuple[TranscriptWarning, ...]


def make_plan(
    options: TranscribeOptions, capabilities: Capabilities, aligned_languages: Collection[str]
) -> Plan:
    """Decide how one request is done.

    Args:
        aligned_languages: languages whose word times the aligner can find.

    Raises:
        UnsupportedOption: the language, the task or so many keyterms are beyond this model.
    """
    languages = sorted(capabilities.languages)
    language = options.language
    if language is not None and language not in capabilities.languages:
        raise UnsupportedOption(
            f"this model does not recognise language {language!r}", field="language", choices=languages
        )
    if options.task not in capabilities.tasks:
        raise UnsupportedOption(
            f"this model cannot {options.task}", field="task", choices=sorted(capabilities.tasks)
        )
    if capabilities.max_keyterms and len(options.keyterms) > capabilities.max_keyterms:
        raise UnsupportedOption(
            f"{len(options.keyterms)} keyterms; this model takes {capabilities.max_keyterms}", field="keyterm"
        )
    wishes = {
        "prompt": (options.prompt is not None, capabilities.prompt),
        "keyterm": (bool(options.keyterms), capabilities.max_keyterms > 0),
        # Greedy decoding is what temperature 0 and a beam of one ask for.
        "temperature": (bool(options.temperature), capabilities.temperature),
        "beam_size": (options.beam_size not in (None, 1), capabilities.beam),
    }
    ignored = [name for name, (wished, able) in wishes.items() if wished and not able]
    if language is None and len(languages) == 1:
        language = languages[0]
    word_times = _word_times(options, capabilities, language, aligned_languages)
    return Plan(
        decode=DecodeOptions(
            language=language,
            task=options.task,
            words=word_times == "engine",
            prompt=options.prompt if "prompt" not in ignored else None,
            keyterms=options.keyterms if "keyterm" not in ignored else (),
            temperature=options.temperature if capabilities.temperature else None,
            beam_size=options.beam_size if capabilities.beam else None,
        ),
        word_times=word_times,
        warnings=tuple(
            TranscriptWarning("option_ignored", f"this model has no {name}; the option was ignored")
            for name in ignored
        ),
    )


def make_stream_plan(
    options: StreamOptions, capabilities: Capabilities, aligned_languages: Collection[str]
) -> Plan:
    """Decide how one live stream is done; as `make_plan`."""
    wishes = TranscribeOptions(
        language=options.language,
        words=options.words,
        prompt=options.prompt,
        keyterms=options.keyterms,
        temperature=options.temperature,
        beam_size=options.beam_size,
    )
    return make_plan(wishes, capabilities, aligned_languages)


def _word_times(
    options: TranscribeOptions,
    capabilities: Capabilities,
    language: str | None,
    aligned_languages: Collection[str],
) -> WordTimes:
    if not options.words:
        return "none"
    if capabilities.word_times:
        return "engine"
    return "aligner" if language in aligned_languages else "estimate"
