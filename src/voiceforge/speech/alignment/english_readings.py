"""A written English token → the word sequences that may be heard for it, all in the given dictionary.

Knows spelling, not sound: `known` says which lower-case words have a pronunciation.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from voiceforge.speech.alignment.english_numbers import (
    Reading,
    cardinal,
    digits_one_by_one,
    number_readings,
    ordinal,
    plural,
)

MAX_READINGS = 8
"""Per token; each costs the search a parallel path."""

_LONGEST_TOKEN = 64
"""Characters; no word is longer, and a guess at pronouncing more is worth nothing."""

_PART = re.compile(
    r"(?P<money>[$£€])(?P<amount>\d[\d,]*)(?:\.(?P<cents>\d\d))?(?!\d)"
    r"|(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)(?!\d)"
    r"|(?P<nth>\d[\d,]*)(?:st|nd|rd|th)(?![a-z])"
    r"|(?P<decade>\d{2,4})'?s(?![a-z])"
    r"|(?P<number>\d(?:[\d,]*\d)?)(?:\.(?P<fraction>\d+))?"
    r"|(?P<word>[a-z]+(?:'[a-z]+)*)"
    r"|(?P<symbol>[&+@%=°])"
)
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_PLURALS = {"penny": "pence"}
_SYMBOLS = {
    "&": "and",
    "+": "plus",
    "@": "at",
    "%": "percent",
    "=": "equals",
    "°": "degrees",
}
_ABBREVIATIONS = {
    "dr": "doctor",
    "st": "saint",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "no": "number",
}
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'", "″": None})


@dataclass(frozen=True, slots=True)
class Spoken:
    """How one token may be heard.

    readings: alternatives, each of one or more dictionary words; empty where nothing can be said.
    exact: False where the dictionary lacks a word and pieces of others stand in for its sound.
    """

    readings: tuple[Reading, ...]
    exact: bool = True


def spoken(token: str, known: Callable[[str], bool], *, shouting: bool = False) -> Spoken:
    """The ways `token` (no white space) may be said.

    Args:
        shouting: the whole text is in capitals, so capitals do not mean initials.
    """
    if len(token) > _LONGEST_TOKEN:
        return Spoken(())
    plain = _fold(token)
    core = plain.strip("\"'.,;:!?()[]{}<>…-–—*_~|/\\")
    found: list[Reading] = [(w,) for w in (plain.strip("\"',;:!?()[]{}"), core) if w and known(w)]
    if core in _ABBREVIATIONS and plain.rstrip(",;:!?)\"'").endswith("."):
        found.append((_ABBREVIATIONS[core],))
    letters = core.replace(".", "")
    spellable = letters.isascii() and letters.isalpha() and 2 <= len(letters) <= 5
    initials = spellable and token.isupper() and not shouting
    if initials:
        found.append(tuple(letters))
    if found:
        return Spoken(_distinct(found))

    parts = [_part(match, known) for match in _PART.finditer(plain)]
    combined = itertools.islice(itertools.product(*(part.readings for part in parts)), MAX_READINGS)
    readings = [tuple(itertools.chain.from_iterable(choice)) for choice in combined]
    sayable = [reading for reading in readings if reading and all(map(known, reading))]
    return Spoken(_distinct(sayable), exact=all(part.exact for part in parts))


def _fold(token: str) -> str:
    decomposed = unicodedata.normalize("NFKD", token.translate(_APOSTROPHES)).lower()
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _distinct(readings: list[Reading]) -> tuple[Reading, ...]:
    return tuple(dict.fromkeys(readings))[:MAX_READINGS]


def _part(match: re.Match[str], known: Callable[[str], bool]) -> Spoken:
    groups = match.groupdict()
    if groups["money"]:
        return Spoken(_money(groups["money"], _digits(groups["amount"]), groups["cents"]))
    if groups["hour"]:
        return Spoken(_clock(int(groups["hour"]), groups["minute"]))
    if groups["nth"]:
        return Spoken(_distinct([ordinal(r) for r in number_readings(_digits(groups["nth"]))[:3]]))
    if groups["decade"]:
        return Spoken(_distinct([plural(r) for r in number_readings(_digits(groups["decade"]))[:2]]))
    if groups["number"]:
        return Spoken(_decimal(_digits(groups["number"]), groups["fraction"]))
    if groups["symbol"]:
        return Spoken(((_SYMBOLS[groups["symbol"]],),))
    return _word(groups["word"], known)


def _digits(written: str) -> str:
    return "".join(str(unicodedata.digit(c)) for c in written if c != ",")


def _money(sign: str, amount: str, cents: str | None) -> tuple[Reading, ...]:
    unit, small = _CURRENCIES[sign]
    small = _PLURALS.get(small, small + "s")
    readings: list[Reading] = []
    for count in number_readings(amount)[:2]:
        whole = (*count, unit if amount == "1" else unit + "s")
        if cents is None or cents == "00":
            readings += [whole, count]  # "$5 million" is said "five million dollars"
        else:
            after = cardinal(int(_digits(cents)))
            readings += [
                (*whole, "and", *after, small),
                (*count, *after),
                (*whole, *after),
                (*whole, *after, small),
            ]
    return _distinct(readings)


def _clock(hour: int, minute: str) -> tuple[Reading, ...]:
    minutes = int(minute)
    if minutes == 0:
        return ((*cardinal(hour), "o'clock"), cardinal(hour))
    after = ("oh", *cardinal(minutes)) if minutes < 10 else cardinal(minutes)
    return ((*cardinal(hour), *after),)


def _decimal(whole: str, fraction: str | None) -> tuple[Reading, ...]:
    readings = number_readings(whole)
    if fraction is None:
        return readings[:MAX_READINGS]
    fraction = _digits(fraction)
    after = [digits_one_by_one(fraction), digits_one_by_one(fraction, zero="oh")]
    after += [cardinal(int(fraction))] if len(fraction) == 2 and fraction[0] != "0" else []
    return _distinct([(*count, "point", *said) for count in readings[:2] for said in after])


def _word(word: str, known: Callable[[str], bool]) -> Spoken:
    if known(word):
        return Spoken(((word,),))
    stem, apostrophe, ending = word.rpartition("'")
    if apostrophe and stem and known("'" + ending):
        inner = _word(stem, known)
        return Spoken(tuple((*r, "'" + ending) for r in inner.readings), exact=inner.exact)
    bare = word.replace("'", "")
    if known(bare):
        return Spoken(((bare,),))
    if len(bare) <= 3 and not set(bare) & set("aeiouy"):
        return Spoken((tuple(bare),))  # "ml", "hdd": nothing but letter names can be said
    return Spoken((_pieces(bare, known),), exact=False)


def _pieces(word: str, known: Callable[[str], bool]) -> Reading:
    """Cut an unknown word into as few and as long dictionary words as possible: voiceforge → voice forge.

    A single letter is said as its name, a vowel too many, so it costs more than a real piece.
    """
    best: list[tuple[float, Reading]] = [(0.0, ())]
    for end in range(1, len(word) + 1):
        options = []
        for start in range(end):
            piece = word[start:end]
            if len(piece) == 1 or known(piece):
                cost = {1: 3.0, 2: 1.4}.get(len(piece), 1.0)
                options.append((best[start][0] + cost, (*best[start][1], piece)))
        best.append(min(options))
    return best[-1][1]
