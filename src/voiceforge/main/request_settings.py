"""Settings → what surfaces need to know: the options a request starts from, and the HTTP side's own."""

from __future__ import annotations

from pathlib import Path

from voiceforge.main.settings import Settings
from voiceforge.speech.options import AudioLimits, TranscribeOptions, VadOptions


def transcribe_defaults(settings: Settings) -> TranscribeOptions:
    audio, vad = settings.audio, settings.vad
    return TranscribeOptions(
        normalize_peak=audio.normalize_peak,
        limits=AudioLimits(audio.min_duration_s, audio.max_duration_s),
        vad=VadOptions(
            threshold=vad.threshold,
            min_speech_ms=vad.min_speech_ms,
            min_silence_ms=vad.min_silence_ms,
            padding_ms=vad.padding_ms,
        ),
    )


def temp_dir(settings: Settings) -> Path:
    """Uploads, downloads and spooled input lie here while they are worked on; on the disk of the data,
    since a system's temporary folder is often memory."""
    return settings.data_dir / "tmp"
