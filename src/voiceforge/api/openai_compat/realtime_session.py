"""What a realtime session is set to: the fields of clients, merged, as options of a stream, and said back.

On the wire there are two dialects: `ga` of today's clients, and `beta` of those from before. They differ in
where things stand and in the names of the formats; here they are one `Session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voiceforge.api.http.languages import code_of
from voiceforge.errors import InvalidRequest
from voiceforge.speech.options import RawFormat, StreamOptions

Dialect = Literal["ga", "beta"]
Eagerness = Literal["low", "medium", "high", "auto"]
Delay = Literal["minimal", "low", "medium", "high", "xhigh"]
Include = Literal["item.input_audio_transcription.logprobs"]

LOGPROBS: Include = "item.input_audio_transcription.logprobs"
# No model here tells from the words whether a turn is over: eagerness is how long a silence is borne.
_EAGERNESS_MS: Mapping[Eagerness, int] = {"low": 1200, "medium": 800, "auto": 800, "high": 400}
_DELAY_MS: Mapping[Delay, int] = {"minimal": 200, "low": 300, "medium": 500, "high": 1000, "xhigh": 1000}
_BETA_FORMATS: Mapping[str, Mapping[str, object]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_BETA_NAMES = {"format": "input_audio_format", "transcription": "input_audio_transcription"}
_WHERE: Mapping[Dialect, Mapping[str, str]] = {
    "ga": {
        "format": "session.audio.input.format",
        "transcription": "session.audio.input.transcription",
        "turn_detection": "session.audio.input.turn_detection",
        "include": "session.include",
    },
    "beta": {
        "format": "session.input_audio_format",
        "transcription": "session.input_audio_transcription",
        "turn_detection": "session.turn_detection",
        "include": "session.include",
    },
}
_TAGS = frozenset({"server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "audio/pcma"})


class InvalidField(InvalidRequest):
    """A field of an event or a session is wrong; `field` is where it stands."""

    code = "invalid_value"


class MissingField(InvalidField):
    code = "missing_required_parameter"


class _Fields(BaseModel):
    """Unknown fields are ignored: a session for conversations has many that are none of ours."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class PcmFormat(_Fields):
    """16-bit little-endian, mono. OpenAI knows 24 kHz only."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: int = Field(default=24_000, ge=8_000, le=48_000)


class MulawFormat(_Fields):
    type: Literal["audio/pcmu"]


class AlawFormat(_Fields):
    type: Literal["audio/pcma"]


class ServerVad(_Fields):
    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=10_000)
    silence_duration_ms: int = Field(default=500, ge=0, le=10_000)


class SemanticVad(_Fields):
    type: Literal["semantic_vad"]
    eagerness: Eagerness = "auto"


_Language = Annotated[str, Field(max_length=40)]
_Keyword = Annotated[str, Field(max_length=200)]


class Transcription(_Fields):
    model: str | None = Field(default=None, max_length=200)
    language: _Language | None = None
    languages: tuple[_Language, ...] | None = Field(default=None, max_length=100)
    prompt: str | None = Field(default=None, max_length=10_000)
    keywords: tuple[_Keyword, ...] | None = Field(default=None, max_length=1000)
    delay: Delay | None = None


class Session(_Fields):
    """The settings in force. `turn_detection` None: only commits end a turn."""

    format: Annotated[PcmFormat | MulawFormat | AlawFormat, Field(discriminator="type")] = PcmFormat()
    transcription: Transcription = Transcription()
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = ServerVad()
    include: tuple[Include, ...] = ()

    @property
    def audio(self) -> RawFormat:
        match self.format:
            case PcmFormat(rate=rate):
                return RawFormat("s16le", rate)
            case MulawFormat():
                return RawFormat("mulaw", 8_000)
            case _:
                return RawFormat("alaw", 8_000)

    @property
    def bytes_per_s(self) -> int:
        return self.format.rate * 2 if isinstance(self.format, PcmFormat) else 8_000

    def options(self) -> StreamOptions:
        """
        Raises:
            InvalidRequest: a value that no stream can have.
        """
        wish = self.transcription
        match self.turn_detection:
            case None:
                endpointing_ms, threshold = None, 0.5
            case ServerVad(silence_duration_ms=silence_ms, threshold=asked):
                # The ends of OpenAI's scales mean "at once" and "everything": as near as we come to them.
                endpointing_ms, threshold = max(10, silence_ms), min(max(asked, 0.01), 0.99)
            case SemanticVad(eagerness=eagerness):
                endpointing_ms, threshold = _EAGERNESS_MS[eagerness], 0.5
        return StreamOptions(
            language=_one_language(wish),
            prompt=wish.prompt or None,
            keyterms=wish.keywords or (),
            interim=wish.delay != "xhigh",
            interim_every_ms=_DELAY_MS[wish.delay or "medium"],
            endpointing_ms=endpointing_ms,
            vad_threshold=threshold,
        )

    def changed(self, update: Mapping[str, Any], dialect: Dialect) -> Session:
        """What `update`, the `session` of an event, makes of it: absent fields stay, null ones fall back.

        Raises:
            InvalidField: with the place in `field`, as the dialect names it.
        """
        document = self.model_dump()
        for name, value in _found(update, dialect).items():
            document[name] = _merged(document[name], value)
            if document[name] is None and name != "turn_detection":
                del document[name]
        try:
            return Session.model_validate(document)
        except ValidationError as error:
            raise _complaint(error, dialect) from None

    def document(self, dialect: Dialect, *, session_id: str, model: str) -> dict[str, Any]:
        """As `session.created`, `session.updated` and the replies of the POST routes carry it.

        Args:
            model: what an unnamed model turned out to be.
        """
        frame = {"id": session_id, "object": "realtime.transcription_session"}
        wish = self.transcription.model_dump(mode="json", exclude_none=True)
        wish["model"] = self.transcription.model or model
        turns = self.turn_detection.model_dump(mode="json") if self.turn_detection else None
        include = list(self.include) or None
        if dialect == "ga":
            heard = {
                "format": self.format.model_dump(mode="json"),
                "noise_reduction": None,
                "transcription": wish,
                "turn_detection": turns,
            }
            return {**frame, "type": "transcription", "audio": {"input": heard}, "include": include}
        return {
            **frame,
            "modalities": ["text", "audio"],
            "input_audio_format": _beta_format(self.format.type),
            "input_audio_noise_reduction": None,
            "input_audio_transcription": wish,
            "turn_detection": turns,
            "include": include,
        }


def _one_language(wish: Transcription) -> str | None:
    if wish.language:
        return code_of(wish.language)
    codes = set(map(code_of, wish.languages or ()))
    return codes.pop() if len(codes) == 1 else None


def _beta_format(kind: str) -> str:
    return next(name for name, meant in _BETA_FORMATS.items() if meant["type"] == kind)


def dialect_of(update: Mapping[str, Any]) -> Dialect | None:
    """What a `session` gives away of who wrote it; None where it says nothing either way."""
    if "audio" in update or "type" in update:
        return "ga"
    flat = any(name == "turn_detection" or name.startswith("input_audio_") for name in update)
    return "beta" if flat else None


def _found(update: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The fields that are ours, by the names of `Session`."""
    found = {"include": update["include"]} if "include" in update else {}
    if dialect == "beta":
        named = {"turn_detection": "turn_detection", **_BETA_NAMES}
        found |= {name: update[theirs] for name, theirs in named.items() if theirs in update}
        if isinstance(found.get("format"), str):
            if found["format"] not in _BETA_FORMATS:
                raise InvalidField(
                    f"Invalid value: supported are {', '.join(_BETA_FORMATS)}.",
                    field=_WHERE["beta"]["format"],
                )
            found["format"] = _BETA_FORMATS[found["format"]]
        return found
    audio = _table(update.get("audio"), "session.audio")
    heard = _table(audio.get("input"), "session.audio.input")
    return found | {n: heard[n] for n in ("format", "transcription", "turn_detection") if n in heard}


def _table(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidField(f"Invalid type for {where!r}: expected an object.", field=where)
    return value


def _merged(old: object, new: object) -> object:
    if not isinstance(new, Mapping):
        return new
    kept: dict[str, Any] = {}
    if isinstance(old, dict) and new.get("type") in (None, old.get("type")):
        kept = dict(old)
    return {name: value for name, value in {**kept, **new}.items() if value is not None}


def _complaint(error: ValidationError, dialect: Dialect) -> InvalidField:
    first = error.errors(include_url=False, include_input=False)[0]
    name, *rest = (str(part) for part in first["loc"])
    where = ".".join((_WHERE[dialect][name], *(part for part in rest if part not in _TAGS)))
    kind = MissingField if first["type"] in ("missing", "union_tag_not_found") else InvalidField
    return kind(f"Invalid {where!r}: {first['msg']}.", field=where)
