"""Text of a recogniser → the same words without commas that it wrote twice.

Recognisers that write punctuation repeat a token now and then ("In short,, the period"). Commas and
semicolons only: full stops in a row may be an ellipsis, question and exclamation marks an emphasis,
colons a name.
"""

from __future__ import annotations

import re

_DOUBLED = re.compile(r"([,;，、；،؛])\1+")


def without_doubled_commas(text: str) -> str:
    """Never changes a letter, a space or how many words there are."""
    return _DOUBLED.sub(r"\1", text)
