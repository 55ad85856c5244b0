"""Transcript → text of a file: txt, json, verbose_json, srt, vtt, tsv.

A new format is one module here, a row in `FORMATS` and a golden file. Times are rounded in this room
and nowhere before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from voiceforge.errors import UnsupportedOption
from voiceforge.speech.formats.format import Format, RenderOptions
from voiceforge.speech.formats.json import native_document, render_json
from voiceforge.speech.formats.srt import render_srt
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.formats.tsv import render_tsv
from voiceforge.speech.formats.txt import render_txt
from voiceforge.speech.formats.verbose_json import render_verbose_json, verbose_document
from voiceforge.speech.formats.vtt import render_vtt
from voiceforge.speech.transcript import Transcript

__all__ = [
    "FORMATS",
    "Format",
    "RenderOptions",
    "SubtitleOptions",
    "native_document",
    "render",
    "verbose_document",
]

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Format("txt", "text/plain", "txt", render_txt),
            Format("json", "application/json", "json", render_json),
            Format("verbose_json", "application/json", "json", render_verbose_json),
            Format("srt", "application/x-subrip", "srt", render_srt),
            Format("vtt", "text/vtt", "vtt", render_vtt),
            Format("tsv", "text/tab-separated-values", "tsv", render_tsv),
        )
    }
)

_DEFAULT_SUBTITLES = SubtitleOptions()


def render(
    transcript: Transcript, fmt: str, *, words: bool = False, subtitles: SubtitleOptions = _DEFAULT_SUBTITLES
) -> str:
    """The transcript in the named format.

    Raises:
        UnsupportedOption: there is no such format; names those that exist.
    """
    if fmt not in FORMATS:
        raise UnsupportedOption(f"unknown format {fmt!r}", field="format", choices=tuple(FORMATS))
    return FORMATS[fmt].render(transcript, RenderOptions(words=words, subtitles=subtitles))
