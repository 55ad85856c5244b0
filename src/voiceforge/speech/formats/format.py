"""What a format is: a name, how its output is labelled, and a pure function of the transcript."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.transcript import Transcript


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """words: the caller asked for word times (verbose_json shows them only then)."""

    words: bool = False
    subtitles: SubtitleOptions = field(default_factory=SubtitleOptions)


@dataclass(frozen=True, slots=True)
class Format:
    """One way out. `extension` has no dot; the text that `render` returns is to be written as UTF-8."""

    name: str
    media_type: str
    extension: str
    render: Callable[[Transcript, RenderOptions], str]
