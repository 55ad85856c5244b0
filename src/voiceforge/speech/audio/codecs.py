"""Which of the formats we promise this build of libav and libsndfile can really decode."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Format → decoders, any of which will do (names of libav).
_PROMISED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "wav": ("pcm_s16le",),
        "mp3": ("mp3float", "mp3"),
        "ogg": ("vorbis", "libvorbis"),
        "opus": ("opus", "libopus"),
        "flac": ("flac",),
        "m4a/aac": ("aac",),
        "alac": ("alac",),
        "amr": ("amrnb", "libopencore_amrnb"),
        "mu-law": ("pcm_mulaw",),
        "a-law": ("pcm_alaw",),
        "wma": ("wmav2",),
        "ac3": ("ac3", "ac3_fixed"),
    }
)


def decodable_formats() -> tuple[list[str], list[str]]:
    """The promised formats that can be decoded, and those that cannot.

    Raises:
        ImportError: a decoder library is missing or does not load.
    """
    import av
    import soundfile  # noqa: F401  (whether it loads is the question)
    import soxr  # noqa: F401

    present = [name for name, decoders in _PROMISED.items() if av.codecs_available.intersection(decoders)]
    return present, [name for name in _PROMISED if name not in present]
