"""The form of API keys: slips are found, and nothing else is taken for one."""

from hypothesis import given
from hypothesis import strategies as st

from voiceforge.services.key_text import hint_of, is_whole, new_key


def test_a_new_key_is_whole_and_no_two_are_alike():
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(map(is_whole, keys))
    assert all(hint_of(key) == key[:11] for key in keys)


@given(st.integers(0, 49), st.characters(min_codepoint=33, max_codepoint=126))
def test_one_wrong_character_is_found(at, character):
    key = new_key()
    changed = key[:at] + character + key[at + 1 :]
    assert is_whole(changed) == (changed == key)


@given(st.integers(3, 48))
def test_two_characters_in_the_wrong_order_are_found(at):
    key = new_key()
    swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    assert is_whole(swapped) == (swapped == key)


@given(st.text(max_size=80))
def test_nothing_made_up_is_one(text):
    assert not is_whole(text)
    assert not is_whole(f"vf_{text}")


def test_a_part_of_one_is_none():
    key = new_key()
    assert not any(is_whole(key[:length]) for length in range(len(key)))
    assert not is_whole(key + "\n")
