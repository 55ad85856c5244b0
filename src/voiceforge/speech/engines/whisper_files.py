"""What the files of a CTranslate2 Whisper model say it can do, without loading it.

Their own account, as the engine would read it: a fine-tuned model may do less well what it names.
"""

from __future__ import annotations

import re
from pathlib import Path

from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.engines.catalog import ENGLISH, WHISPER_V3_LANGUAGES, whisper_capabilities
from voiceforge.speech.engines.whisper_ct2 import TO_ISO, has_alignment_heads

# The files are megabytes of JSON, of which this is all that is needed.
_LANGUAGE_TOKEN = re.compile(rb'"<\|([a-z]{2,3})\|>"')
# By a token without letters CTranslate2 knows a multilingual Whisper. A quote inside a token is escaped, so
# two in a row, with nothing but a comma before, are that token.
_EMPTY_TOKEN = re.compile(rb'[\[,]\s*""\s*[,\]]')


def capabilities_of(folder: Path) -> Capabilities | None:
    """None where the files cannot be read or are of another kind."""
    try:
        tokenizer = (folder / "tokenizer.json").read_bytes()
        several = _is_multilingual(folder)
    except OSError:
        return None
    codes = {code.decode() for code in _LANGUAGE_TOKEN.findall(tokenizer)}
    named = frozenset(TO_ISO.get(code, code) for code in codes) & WHISPER_V3_LANGUAGES
    if several and not named:
        return None
    return whisper_capabilities(
        named if several else ENGLISH, translates=several, word_times=has_alignment_heads(folder)
    )


def _is_multilingual(folder: Path) -> bool:
    try:
        return _EMPTY_TOKEN.search((folder / "vocabulary.json").read_bytes()) is not None
    except FileNotFoundError:
        return b"" in (folder / "vocabulary.txt").read_bytes().rstrip(b"\n").split(b"\n")
