"""What a model is sent for a stored picture: its bytes, also after a restart and while it is steered; words where it cannot see."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import trio

from hermes.blobs import Blobs
from hermes.context import TurnContext
from hermes.intake import Payload
from hermes.messages import Image, Message, Text, ToolCall
from hermes.pictures import GONE, LEFT_OUT, UNSEEN
from hermes.settings import ModelConfig
from hermes.testing.door import Say, ScriptedDoor
from hermes.testing.spine import intake, open_spine
from hermes.toolset import tool

PNG = b"\x89PNG\r\n\x1a\n"


async def put(blobs: Blobs, content: bytes) -> str:
    async with blobs.writing(20_000_000) as writer:
        await writer.write(content)
        return await writer.commit()


def look(digest: str, words: str = "look") -> dict[str, Any]:
    message = Message(role="user", parts=(Text(words), Image(f"blob:{digest}")))
    return {"payload": Payload(messages=(message,))}


def seen(messages: list[Message]) -> list[bytes | str]:
    """Pictures as bytes, and the words that stand in for one."""
    found: list[bytes | str] = []
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, Image):
            assert part.url.startswith("data:image/png;base64,"), part.url[:40]
            found.append(base64.b64decode(part.url.partition(",")[2]))
        elif isinstance(part, Text) and "[image" in part.text and not part.text.startswith("echo"):
            found.append(part.text.strip())
    return found


async def test_it_is_sent_with_each_turn_also_after_a_restart_and_is_never_in_the_database(tmp_path: Path) -> None:
    blobs, content = Blobs(tmp_path / "blobs"), PNG + os.urandom(50_000)
    digest = await put(blobs, content)
    for _ in range(2):
        door = ScriptedDoor()
        async with open_spine(tmp_path, door, blobs=blobs) as spine:
            await spine.ask("", **look(digest))
            await spine.ask("and now?")
            assert seen(door.histories[-2])[-1] == content
            assert seen(door.histories[-1])[-1] == content
            bodies = b"".join(body for (body,) in await spine.rows("SELECT body FROM messages"))
            assert f"blob:{digest}".encode() in bodies
            assert b"data:" not in bodies
    path = blobs.find(digest)
    assert path is not None
    path.unlink()
    async with open_spine(tmp_path, door, blobs=blobs) as spine:
        await spine.ask("and now?")
        assert seen(door.histories[-1]) == [GONE, GONE]


async def test_a_model_that_cannot_see_is_told_in_words(tmp_path: Path) -> None:
    digest, door = await put(blobs := Blobs(tmp_path / "blobs"), PNG), ScriptedDoor()
    async with open_spine(tmp_path, door, blobs=blobs, model=ModelConfig(vision=False)) as spine:
        await spine.ask("", **look(digest))
        assert seen(door.histories[-1]) == [UNSEEN]


async def test_a_new_picture_takes_the_room_of_an_old_one(tmp_path: Path) -> None:
    blobs, door = Blobs(tmp_path / "blobs"), ScriptedDoor()
    contents = [PNG + bytes([number]) * 10_000_000 for number in range(3)]
    async with open_spine(tmp_path, door, blobs=blobs) as spine:
        for content in contents:
            await spine.ask("", **look(await put(blobs, content)))
        assert seen(door.histories[1]) == contents[:2]
        assert seen(door.histories[2]) == [LEFT_OUT, *contents[1:]]
        await spine.ask("and now?")
        assert seen(door.histories[3]) == [LEFT_OUT, *contents[1:]]


async def test_a_picture_steers_a_turn(tmp_path: Path) -> None:
    blobs, going = Blobs(tmp_path / "blobs"), trio.Event()
    digest, started = await put(blobs, PNG), trio.Event()

    @tool(read_only=True)
    async def work(context: TurnContext) -> str:
        """Works."""
        started.set()
        await going.wait()
        return "done"

    door = ScriptedDoor([Say(calls=[ToolCall("c1", "work", "{}")]), Say(text="seen")])
    async with open_spine(tmp_path, door, tools=(work,), blobs=blobs) as spine:
        await spine.sessions.accept(intake("work", mode="detached", busy="steer"))
        await started.wait()
        await spine.sessions.accept(intake("", mode="detached", busy="steer", **look(digest)))
        going.set()
        while len(door.histories) < 2:
            door.asking = trio.Event()
            await door.asking.wait()
        assert seen(door.histories[1]) == [PNG]
