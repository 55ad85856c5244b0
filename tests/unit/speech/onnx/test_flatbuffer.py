"""Our reader against the makers' own writer."""

from __future__ import annotations

import struct
from contextlib import suppress

import flatbuffers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.onnx.flatbuffer import Table

numbers = st.integers(-(2**31), 2**31 - 1)
texts = st.lists(st.text(max_size=20), max_size=5)
NUMBER, TEXT, TEXTS, CHILDREN, CHILD, ABSENT = 0, 1, 2, 4, 5, 9


def written(number: int, names: list[str], children: list[int]) -> bytes:
    """A table with a number, a text, texts, tables and one table of its own."""
    builder = flatbuffers.Builder(64)
    strings = [builder.CreateString(name) for name in names]
    first = builder.CreateString(names[0] if names else "alone")
    tables = []
    for value in children:
        builder.StartObject(1)
        builder.PrependInt32Slot(NUMBER, value, 0)
        tables.append(builder.EndObject())
    builder.StartVector(4, len(strings), 4)
    for string in reversed(strings):
        builder.PrependUOffsetTRelative(string)
    strings_at = builder.EndVector()
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    tables_at = builder.EndVector()
    builder.StartObject(6)
    builder.PrependInt32Slot(NUMBER, number, 0)
    builder.PrependUOffsetTRelativeSlot(TEXT, first, 0)
    builder.PrependUOffsetTRelativeSlot(TEXTS, strings_at, 0)
    builder.PrependUOffsetTRelativeSlot(CHILDREN, tables_at, 0)
    if tables:
        builder.PrependUOffsetTRelativeSlot(CHILD, tables[-1], 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


@given(number=numbers, names=texts, children=st.lists(numbers, max_size=4))
def test_what_was_written_is_read(number: int, names: list[str], children: list[int]) -> None:
    table = Table.root(written(number, names, children))
    assert table.number(NUMBER) == number
    assert table.text(TEXT) == (names[0] if names else "alone")
    assert table.texts(TEXTS) == names
    assert [child.number(NUMBER) for child in table.tables(CHILDREN)] == children
    child = table.table(CHILD)
    assert (child.number(NUMBER) if child else None) == (children[-1] if children else None)


def test_what_is_not_there_reads_as_nothing() -> None:
    table = Table.root(written(1, [], []))
    assert (table.number(ABSENT), table.text(ABSENT), table.texts(ABSENT), table.table(ABSENT)) == (
        0,
        "",
        [],
        None,
    )
    assert table.vector(ABSENT) == (0, 0)


@given(st.data())
def test_damage_raises_what_it_says_or_tells_nonsense(data: st.DataObject) -> None:
    content = bytearray(written(7, ["one", "two"], [1, 2]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(struct.error, IndexError, ValueError):
        table = Table.root(bytes(content[: data.draw(st.integers(0, len(content)))]))
        table.number(NUMBER)
        table.text(TEXT)
        table.texts(TEXTS)
        table.table(CHILD)
        list(table.tables(CHILDREN))


def test_nothing_of_nothing() -> None:
    with pytest.raises(struct.error):
        Table.root(b"")
