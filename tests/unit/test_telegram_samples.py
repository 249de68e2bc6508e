"""Updates as the Bot API documents them, each with the event that it is; and whatever an update is turned into by chance."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.inbound import BadEvent, check_event
from platforms.telegram.reading import read
from platforms.telegram.translate import UPDATES, NoEvent, translate
from platforms.telegram.words import Me

SAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in sorted(Path(__file__).parents[1].glob("samples/telegram/*.json"))
}
ME = Me(id=4242, username="hermes_test_bot", commands=frozenset({"new"}))


def test_every_kind_of_update_that_is_asked_for_has_samples() -> None:
    assert len(SAMPLES) > 40
    assert {name for sample in SAMPLES.values() for name in sample["update"]} == {"update_id", *UPDATES}


@pytest.mark.parametrize("name", SAMPLES)
def test_an_update_is_this_event(name: str) -> None:
    event = translate(SAMPLES[name]["update"], account="telegram", me=ME)
    assert json.loads(msgspec.json.encode(event)) == SAMPLES[name]["event"]
    if event is not None:
        check_event(event, "telegram")


def test_a_batch_keeps_its_order() -> None:
    updates = [sample["update"] for sample in SAMPLES.values()]
    events, last, bad = read(updates, account="telegram", me=ME)
    assert [json.loads(msgspec.json.encode(event)) for event in events] == [
        sample["event"] for sample in SAMPLES.values() if sample["event"] is not None
    ]
    assert last == max(update["update_id"] for update in updates)
    assert not bad


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a tree of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda: [None]),
    st.just("\ud800"),
    st.just(10**30),
)


@given(st.data())
def test_an_update_with_anything_anywhere_is_an_event_or_is_none(data: st.DataObject) -> None:
    update = deepcopy(data.draw(st.sampled_from(list(SAMPLES.values())))["update"])
    for _ in range(data.draw(st.integers(1, 3))):
        *where, last = data.draw(st.sampled_from(places(update)[1:]))
        holder = update
        for key in where:
            holder = holder[key]
        if data.draw(st.booleans()) and isinstance(holder, dict):
            del holder[last]
            if not update:
                return
        else:
            holder[last] = data.draw(ANYTHING)
    try:
        event = translate(update, account="telegram", me=ME)
    except NoEvent:
        return
    assert translate(deepcopy(update), account="telegram", me=ME) == event
    if event is not None:
        try:
            check_event(event, "telegram")
        except BadEvent:
            return
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
