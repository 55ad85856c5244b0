"""From our request options to `TranscribeOptions`, and from `Accept` to a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from voiceforge.api.native.schemas import Options
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.speech.options import RawFormat, TranscribeOptions

_DEFAULT_FORMAT = "json"
_FORMAT_OF: Mapping[str, str] = {
    "application/json": "json",
    "text/plain": "txt",
    "text/vtt": "vtt",
    "application/x-subrip": "srt",
    "text/tab-separated-values": "tsv",
    "application/*": "json",
    "text/*": "txt",
    "*/*": _DEFAULT_FORMAT,
}


def transcribe_options(given: Options, defaults: TranscribeOptions) -> TranscribeOptions:
    wishes = {
        "threshold": given.vad_threshold,
        "min_speech_ms": given.min_speech_ms,
        "min_silence_ms": given.min_silence_ms,
        "padding_ms": given.padding_ms,
    }
    vad = {name: value for name, value in wishes.items() if value is not None}
    return replace(
        defaults,
        language=given.language.strip().lower() if given.language else defaults.language,
        task=given.task,
        words=given.words,
        channels=given.channels,
        prompt=given.prompt,
        keyterms=tuple(given.keyterm),
        temperature=given.temperature,
        beam_size=given.beam_size,
        raw=_raw_format(given),
        vad=replace(defaults.vad, **vad) if vad else defaults.vad,  # type: ignore[arg-type]
    )


def _raw_format(given: Options) -> RawFormat | None:
    if given.encoding is None:
        for name in ("sample_rate", "input_channels"):
            if getattr(given, name) is not None:
                raise InvalidRequest(f"{name} describes headerless PCM and needs encoding", field=name)
        return None
    return RawFormat(given.encoding, given.sample_rate or 16_000, given.input_channels or 1)


def wanted_format(given: str | None, accept: str | None) -> str:
    """The one that is `given`, else the best of the `Accept` header that we have.

    Raises:
        UnsupportedOption: `Accept` names only types we do not have.
    """
    if given is not None:
        return given
    ranked = _by_preference(accept or "*/*")
    for media_type in ranked:
        if media_type in _FORMAT_OF:
            return _FORMAT_OF[media_type]
    choices = tuple(name for name in _FORMAT_OF if "*" not in name)
    raise UnsupportedOption(
        f"Accept names nothing this server gives; it has {', '.join(choices)}",
        field="Accept",
        choices=choices,
    )


def _by_preference(accept: str) -> list[str]:
    """Media types of an `Accept` header, best first; what has q=0 is left out."""
    weighted: list[tuple[float, str]] = []
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0:
            weighted.append((quality, media_type))
    return [media_type for _, media_type in sorted(weighted, key=lambda pair: -pair[0])]
