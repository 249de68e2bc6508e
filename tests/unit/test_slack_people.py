"""The names of Slack's people: asked once each, and never so long that an envelope is acknowledged too late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.platform import Secret
from hermes.testing.host import open_test_host
from platforms.slack.api import SlackApi, Token
from platforms.slack.people import People
from platforms.slack.workspaces import Workspace


@pytest.fixture
def clock() -> MockClock:
    """Time that passes when all wait."""
    return MockClock(autojump_threshold=0)


class SlowApi(SlackApi):
    """Each answer takes a while."""

    async def ask(self, method: str, params: Mapping[str, Any], token: Token, **more: Any) -> dict[str, Any]:
        await trio.sleep(0.4)
        return {"user": {"id": params["user"], "name": params["user"].lower()}}


async def test_the_names_of_one_message_take_a_second_at_most(clock: MockClock) -> None:
    async with open_test_host("slack") as host, host.http() as http:
        people = People(SlowApi(http, "http://127.0.0.1", host.clock, 30.0))
        space = Workspace(id="T1", name="one", token=Token(Secret("xoxb-1"), "bot_token"), user="U1", bot="B1")
        ids = [f"U00{number}" for number in range(8)]
        begun = trio.current_time()
        assert await people.names(space, ids) == {"U000": "u000", "U001": "u001"}
        assert trio.current_time() - begun == 1.0
        assert len(await people.names(space, ids)) == 2
        assert trio.current_time() - begun == 1.0  # nobody is asked for a while
        await trio.sleep(3)
        assert len(await people.names(space, ids)) == 4  # each is asked once
