"""Languages as callers write them (`english`, `en-US`, `EN`) to the codes the engines know."""

from __future__ import annotations

import re

from voiceforge.speech.transcript.languages import LANGUAGE_NAMES

# What openai/whisper's tokenizer.py accepts besides its own names.
_OTHER_NAMES = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
}
_CODES = {name: code for code, name in LANGUAGE_NAMES.items()} | _OTHER_NAMES
_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})*")


def code_of(written: str) -> str:
    """The code; what is neither a name nor a tag comes back in lower case, for the model to refuse."""
    known = written.strip().lower()
    if known in _CODES:
        return _CODES[known]
    tag = _TAG.fullmatch(known)
    return tag[1] if tag else known
