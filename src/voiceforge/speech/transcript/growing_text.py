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
        self._text = ""
        self._shown = ""
        """What was given out of the utterance that has no final yet."""

    @property
    def text(self) -> str:
        return self._text

    def heard(self, interim: Interim) -> str:
        """What has become certain; often nothing."""
        certain = _first_words(interim.text.strip(), interim.words[: interim.stable])
        if not certain.startswith(self._shown):
            return ""
        grown = self._give_out(certain[len(self._shown) :])
        self._shown = certain
        return grown

    def settled(self, final: Final) -> str:
        """What of a final has not been given out."""
        text = final.text.strip()
        if text.startswith(self._shown):
            rest, behind = text[len(self._shown) :], ""
        elif final.reason == "max_length":
            # Some of the certain words lie behind the cut: the next utterance begins with them.
            rest, behind = _behind_each(self._shown, text)
        else:  # no recogniser should; what was given out stands
            rest, behind = _joined(text.split()[len(self._shown.split()) :]), ""
        grown = self._give_out(rest)
        self._shown = behind
        return grown

    def _give_out(self, piece: str) -> str:
        """A piece of an utterance of which something was given out brings its own space."""
        if piece and self._text and not self._shown:
            piece = f" {piece.lstrip()}"
        self._text += piece
        return piece


def _behind_each(shown: str, text: str) -> tuple[str, str]:
    """What `text` has, and what `shown` has, behind the words they both begin with."""
    if shown.startswith(text):
        return "", shown[len(text) :].lstrip()
    words, given = text.split(), shown.split()
    same = 0
    while same < min(len(words), len(given)) and words[same] == given[same]:
        same += 1
    return _joined(words[same:]), " ".join(given[same:])


def _joined(words: Sequence[str]) -> str:
    return "".join(f" {word}" for word in words)


def _first_words(text: str, words: Sequence[Word]) -> str:
    """The beginning of `text` up to the last of `words`; shorter where they are not what it begins with."""
    end = 0
    for word in words:
        at = text.find(word.text, end)
        if at < 0 or text[end:at].strip():
            break
        end = at + len(word.text)
    return text[:end]
