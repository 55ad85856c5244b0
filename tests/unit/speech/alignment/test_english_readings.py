"""What may be heard for a written token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.alignment.english_numbers import cardinal, ordinal
from voiceforge.speech.alignment.english_readings import MAX_READINGS, spoken

LETTERS = set("abcdefghijklmnopqrstuvwxyz")
NUMBER_WORDS = """
    zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
    billion trillion and point percent dollar dollars cents pounds pence euros o'clock second third first
    nineties seventies hundreds fortieth degrees plus at
"""
WORDS = """
    mr. mr doctor us it nasa u.s. 's don't voice forge self hosted naive is cities
"""
DICTIONARY = LETTERS | set(NUMBER_WORDS.split()) | set(WORDS.split())


def readings(token: str, *, shouting: bool = False) -> list[str]:
    found = spoken(token, DICTIONARY.__contains__, shouting=shouting)
    return [" ".join(reading) for reading in found.readings]


@pytest.mark.parametrize(
    ("token", "heard"),
    [
        ("1917", "nineteen seventeen"),
        ("1905,", "nineteen oh five"),
        ("1800", "eighteen hundred"),
        ("2000.", "two thousand"),
        ("105", "one hundred and five"),
        ("105", "one oh five"),
        ("10,000", "ten thousand"),
        ("3.14", "three point one four"),
        ("50%", "fifty percent"),
        ("007", "oh oh seven"),
        ("$5.50", "five dollars and fifty cents"),
        ("$5.50", "five fifty"),
        ("$5", "five"),
        ("$1", "one dollar"),
        ("£3.50", "three pounds fifty pence"),
        ("3:30", "three thirty"),
        ("3:05", "three oh five"),
        ("9:00", "nine o'clock"),
        ("2nd", "second"),
        ("40th", "fortieth"),
        ("1990s", "nineteen nineties"),
        ("U.S.", "u.s."),
        ("U.S.", "u s"),
        ("Mr.", "mr."),
        ("Dr.", "doctor"),
        ("IT", "i t"),
        ("Self-hosted,", "self hosted"),
        ("don’t", "don't"),
        ("Forge’s", "forge 's"),
        ("naïve", "naive"),
        ("(“cities!”)", "cities"),
        ("A4", "a four"),
        ("٣", "three"),
    ],
)
def test_a_token_may_be_heard_as(token: str, heard: str) -> None:
    assert heard in readings(token)


@pytest.mark.parametrize("token", ["—", "...", "😀", "日本", "♪♪", "&&&" * 40, ""])
def test_what_cannot_be_said_has_no_reading(token: str) -> None:
    assert readings(token) == []


def test_capitals_are_no_initials_where_all_is_in_capitals() -> None:
    assert readings("US", shouting=True) == ["us"]
    assert set(readings("US")) == {"us", "u s"}


def test_capitals_of_other_alphabets_are_no_initials() -> None:
    assert readings("AÞ") == ["a"]


def test_a_word_outside_the_dictionary_is_said_with_others_and_is_not_exact() -> None:
    guessed = spoken("VoiceForge", DICTIONARY.__contains__)

    assert guessed.readings == (("voice", "forge"),)
    assert not guessed.exact
    assert spoken("voice", DICTIONARY.__contains__).exact


@given(st.text(min_size=1, max_size=80))
def test_every_reading_of_anything_is_in_the_dictionary(token: str) -> None:
    found = spoken("".join(token.split()), DICTIONARY.__contains__)

    assert len(found.readings) <= MAX_READINGS
    assert all(reading and set(reading) <= DICTIONARY for reading in found.readings)


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (700, "seven hundred"),
        (1_000_001, "one million one"),
        (12_345, "twelve thousand three hundred forty five"),
    ],
)
def test_cardinals(n: int, said: str) -> None:
    assert " ".join(cardinal(n)) == said


@pytest.mark.parametrize(
    ("n", "said"), [(1, "first"), (3, "third"), (12, "twelfth"), (20, "twentieth"), (100, "one hundredth")]
)
def test_ordinals(n: int, said: str) -> None:
    assert " ".join(ordinal(cardinal(n))) == said
