"""From the query of a live stream to a request for one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from voiceforge.api.deepgram_compat.errors import DeepgramErrors
from voiceforge.api.deepgram_compat.schemas import LiveQuery, WarningOut
from voiceforge.api.deepgram_compat.wishes import (
    RAW,
    Writing,
    extra_of,
    is_wished,
    keyterms_of,
    language_of,
    noted,
    raw_format,
    refuse_what_is_lacking,
    wanted_encoding,
    writing_of,
)
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.streams import StreamRequest
from voiceforge.speech.options import Codec, EncodedFormat, RawFormat, StreamOptions

IDLE_S = 10.0
"""Without audio and without `KeepAlive` a stream ends after so long, as at Deepgram."""
_ENCODED: dict[str, Codec] = {"flac": "flac", "ogg-opus": "ogg-opus", "opus": "opus"}
_SHORTEST_ENDPOINTING_MS = 100
"""Clients ask for 10 or 25 ms, which at Deepgram is no plain silence. Here it is one, and people pause
for longer within words."""


@dataclass(frozen=True, slots=True)
class LiveWish:
    request: StreamRequest
    writing: Writing
    vad_events: bool
    multilingual: bool
    tags: tuple[str, ...]
    extra: dict[str, str]
    warnings: tuple[WarningOut, ...]


def live_wish(query: LiveQuery, defaults: StreamOptions) -> LiveWish:
    """
    Raises:
        UnsupportedOption: something that exists at Deepgram and not here.
        InvalidRequest: what is not understood, or contradicts itself.
    """
    refuse_what_is_lacking(query)
    for name in ("callback", "search"):
        if is_wished(getattr(query, name)):
            raise UnsupportedOption(f"{name}: not for live streams on this server", field=name)
    warnings = noted(query)
    options = replace(
        defaults,
        language=language_of(query.language),
        words=True,
        keyterms=keyterms_of(query, warnings),
        interim=query.interim_results,
        endpointing_ms=_endpointing_ms(query.endpointing, defaults.endpointing_ms),
        utterance_end_ms=query.utterance_end_ms,
    )
    return LiveWish(
        request=StreamRequest(
            options=options,
            audio=_audio_of(query),
            model=query.model,
            channels="split" if query.multichannel else "mix",
            idle_s=IDLE_S,
            door=DeepgramErrors.name,
        ),
        writing=writing_of(query),
        vad_events=query.vad_events,
        multilingual=(query.language or "").strip().lower() == "multi",
        tags=tuple(query.tag),
        extra=extra_of(query),
        warnings=tuple(warnings),
    )


def _endpointing_ms(given: str | None, default_ms: int | None) -> int | None:
    written = None if given is None else given.strip().lower()
    if written is None or written == "true":
        return default_ms
    if not is_wished(written):
        return None
    try:
        wanted_ms = int(written)
    except ValueError:
        raise InvalidRequest(
            "endpointing is a number of milliseconds, or false", field="endpointing"
        ) from None
    return max(wanted_ms, _SHORTEST_ENDPOINTING_MS)


def _audio_of(query: LiveQuery) -> RawFormat | EncodedFormat | None:
    encoding = wanted_encoding(query, tuple(_ENCODED))
    if encoding is None:
        return None
    if encoding in RAW:
        return raw_format(encoding, query)
    return EncodedFormat(_ENCODED[encoding], 1 if query.channels is None else query.channels)
