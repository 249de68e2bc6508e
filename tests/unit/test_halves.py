"""Halves of surrogate pairs in JSON: a strict decoder reads what a service cut in the middle of a character."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.decode import without_halves

ANY = st.text(st.one_of(st.characters(codec=None), st.sampled_from('\ud800\udbff\udc00\udfff\\u"d8')), max_size=20)


@given(ANY)
def test_whatever_was_written_is_read(text: str) -> None:
    read = msgspec.json.decode(without_halves(json.dumps(text).encode()))
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert len(read) == len(whole)
    assert [one for one, other in zip(read, whole, strict=True) if one != other] == []


@pytest.mark.parametrize("document", [b'"\\ud83d\\ude00"', b'"\\\\ud800"', b'{"a": "\\n\\u0041"}', b"no json \\", b""])
def test_what_is_whole_stays_as_it_is(document: bytes) -> None:
    assert without_halves(document) == document
