"""While code is loaded nothing is collected; afterwards collections are back and leave what was loaded alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hermes.loading import loading


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Give back to the collector what a test set aside."""
    yield
    gc.unfreeze()


def test_nothing_is_collected_inside_and_what_was_made_is_set_aside() -> None:
    gc.unfreeze()
    with loading():
        assert not gc.isenabled()
        kept = [[] for _ in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)
    assert not any(each is kept for each in gc.get_objects())


def test_collections_are_back_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError("no such module")
    assert gc.isenabled()
