"""docs/explanation/delivery.md names every state of a part, every error of a send, and the code's own numbers."""

from __future__ import annotations

import re
from pathlib import Path

from hermes import errors
from hermes.delivery.content import MARK
from hermes.delivery.lanes import MAX_RUNNING
from hermes.settings import DeliveryConfig
from hermes.store.outbox import DEDUPLICATED_S, MAX_BUGS, SHORTENED

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "delivery.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")][2:]


def test_every_state_has_its_row() -> None:
    states = ["live", "pending", "sending", "ambiguous", "sent", "rejected", "held"]
    assert [cell.strip("`") for cell in first_cells("The states of a part")] == states


def test_every_error_of_a_send_has_its_row() -> None:
    named = set(re.findall(r"`(\w+)", " ".join(first_cells("What an outcome does"))))
    of_platforms = {
        each.__name__
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.PlatformError)
    }
    assert of_platforms - named == {"PlatformError", "SendError"}
    assert {"AccountDown", "LeaseEnded"} <= named


def test_the_numbers_are_the_code_s() -> None:
    settings = DeliveryConfig()
    for name in ("expire_s", "backoff_max_s", "sweep_s", "edit_interval_s"):
        assert f"`delivery.{name}` ({getattr(settings, name):g})" in PAGE
    assert (MAX_RUNNING, MAX_BUGS, DEDUPLICATED_S) == (32, 3, 300.0)
    assert MARK in PAGE
    assert SHORTENED.text in PAGE
