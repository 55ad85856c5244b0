"""Digits → the ways they may be said in English. Each reading is a tuple of lower-case words.

Several readings are given where speakers differ (1905: a year, a count, four digits); the aligner
lets the audio choose.
"""

from __future__ import annotations

Reading = tuple[str, ...]

# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
# fmt: on
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_LONGEST_COUNT = 15
"""Digits beyond which nobody counts (the last scale is trillion); longer ones are read one by one."""


def cardinal(n: int) -> Reading:
    """105 → one hundred five."""
    if n < 20:
        return (_SMALL[n],)
    if n < 100:
        return (_TENS[n // 10], *(() if n % 10 == 0 else (_SMALL[n % 10],)))
    scale, name = next((s, name) for s, name in _SCALES if n >= s)
    rest = n % scale
    return (*cardinal(n // scale), name, *(() if rest == 0 else cardinal(rest)))


def ordinal(reading: Reading) -> Reading:
    """twenty two → twenty second."""
    *head, last = reading
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return (*head, last)


def plural(reading: Reading) -> Reading:
    """nineteen ninety → nineteen nineties."""
    *head, last = reading
    last = last[:-1] + "ies" if last.endswith("y") else last + ("es" if last.endswith("x") else "s")
    return (*head, last)


def number_readings(digits: str) -> tuple[Reading, ...]:
    """The ways a run of digits (ASCII, no separators) may be said, the likeliest first."""
    n = int(digits) if len(digits) <= _LONGEST_COUNT else 0
    readings: list[Reading] = []
    if len(digits) == 4 and digits[0] != "0" and digits[1:3] != "00":
        readings.append((*cardinal(n // 100), *_year_end(digits[2:])))
    if len(digits) <= _LONGEST_COUNT and (digits[0] != "0" or len(digits) == 1):
        readings += [cardinal(n), _with_and(cardinal(n))]
    if len(digits) == 3 and digits[0] != "0" and digits[1:] != "00":
        readings.append((_SMALL[n // 100], *_year_end(digits[1:])))
    if len(digits) > 2 or digits[0] == "0":
        readings += [digits_one_by_one(digits), digits_one_by_one(digits, zero="oh")]
    return tuple(dict.fromkeys(readings))


def digits_one_by_one(digits: str, zero: str = "zero") -> Reading:
    """407 → four zero seven."""
    return tuple(zero if d == "0" else _SMALL[int(d)] for d in digits)


def _year_end(two_digits: str) -> Reading:
    if two_digits == "00":
        return ("hundred",)
    if two_digits[0] == "0":
        return ("oh", _SMALL[int(two_digits)])
    return cardinal(int(two_digits))


def _with_and(reading: Reading) -> Reading:
    """one hundred five → one hundred and five; the last hundred only, as it is said."""
    for i in range(len(reading) - 1, -1, -1):
        if reading[i] == "hundred" and i + 1 < len(reading) and reading[i + 1] not in ("thousand", "million"):
            return (*reading[: i + 1], "and", *reading[i + 1 :])
    return reading
