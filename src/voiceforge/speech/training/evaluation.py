"""Reference and hypothesis → counted errors, after a named normaliser has made both comparable.

jiwer and whisper_normalizer come with `voiceforge[bench]` and are loaded when a Scorer is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voiceforge.errors import DependencyMissing, UnsupportedOption

Normalise = Callable[[str], str]

NORMALISERS = ("whisper", "whisper-english", "whisper-basic", "none")
"""whisper: whisper-english for English, whisper-basic for the rest. whisper-english also writes numbers,
contractions and British spellings one way. none: compares what is written, case and commas included."""

# openai/whisper's paper, section 4.4: languages without spaces are scored character by character.
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue", "km", "bo"})


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edits that turn a reference into a hypothesis; `reference` is its length. Counts add up."""

    reference: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per reference unit; above 1 is possible. None where there is no reference."""
        return self.errors / self.reference if self.reference else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.reference + other.reference,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """words gives the WER, characters the CER. Against an empty reference every word is an insertion."""

    words: ErrorCounts = ErrorCounts()
    characters: ErrorCounts = ErrorCounts()

    def __add__(self, other: Score) -> Score:
        return Score(self.words + other.words, self.characters + other.characters)


class Scorer:
    """Counts errors with one of `NORMALISERS`.

    Raises:
        UnsupportedOption: there is no such normaliser.
        DependencyMissing: `voiceforge[bench]` is not installed.
    """

    def __init__(self, normaliser: str = "whisper") -> None:
        if normaliser not in NORMALISERS:
            raise UnsupportedOption(
                f"unknown normaliser {normaliser!r}", field="normaliser", choices=NORMALISERS
            )
        self._normaliser = normaliser
        try:
            import jiwer
            from whisper_normalizer.basic import BasicTextNormalizer
            from whisper_normalizer.english import EnglishTextNormalizer
        except ImportError as error:
            raise DependencyMissing(
                "scoring needs jiwer and whisper-normalizer: pip install 'voiceforge[bench]'"
            ) from error
        self._jiwer: Any = jiwer
        self._english: Normalise = EnglishTextNormalizer()
        self._basic: Normalise = BasicTextNormalizer()
        self._by_letter: Normalise = BasicTextNormalizer(split_letters=True)

    def normalise(self, text: str, language: str | None) -> str:
        """The text as it is compared; words separated by single spaces."""
        return " ".join(self._rule(language)(text).split())

    def score(self, reference: str, hypothesis: str, language: str | None) -> Score:
        """Args:
        language: of the reference; `en+es` counts as its first.
        """
        wanted, heard = self.normalise(reference, language), self.normalise(hypothesis, language)
        words = self._count(wanted.split(), heard.split())
        if _base_language(language) in _WITHOUT_SPACES:
            wanted, heard = wanted.replace(" ", ""), heard.replace(" ", "")
        return Score(words, self._count(list(wanted), list(heard)))

    def _rule(self, language: str | None) -> Normalise:
        base = _base_language(language)
        if self._normaliser == "none":
            return str
        # Silence has no language: what an engine invents there is counted the English way.
        if self._normaliser == "whisper-english" or (self._normaliser == "whisper" and base in (None, "en")):
            return self._english
        return self._by_letter if base in _WITHOUT_SPACES else self._basic

    def _count(self, wanted: list[str], heard: list[str]) -> ErrorCounts:
        # jiwer refuses empty references.
        if not wanted or not heard:
            return ErrorCounts(reference=len(wanted), deletions=len(wanted), insertions=len(heard))
        verbatim = self._jiwer.Compose([])
        found = self._jiwer.process_words(
            [wanted], [heard], reference_transform=verbatim, hypothesis_transform=verbatim
        )
        return ErrorCounts(len(wanted), found.substitutions, found.deletions, found.insertions)


def _base_language(language: str | None) -> str | None:
    return language.lower().split("+")[0].split("-")[0] if language else None
