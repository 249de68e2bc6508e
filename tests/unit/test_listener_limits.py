"""Bounds: that they are bounds, and how many connections fit into a process."""

from __future__ import annotations

import resource
from dataclasses import fields

import pytest

from hermes.http.listener import Limits, raise_descriptor_limit


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_every_bound_is_positive(name: str) -> None:
    assert getattr(Limits(), name) > 0
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_the_buffer_holds_a_whole_head() -> None:
    with pytest.raises(ValueError, match="max_pipelined_bytes"):
        Limits(max_head_bytes=1000, max_pipelined_bytes=999)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    wanted = 1024 if hard == resource.RLIM_INFINITY else min(hard, 1024)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_descriptor_limit(1024) == (wanted, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
        assert raise_descriptor_limit(512) == (wanted, hard), "a higher soft limit is left alone"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
