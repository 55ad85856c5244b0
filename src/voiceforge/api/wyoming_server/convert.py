"""Wyoming's events as our values, and our models as its `info`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voiceforge.api.http.languages import code_of
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.access import Caller
from voiceforge.services.models import ModelInfo
from voiceforge.services.streams import StreamRequest
from voiceforge.speech.options import RawFormat, StreamOptions

PROGRAM = "voiceforge"
_MOST_TERMS = 1000
_DOOR = "wyoming"


@dataclass(frozen=True, slots=True)
class AudioShape:
    """As audio-start and every audio-chunk tell it. width: bytes of one sample."""

    rate_hz: int
    width: int
    channels: int

    @staticmethod
    def of(data: Mapping[str, Any]) -> AudioShape:
        """
        Raises:
            InvalidRequest: a number is missing, or is none.
            UnsupportedOption: samples of a width there is not.
        """
        shape = AudioShape(*(_number(data, name) for name in ("rate", "width", "channels")))
        if not 1 <= shape.width <= 4:
            raise UnsupportedOption(
                f"samples of {shape.width} bytes; 1 to 4 are accepted",
                field="width",
                choices=("1", "2", "3", "4"),
            )
        shape.raw()
        return shape

    def raw(self) -> RawFormat:
        """What `samples` makes of the payload."""
        return RawFormat("s32le" if self.width == 4 else "s16le", self.rate_hz, self.channels)


class Samples:
    """Makes of payloads what streams read: signed samples of 16 or 32 bits, as Wyoming's own converter
    understands the other widths. Payloads may end inside a sample."""

    def __init__(self, shape: AudioShape) -> None:
        self._width = shape.width
        self._rest = b""

    def of(self, payload: bytes) -> bytes:
        if self._width in (2, 4):
            return payload
        data = self._rest + payload
        whole = len(data) - len(data) % self._width
        self._rest = data[whole:]
        made = bytearray(whole // self._width * 2)
        made[1::2] = data[self._width - 1 : whole : self._width]
        if self._width == 3:
            made[0::2] = data[1:whole:3]
        return bytes(made)


@dataclass(frozen=True, slots=True)
class Wish:
    """What `transcribe` asks for."""

    model: str | None = None
    language: str | None = None
    keyterms: tuple[str, ...] = ()

    @staticmethod
    def of(data: Mapping[str, Any]) -> Wish:
        """
        Raises:
            InvalidRequest: a field has another type than the protocol's.
        """
        return Wish(
            model=_text(data, "name"),
            language=_language(_text(data, "language")),
            # Names rank over terms, where a model takes only so many.
            keyterms=tuple(
                dict.fromkeys(_texts(data, "transcript_names") + _texts(data, "transcript_terms"))
            ),
        )

    def request(self, shape: AudioShape, caller: Caller) -> StreamRequest:
        # The client says when a command is over, and short ones are understood best as a whole.
        options = StreamOptions(
            language=self.language, keyterms=self.keyterms, words=False, endpointing_ms=None
        )
        return StreamRequest(options, shape.raw(), self.model, caller, door=_DOOR)


def info(models: Iterable[ModelInfo], default: str | None, version: str) -> dict[str, Any]:
    """The reply to `describe`: one program, with the default model first."""
    ordered = sorted(models, key=lambda model: model.id != default)
    program = {
        "name": PROGRAM,
        "description": "Speech to text on your own machine",
        "attribution": {"name": "VoiceForge", "url": ""},
        "installed": True,
        "version": version,
        "models": [
            {
                "name": model.id,
                "description": model.title,
                "attribution": {"name": model.family, "url": ""},
                "installed": model.installed,
                "version": model.revision,
                "languages": list(model.languages),
            }
            for model in ordered
        ],
        "supports_transcript_streaming": True,
        "requires_external_vad": True,
        "prefers_auto_gain_enabled": False,
        "prefers_noise_reduction_enabled": False,
    }
    return {
        "asr": [program],
        **{domain: [] for domain in ("tts", "handle", "intent", "wake", "mic", "snd")},
    }


def _number(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name} is missing or no number", field=name)
    return value


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name} is no text", field=name)
    return value or None


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidRequest(f"{name} is no list of texts", field=name)
    return [text for one in value[:_MOST_TERMS] if (text := one.strip())]


def _language(written: str | None) -> str | None:
    """Home Assistant writes tags such as `en-US`; models know `en`."""
    return code_of(written) if written and written.lower() != "auto" else None
