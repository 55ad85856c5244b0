"""Our words as Deepgram writes them: bare and punctuated, sentences, paragraphs, utterances, hits."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from voiceforge.api.deepgram_compat.schemas import (
    HitOut,
    ParagraphOut,
    ParagraphsOut,
    SearchOut,
    SentenceOut,
    WordOut,
)
from voiceforge.api.deepgram_compat.wishes import Replacement, Writing
from voiceforge.speech.transcript import Segment, Word

_KEPT_INSIDE = frozenset("'’-‐.,:/@&_%+")
_SENTENCE_END = frozenset(".?!…。？！")
_CLOSING = "'\"”’»)]」』"
_SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})
_PARAGRAPH_SENTENCES = 5
_PARAGRAPH_PAUSE_S = 1.5


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word in both ways of writing. confidence: in [0, 1]; 0 where nobody knows it."""

    bare: str
    written: str
    start: float
    end: float
    confidence: float


def bare(text: str) -> str:
    """In lower case, without what is no part of a word: `It's,` → `it's`, `3.5.` → `3.5`."""
    kept = []
    for place, char in enumerate(text):
        if unicodedata.category(char)[0] in "PS":
            inside = 0 < place < len(text) - 1 and text[place - 1].isalnum() and text[place + 1].isalnum()
            if not inside or char not in _KEPT_INSIDE:
                continue
        kept.append(char)
    return "".join(kept).lower()


def spoken(
    words: Iterable[Word], replacements: Sequence[Replacement] = (), sure: float = 0.0
) -> list[Spoken]:
    """
    Args:
        sure: the confidence of words that bring none.
    """
    made = []
    for word in words:
        confidence = sure if word.confidence is None else word.confidence
        plain = bare(word.text)
        if plain:  # a dash by itself is no word
            made.append(Spoken(plain, word.text, word.start, word.end, confidence))
    for replacement in replacements:
        made = _replaced(made, replacement)
    return made


def spoken_in(segments: Iterable[Segment], replacements: Sequence[Replacement]) -> list[Spoken]:
    """All words of a channel. Where the engine is not sure of each, it may be of a segment."""
    words = []
    for segment in segments:
        sure = 0.0 if segment.avg_logprob is None else math.exp(min(segment.avg_logprob, 0.0))
        words += spoken(segment.words, replacements, sure)
    return words


def _replaced(words: Sequence[Spoken], replacement: Replacement) -> list[Spoken]:
    length = len(replacement.find)
    made: list[Spoken] = []
    place = 0
    while place < len(words):
        found = words[place : place + length]
        if tuple(word.bare for word in found) != replacement.find:
            made.append(words[place])
            place += 1
            continue
        place += length
        if replacement.by:
            made += _in_the_place_of(found, replacement.by)
    return made


def _in_the_place_of(found: Sequence[Spoken], by: Sequence[str]) -> Iterator[Spoken]:
    """The new words share the time of the old; what was written after those stays."""
    start, end = found[0].start, found[-1].end
    sure = confidence_of(found)
    tail = found[-1].written[len(found[-1].written.rstrip(".?!…,;:。？！，")) :]
    for number, text in enumerate(by):
        last = number == len(by) - 1
        begins = start + (end - start) * number / len(by)
        ends = start + (end - start) * (number + 1) / len(by)
        yield Spoken(bare(text) or text.lower(), text + tail if last else text, begins, ends, sure)


def confidence_of(words: Sequence[Spoken]) -> float:
    return round(sum(word.confidence for word in words) / len(words), 4) if words else 0.0


def text_of(words: Sequence[Spoken], writing: Writing, language: str | None) -> str:
    between = "" if language in _SPACELESS else " "
    return between.join(word.written if writing.punctuated else word.bare for word in words)


def word_documents(words: Sequence[Spoken], writing: Writing) -> list[WordOut]:
    return [
        WordOut(
            word=word.bare,
            start=round(word.start, 3),
            end=round(word.end, 3),
            confidence=round(word.confidence, 4),
            punctuated_word=word.written if writing.punctuated else None,
        )
        for word in words
    ]


def utterances_of(words: Sequence[Spoken], gap_s: float) -> list[list[Spoken]]:
    """Cut where nothing is said for so long."""
    return _cut(words, lambda before, after: after.start - before.end >= gap_s)


def paragraphs_document(words: Sequence[Spoken], writing: Writing, language: str | None) -> ParagraphsOut:
    """A paragraph ends with a sentence, before a pause or where it has grown long enough."""
    paragraphs: list[list[list[Spoken]]] = []
    for sentence in _cut(words, lambda before, _: _ends_sentence(before)):
        last = paragraphs[-1] if paragraphs else None
        if (
            last is None
            or len(last) >= _PARAGRAPH_SENTENCES
            or sentence[0].start - last[-1][-1].end >= _PARAGRAPH_PAUSE_S
        ):
            paragraphs.append([sentence])
        else:
            last.append(sentence)
    texts = [" ".join(text_of(sentence, writing, language) for sentence in one) for one in paragraphs]
    return ParagraphsOut(
        transcript="".join(f"\n{text}\n" for text in texts).removesuffix("\n"),
        paragraphs=[
            ParagraphOut(
                sentences=[
                    SentenceOut(
                        text=text_of(sentence, writing, language),
                        start=round(sentence[0].start, 3),
                        end=round(sentence[-1].end, 3),
                    )
                    for sentence in one
                ],
                num_words=sum(map(len, one)),
                start=round(one[0][0].start, 3),
                end=round(one[-1][-1].end, 3),
            )
            for one in paragraphs
        ],
    )


def _ends_sentence(word: Spoken) -> bool:
    return word.written.rstrip(_CLOSING)[-1:] in _SENTENCE_END


def _cut(words: Sequence[Spoken], between: Callable[[Spoken, Spoken], bool]) -> list[list[Spoken]]:
    if not words:
        return []
    groups = [[words[0]]]
    for before, after in pairwise(words):
        if between(before, after):
            groups.append([])
        groups[-1].append(after)
    return groups


def search_document(query: str, words: Sequence[Spoken], language: str | None) -> SearchOut:
    """Where these words stand in the text, in this order."""
    wanted = [plain for part in query.split() if (plain := bare(part))]
    hits = []
    for place in range(len(words) - len(wanted) + 1 if wanted else 0):
        found = words[place : place + len(wanted)]
        if [word.bare for word in found] == wanted:
            hits.append(
                HitOut(
                    confidence=confidence_of(found),
                    start=round(found[0].start, 3),
                    end=round(found[-1].end, 3),
                    snippet=text_of(found, Writing(punctuated=False), language),
                )
            )
    return SearchOut(query=query, hits=hits)
