"""Real IRC servers for tests, where they are installed: ngIRCd, which knows RFC 2812, and InspIRCd, which knows IRCv3."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

NGIRCD = """
[Global]
Name = irc.test
Info = a server of the tests
Listen = 127.0.0.1
Ports = {port}
MotdPhrase = hello
[Limits]
MaxNickLength = 30
MaxPenaltyTime = {penalty}
MaxConnectionsIP = 0
[Options]
DNS = no
Ident = no
PAM = no
"""
INSPIRCD = """
<config format="xml">
<server name="irc.test" description="a server of the tests" network="Test">
<admin name="nobody" nick="nobody" email="nobody@example.org">
<bind address="127.0.0.1" port="{port}" type="clients">
<connect allow="*" timeout="20" threshold="100" commandrate="{rate}" fakelag="no" softsendq="100000" recvq="65536"
 localmax="1000" globalmax="1000" resolvehostnames="no" useident="no" limit="1000">
<class name="none"><type name="none" classes="none">
<dns server="127.0.0.1" timeout="1">
<files motd="{folder}/motd">
<path configdir="{folder}" datadir="{folder}" logdir="{folder}" runtimedir="{folder}">
<pid file="{folder}/pid">
{modules}
"""
MODULES = (
    "cap", "ircv3", "ircv3_batch", "ircv3_ctctags", "ircv3_echomessage", "ircv3_labeledresponse", "ircv3_msgid",
    "ircv3_servertime", "ircv3_capnotify", "blockcolor", "services_account", "ircv3_accounttag",
)  # fmt: skip


def found(name: str) -> str | None:
    """Where a server is installed; None if it is not."""
    return shutil.which(
        name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/sbin:/opt/homebrew/bin"
    )


@asynccontextmanager
async def open_ngircd(folder: Path, *, penalty: int = 0) -> AsyncIterator[int]:
    """ngIRCd on a port of the loopback, which is yielded; `penalty` = seconds that a client may run up, 0 = any number."""
    port = _free_port()
    path = folder / "ngircd.conf"
    path.write_text(NGIRCD.format(port=port, penalty=penalty), encoding="ascii")
    async with _running([str(found("ngircd")), "-n", "-f", str(path)], folder, port):
        yield port


@asynccontextmanager
async def open_inspircd(folder: Path, *, rate: int = 100_000) -> AsyncIterator[int]:
    """InspIRCd on a port of the loopback, which is yielded; `rate` = thousandths of a command that a client may send a second."""
    port = _free_port()
    (folder / "motd").write_text("hello\n", encoding="ascii")
    path = folder / "inspircd.conf"
    modules = "\n".join(f'<module name="{name}">' for name in MODULES)
    path.write_text(INSPIRCD.format(port=port, folder=folder, modules=modules, rate=rate), encoding="ascii")
    command = [str(found("inspircd")), "--nofork", "--nopid", "--runasroot", "--config", str(path)]
    async with _running(command, folder, port):
        yield port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@asynccontextmanager
async def _running(command: list[str], folder: Path, port: int) -> AsyncIterator[None]:
    """A server that answers. Lifetime: killed on exit."""
    with (folder / "server.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    try:
        await _answers(process, port, folder)
        yield
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(process: trio.Process, port: int, folder: Path) -> None:
    while process.poll() is None:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.02)  # it has not bound its port yet
            continue
        await stream.aclose()
        return
    said = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"the server ended with {process.returncode}: {said[-1000:]}")
