"""First bytes → which decoder to try first, and words for what was sent instead of audio.

Looks at content only; a file's name never enters. Not a validator: the decoders decide what is audio.
"""

from __future__ import annotations

import re
import struct

SNIFF_BYTES = 4096

_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"MThd", "a MIDI file, which holds notes and no sound"),
    (b"SQLite format 3", "a database"),
    (b"Salted__", "encrypted data"),
    (b"age-encryption.org", "encrypted data"),
    (b"-----BEGIN PGP MESSAGE", "encrypted data"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC file"),
    (b"ID3", "an ID3 tag"),
    (b"FORM", "an AIFF file"),
    (b"#!AMR", "an AMR file"),
    (b"#EXTM3U", "a playlist"),
)

_TEXT = re.compile(rb"[\x09\x0a\x0c\x0d\x20-\x7e]*")
_PLAYLIST = re.compile(rb"\s*(#EXTM3U|ffconcat version|\[playlist\]|v=0\r?\n|<\?xml[^>]*>\s*<MPD|<MPD)")
_ZIP_ENCRYPTED = 0x1


def is_pcm_or_flac(head: bytes) -> bool:
    """WAV, AIFF or FLAC: what libsndfile reads faster than libav and just as completely."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    return head[:4] == b"fLaC"


def may_be_mp3(head: bytes) -> bool:
    """An ID3 tag (others carry those too) or an MPEG audio frame of layer III."""
    return head[:3] == b"ID3" or _is_mpeg_layer_3(head)


def looks_like_text(head: bytes) -> bool:
    """True for printable text in ASCII or UTF-8, or UTF-16 with its mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return not _is_mpeg_layer_3(head)
    if head.startswith(b"#!AMR"):
        return False
    if _TEXT.fullmatch(head):
        return True
    if b"\x00" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # anything but a character cut in two by the end of `head`
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char.isspace() for char in text)


def describe(head: bytes) -> str:
    """What the file seems to be, as the object of "it looks like …"; for error messages."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _describe_wav(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[:4] == b"PK\x03\x04":
        encrypted = len(head) > 6 and head[6] & _ZIP_ENCRYPTED
        return "an encrypted ZIP archive" if encrypted else "a ZIP archive"
    if head[4:8] == b"ftyp":
        return "an MP4 file whose index is missing or damaged, perhaps cut off"
    if _PLAYLIST.match(head):
        return "a playlist; send the audio itself"
    for magic, name in _NOT_AUDIO:
        if head.startswith(magic):
            return name
    if looks_like_text(head):
        if head.lstrip()[:1] == b"<":
            return "a web page or other markup"
        return "text"
    if not head.strip(b"\x00"):
        return "nothing but zero bytes"
    return "data of no audio format we know"


def _describe_wav(head: bytes) -> str:
    if head[12:16] != b"fmt " or len(head) < 28:
        return "a WAV file cut off or damaged in its header"
    encoding, channels, rate_hz = struct.unpack_from("<HHI", head, 20)
    return (
        f"a WAV file (encoding {encoding:#06x}, {channels} channels, {rate_hz} Hz) without usable sound data"
    )


def _is_mpeg_layer_3(head: bytes) -> bool:
    """An MPEG audio frame header of layer III with no reserved field in it."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    version_reserved = head[1] & 0x18 == 0x08
    return not version_reserved and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C
