"""From Deepgram's query to what we understand by it. What this server lacks is refused where silence would
deceive, and noted where common clients ask for it without being told to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from voiceforge.api.deepgram_compat.schemas import ListenQuery, Query, WarningOut
from voiceforge.api.http.languages import code_of
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.speech.options import RawEncoding, RawFormat, TranscribeOptions

RAW: dict[str, RawEncoding] = {
    "linear16": "s16le",
    "linear32": "f32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
# Told by their content, whatever they are called.
_CONTAINED = ("flac", "opus", "ogg-opus", "amr-nb", "amr-wb", "speex")
_OFF = frozenset({"false", "0", "no", "off", "none", "null"})
_REFUSED = {
    "diarize": "there is no speaker diarization on this server",
    "diarize_model": "there is no speaker diarization on this server",
    "redact": "this server does not redact; the text would come back whole",
    "detect_entities": "this server does not detect entities",
    "summarize": "this server does not summarize",
    "sentiment": "this server has no sentiment analysis",
    "topics": "this server does not detect topics",
    "custom_topic": "this server does not detect topics",
    "intents": "this server does not detect intents",
    "custom_intent": "this server does not detect intents",
}
_NOTED = {
    "profanity_filter": "nothing was filtered",
    "numerals": "numbers are as the model wrote them",
    "measurements": "measurements are as the model wrote them",
    "dictation": "spoken punctuation is as the model wrote it",
    "filler_words": "filler words are there where the model wrote them",
    "language_hint": "the language was not biased",
}
_BOOSTED = re.compile(r"(?P<term>.*\S)\s*:\s*(?P<boost>[+-]?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Replacement:
    """find: words in lower case, at least one. by: words, none where it is to go."""

    find: tuple[str, ...]
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Writing:
    """How text is to be written. punctuated: as the model wrote it, else bare words."""

    punctuated: bool
    replacements: tuple[Replacement, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What one recording's request asks for, in our words."""

    model: str | None
    options: TranscribeOptions
    writing: Writing
    paragraphs: bool
    utterance_gap_s: float | None
    detect_language: bool
    search: tuple[str, ...]
    tags: tuple[str, ...]
    extra: dict[str, str]
    warnings: tuple[WarningOut, ...]


def listen_wish(query: ListenQuery, defaults: TranscribeOptions) -> Wish:
    """
    Raises:
        UnsupportedOption: something that exists at Deepgram and not here.
        InvalidRequest: what is not understood, or contradicts itself.
    """
    refuse_what_is_lacking(query)
    warnings = noted(query)
    detected = [one for one in query.detect_language if is_wished(one)]
    language = language_of(query.language)
    codes = {code_of(one) for one in detected if one.strip().lower() not in ("true", "1", "yes")}
    if detected:
        language = codes.pop() if len(codes) == 1 else None
        if codes:
            warnings.append(_note("detect_language", "the language was left open among all"))
    return Wish(
        model=query.model,
        options=replace(
            defaults,
            language=language,
            words=True,
            channels="split" if query.multichannel else "mix",
            keyterms=keyterms_of(query, warnings),
            raw=_raw_of(query),
        ),
        writing=writing_of(query, punctuated=query.paragraphs),
        paragraphs=query.paragraphs or query.smart_format,
        utterance_gap_s=query.utt_split if query.utterances else None,
        detect_language=bool(detected),
        search=tuple(query.search),
        tags=tuple(query.tag),
        extra=extra_of(query),
        warnings=tuple(warnings),
    )


def is_wished(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in _OFF
    if isinstance(value, list):
        return any(is_wished(one) for one in value)
    return bool(value)


def refuse_what_is_lacking(query: Query) -> None:
    for name, why in _REFUSED.items():
        if is_wished(getattr(query, name, None)):
            raise UnsupportedOption(f"{name}: {why}", field=name)


def noted(query: Query) -> list[WarningOut]:
    """One warning for each wish that is let pass and not done."""
    return [_note(name, why) for name, why in _NOTED.items() if is_wished(getattr(query, name))]


def _note(parameter: str, why: str) -> WarningOut:
    return WarningOut(parameter=parameter, type="unsupported_parameter", message=f"{parameter}: {why}")


def language_of(given: str | None) -> str | None:
    if given is None or given.strip().lower() == "multi":
        return None
    return code_of(given)


def keyterms_of(query: Query, warnings: list[WarningOut]) -> tuple[str, ...]:
    """Keyterms and keywords; a boost is not weighed, and what is to be heard less is left out."""
    terms = [term.strip() for term in query.keyterm]
    for keyword in query.keywords:
        boosted = _BOOSTED.fullmatch(keyword)
        if boosted is None:
            terms.append(keyword.strip())
        elif float(boosted["boost"]) > 0:
            terms.append(boosted["term"])
        else:
            warnings.append(_note("keywords", "words cannot be suppressed, only expected"))
    return tuple(dict.fromkeys(terms))


def writing_of(query: Query, *, punctuated: bool = False) -> Writing:
    return Writing(
        punctuated=query.punctuate or query.smart_format or punctuated,
        replacements=tuple(_replacements(query.replace)),
    )


def _replacements(given: Iterable[str]) -> Iterable[Replacement]:
    for one in given:
        find, colon, by = one.partition(":")
        words = tuple(find.lower().split())
        if not colon or not words:
            raise InvalidRequest("replace is written find:replacement", field="replace")
        yield Replacement(words, tuple(by.split()))


def extra_of(query: Query) -> dict[str, str]:
    pairs = [one.partition(":") for one in query.extra]
    return {key.strip(): value for key, _, value in pairs}


def wanted_encoding(query: Query, others: tuple[str, ...]) -> str | None:
    """None where none was named.

    Args:
        others: those taken besides headerless audio.

    Raises:
        UnsupportedOption
    """
    if query.encoding is None:
        return None
    encoding = query.encoding.strip().lower()
    known = (*RAW, *others)
    if encoding not in known:
        raise UnsupportedOption(
            f"encoding {encoding!r} is not one of: {', '.join(known)}", field="encoding", choices=known
        )
    return encoding


def raw_format(encoding: str, query: Query) -> RawFormat:
    """
    Raises:
        InvalidRequest: no rate is named, or one that cannot be.
    """
    if query.sample_rate is None:
        raise InvalidRequest(f"encoding={encoding} needs a sample_rate", field="sample_rate")
    channels = 1 if query.channels is None else query.channels
    return RawFormat(RAW[encoding], query.sample_rate, channels)


def _raw_of(query: Query) -> RawFormat | None:
    encoding = wanted_encoding(query, _CONTAINED)
    return raw_format(encoding, query) if encoding in RAW else None
