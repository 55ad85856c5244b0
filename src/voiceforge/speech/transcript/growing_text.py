"""The text of a turn as protocols want it that can only append: what was given out is never taken back."""

from __future__ import annotations

from collections.abc import Sequence

from voiceforge.speech.transcript.stream_events import Final, Interim
from voiceforge.speech.transcript.types import Word


class GrowingText:
    """Takes the interims and finals of one channel in order, and owns what they come to.

    `text` is always what the returned pieces are together, whatever the recogniser does.
    """

    def __init__(self) -> None:
        self._finals = ""
        self._shown = ""  # of the utterance that has no final yet

    @property
    def text(self) -> str:
        return _joined(self._finals, self._shown)

    def heard(self, interim: Interim) -> str:
        """What has become certain; often nothing."""
        certain = _first_words(interim.text.strip(), interim.words[: interim.stable])
        return self._grow(certain) if certain.startswith(self._shown) else ""

    def settled(self, final: Final) -> str:
        """What of a final has not been given out."""
        text = final.text.strip()
        if not text.startswith(self._shown):  # no recogniser should; what was shown stands
            rest = text.split()[len(self._shown.split()) :]
            text = " ".join((self._shown, *rest))
        grown = self._grow(text)
        self._finals, self._shown = self.text, ""
        return grown

    def _grow(self, shown: str) -> str:
        before = self.text
        self._shown = shown
        return self.text[len(before) :]


def _joined(first: str, second: str) -> str:
    return f"{first} {second}" if first and second else first or second


def _first_words(text: str, words: Sequence[Word]) -> str:
    """The beginning of `text` up to the last of `words`; shorter where they are not what it begins with."""
    end = 0
    for word in words:
        at = text.find(word.text, end)
        if at < 0 or text[end:at].strip():
            break
        end = at + len(word.text)
    return text[:end]
