"""Decompression in bounded pieces: the same bytes however they were cut, and never more than a piece at once."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.net.inflating import PIECE, Inflating


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def inflate(coding: str, packed: bytes, size: int) -> bytes:
    """Everything, fed in pieces of `size` bytes."""
    one, pieces = Inflating(coding), []
    for start in range(0, len(packed), size):
        one.feed(packed[start : start + size])
        while piece := one.take():
            assert len(piece) <= PIECE
            pieces.append(piece)
    return b"".join(pieces)


FORMS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@given(
    st.binary(max_size=200) | st.integers(0, 3 * PIECE).map(bytes), st.sampled_from(sorted(FORMS)), st.integers(1, 99)
)
def test_whatever_was_packed_comes_out(data: bytes, coding: str, size: int) -> None:
    assert inflate(coding, FORMS[coding](data) + b"and what follows is ignored", size) == data


@given(st.binary(max_size=200) | st.integers(0, 3 * PIECE).map(bytes), st.integers(2, 99))
def test_deflate_without_its_header_comes_out_too(data: bytes, size: int) -> None:
    assert inflate("deflate", bare(data), size) == data


@given(st.binary(min_size=1, max_size=50), st.sampled_from(sorted(FORMS)))
def test_garbage_is_an_answer_without_its_end_or_one_kind_of_error(data: bytes, coding: str) -> None:
    with contextlib.suppress(ValueError):  # what else it raises is no error of the answer
        assert len(inflate(coding, data, 7)) <= len(data) * 1032  # the most that deflate can do


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(ValueError, match="nobody asked for"):
        Inflating(coding)
