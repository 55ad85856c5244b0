"""What an entry's hash is over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.infra.db.audit import AuditEntry
from voiceforge.services.audit_chain import FIRST_HASH, canonical, clean, hash_of

_texts = st.text(max_size=20)
_leaves = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _texts
_names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)
_entries = st.builds(
    AuditEntry,
    tenant=_names,
    number=st.integers(1, 2**53 - 1),
    at=st.integers(0, 4_000_000_000_000).map(lambda at_ms: at_ms / 1000),
    actor_kind=st.sampled_from(["user", "key", "owner", "server", "nobody"]),
    actor_id=st.none() | _texts,
    address=st.none() | _texts,
    request_id=st.none() | _texts,
    action=_texts,
    target=st.none() | _texts,
    details=st.dictionaries(_names, _values, max_size=4).map(clean),
    hash=st.just(""),
)


@given(_values)
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    cleaned = clean(value)
    assert json.loads(canonical(cleaned)) == cleaned
    assert clean(cleaned) == cleaned
    assert canonical(json.loads(canonical(cleaned))) == canonical(cleaned)


@given(_values, _values)
def test_what_differs_is_written_differently(one: Any, other: Any) -> None:
    one, other = clean(one), clean(other)
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) == same


@given(st.dictionaries(_names, _values, min_size=2, max_size=5))
def test_the_order_of_names_does_not_matter(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical(clean(turned)) == canonical(clean(value))


@given(_entries, _entries)
def test_each_field_is_hashed(one: AuditEntry, other: AuditEntry) -> None:
    whole = hash_of(one, FIRST_HASH)
    assert hash_of(one, "1" * 64) != whole
    assert hash_of(replace(one, hash="told"), FIRST_HASH) == whole
    for name in set(AuditEntry.__dataclass_fields__) - {"hash"}:
        value = getattr(other, name)
        changed = replace(one, **{name: value})
        same = canonical({"": value}) == canonical({"": getattr(one, name)})
        assert (hash_of(changed, FIRST_HASH) == whole) == same, name


@pytest.mark.parametrize("value", [1.5, b"bytes", object(), 2**53, {"a": [0.1]}])
def test_what_is_not_the_same_everywhere_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        clean(value)
