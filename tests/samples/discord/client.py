"""discord.py as a client of the fake Discord: `client.py BASE_URL GATEWAY TOKEN`; orders come in as JSON lines, sights go out."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import Any

import discord
import discord.gateway
import discord.http
import yarl
from discord import app_commands

BASE_URL, GATEWAY, TOKEN = sys.argv[1:]
discord.http.Route.BASE = BASE_URL
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(GATEWAY)


def saw(what: str, **more: Any) -> None:
    print(json.dumps({"saw": what, **more}), flush=True)


intents = discord.Intents.none()
intents.guilds = intents.guild_messages = intents.dm_messages = intents.message_content = True
# It waits for more guilds after the last one that came, two seconds by default; the fake has sent all that it has at once.
client = discord.Client(intents=intents, chunk_guilds_at_startup=False, guild_ready_timeout=0.1)
tree = app_commands.CommandTree(client)


@tree.command(name="stop", description="End the turn.")
async def stop(interaction: discord.Interaction, arguments: str) -> None:
    saw("command", arguments=arguments)
    await interaction.response.defer()
    saw("deferred")


@client.event
async def on_ready() -> None:
    saw("ready", user=str(client.user.id))


@client.event
async def on_resumed() -> None:
    saw("resumed")


@client.event
async def on_message(message: discord.Message) -> None:
    if message.author.id != client.user.id:
        saw(
            "message",
            id=str(message.id),
            text=message.content,
            author=str(message.author.id),
            mentioned=client.user in message.mentions,
        )


async def channel_of(id_: str) -> Any:
    return client.get_channel(int(id_)) or await client.fetch_channel(int(id_))


async def obey(order: dict[str, Any]) -> None:
    what = order["do"]
    channel = await channel_of(order["channel"]) if "channel" in order else None
    if what == "quit":
        await client.close()
    elif what == "answer":
        message = await channel.fetch_message(int(order["message"]))
        saw("answered", id=str((await message.reply(order["text"])).id))
    elif what == "edit":
        message = await channel.fetch_message(int(order["message"]))
        await message.edit(content=order["text"])
        saw("edited")
    elif what == "type":
        await channel.typing()
        saw("typed")
    elif what == "react":
        message = await (await channel_of(order["in_"])).fetch_message(int(order["message"]))
        await message.add_reaction("👀")
        saw("reacted")
    elif what == "sync":
        await tree.sync()
        saw("synced")
    elif what == "send":
        saw("sent", id=str((await channel.send(order["text"])).id))
    elif what == "file":
        file = discord.File(io.BytesIO(b"content"), "a.txt")
        saw("sent", id=str((await channel.send(order["text"], file=file)).id))


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def orders() -> None:
        while line := await reader.readline():
            try:
                await obey(json.loads(line))
            except discord.HTTPException as exc:
                saw("failed", code=exc.code)
            except Exception as exc:
                saw("broke", words=repr(exc))

    obeying = asyncio.create_task(orders())
    try:
        await client.start(TOKEN)
    except Exception as exc:
        saw("failed", error=type(exc).__name__, words=str(exc))
    await client.close()
    obeying.cancel()


asyncio.run(main())
