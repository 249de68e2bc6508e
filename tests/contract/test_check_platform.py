"""The kit for platforms: the tutorial's platform passes it, and each way to break a clause is found by that clause."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hermes.testing import CLAUSES, Breach, Clause, Subject, check_platform, check_platform_clauses

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "write-a-platform.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PLATFORM, TEST = BLOCKS
BY_NAME = {clause.name: clause for clause in CLAUSES}

Make = Callable[..., Subject]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Writes the page's two files into a home, with changes to the platform, and gives what its test would check."""
    loaded = set(sys.modules)

    def written(*changes: tuple[str, str]) -> Subject:
        text = PLATFORM
        for old, new in changes:
            assert text.count(old) == 1, f"the page has {text.count(old)} times {old!r}"
            text = text.replace(old, new)
        plugin = tmp_path / "plugins" / "platforms" / "postbox.py"
        plugin.parent.mkdir(parents=True)
        plugin.write_text(text, encoding="utf-8")
        plugin.chmod(0o600)
        (tmp_path / "test_postbox.py").write_text(TEST, encoding="utf-8")
        subject: Subject = load(tmp_path / "test_postbox.py").subject()
        return subject

    yield written
    for name in set(sys.modules) - loaded:
        if name.startswith("hermes_plugin_"):
            del sys.modules[name]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("the_page_s_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("clause", check_platform_clauses())
def test_the_platform_of_the_tutorial(clause: Clause, make: Make) -> None:
    try:
        clause(make())
    except Breach as breach:
        pytest.fail(str(breach))


def test_the_platform_is_about_a_hundred_lines_of_code() -> None:
    body = PLATFORM.partition("log = ")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 130


def test_the_page_names_the_eight_clauses_in_their_order() -> None:
    rules = re.findall(r"^(\d)\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number in rules] == [clause.number for clause in CLAUSES] == list(range(1, 9))


def test_all_clauses_are_told_at_once(make: Make) -> None:
    subject = make(
        ("log = logging", "import asyncio\n\nlog = logging"), ("at=found.at", "at=__import__('time').time()")
    )
    subject = Subject(**{name: getattr(subject, name) for name in Subject.__slots__} | {"endings": 3})
    with pytest.raises(Breach) as caught:
        check_platform(subject)
    assert [line[:8] for line in str(caught.value).splitlines()] == ["clause 7", "clause 8"]


POLL = 'body = await self.call("GET", f"/inbox?after={after}&wait={HOLD_S}", timeout_s=HOLD_S + 15)'
DELIVER = 'await inbox.deliver(*events, cursors={"after": b"%d" % page.last})'
OPEN = """    async with host.http() as http:
        postbox = Postbox(http, config, host.account)
        await postbox.call("GET", "/me")
        yield postbox
"""
SHOW = """        try:
            return await self.call(method, path, body)
"""
UNCERTAIN = """            if error.sent:
                raise SendUncertain(str(error)) from None
"""
LIMIT = (
    'raise RateLimited("Postbox asks to wait", retry_after_s=int(wait) if wait.isdecimal() else 5.0, scope="account")'
)
LOG = "log = logging.getLogger(__name__)\n"

BROKEN: list[tuple[str, str, str, str]] = [
    # 1
    ("enter", "without asking the service", '        await postbox.call("GET", "/me")\n', ""),
    ("enter", "must raise PlatformRefused", "raise PlatformRefused(", "raise PlatformUnavailable("),
    ("enter", "must raise PlatformUnavailable", 'raise PlatformUnavailable(f"', 'raise ValueError(f"'),
    ("enter", "has left: .*socket|ResourceWarning", OPEN, """\
    client = host.http()
    postbox = Postbox(await client.__aenter__(), config, host.account)
    postbox.client = client
    await postbox.call("GET", "/me")
    yield postbox
"""),
    ("enter", "has left: .*task", '        await postbox.call("GET", "/me")\n', """\
        import trio
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        await postbox.call("GET", "/me")
"""),
    ("enter", "the service shows", '"text": content.text})\n        return Receipt', '"text": ""})\n        return Receipt'),
    # 2
    ("exit", "must come out as it was", "        yield postbox\n", """\
        try:
            yield postbox
        finally:
            raise RuntimeError("no")
"""),
    ("exit", "within 10 s", "        yield postbox\n", """\
        try:
            yield postbox
        finally:
            import trio
            with trio.CancelScope(shield=True):
                await postbox.call("GET", "/me", timeout_s=600)
"""),
    ("exit", "ResourceWarning|descriptor", OPEN, """\
    import trio
    pair = trio.socket.socketpair()
    await trio.lowlevel.checkpoint()
    with pair[0], pair[1]:
""" + OPEN.replace("    ", "        ", 1).replace("\n        ", "\n            ")),
    ("exit", "raised", "        yield postbox\n", """\
        try:
            yield postbox
        except BaseException as error:
            raise PlatformUnavailable("gone") from error
"""),
    # 3
    ("receive", "while nothing happens, `receive` returned", "if page.last > after:", """\
if not page.letters:
                return
            if page.last > after:"""),
    ("receive", "`receive` was cancelled and ended by itself", POLL, f"""\
import trio
            try:
                {POLL}
            except trio.Cancelled:
                return"""),
    ("receive", "`fail`, `receive` returned", POLL, f"""\
try:
                {POLL}
            except PlatformUnavailable:
                return"""),
    ("receive", "`garbage`, `receive` raised", "raise PlatformProtocolError(f", "raise LookupError(f"),
    ("receive", "without delivering", DELIVER, "pass"),
    # 4
    ("deliver", "acknowledged before it was committed", DELIVER, f"""\
await self.call("GET", f"/inbox?after={{page.last}}&wait=0")
                {DELIVER}"""),
    ("deliver", "lost|before it was committed", DELIVER, """\
await inbox.deliver(cursors={"after": b"%d" % page.last})
                await inbox.deliver(*events)"""),
    ("deliver", "never gave", "id=str(found.number)", "id=str(found.number) + account[:0] + __import__('uuid').uuid4().hex"),
    ("deliver", "more came again", 'int(cursors.get("after", b"0"))', "0"),
    ("deliver", "must let it through", DELIVER, f"""\
try:
                    {DELIVER}
                except Exception:
                    continue"""),
    ("deliver", "names another account", "address=Address(account,", "address=Address(account + '2',"),
    # 5
    ("send", "`(hang|lose)`, `send` raised Unreachable", UNCERTAIN, ""),
    ("send", "so often are their messages shown", SHOW, "        await self.call(method, path, body)\n" + SHOW),
    ("send", "so often are their messages shown", SHOW, """\
        import trio
        self._body = body
        await trio.lowlevel.checkpoint()
        body = self._body
""" + SHOW),
    ("send", "`garbage`, `send` raised", "raise PlatformProtocolError(f", "raise LookupError(f"),
    ("send", "the person sees", 'self.show("PUT", f"/messages/{receipt.message_id}"', 'self.show("POST", "/messages"'),
    ("send", "`limit`, `send` raised", LIMIT, "raise SendRejected(wait)"),
    ("send", "RateLimited says to wait -7", "retry_after_s=int(wait)", "retry_after_s=-int(wait)"),
    ("send", "two messages have one receipt", "message_id=str(read(body, Shown).number)", "message_id='1'"),
    ("send", "nothing can be edited", "max_text=2000, edits=True", "max_text=2000"),
    ("send", "after 300 s `send` still waits", "timeout_s: float = 20.0", "timeout_s: float = 1e6"),
    # 6
    ("once", "requests again", SHOW, """\
        for _ in range(3):
            try:
                return await self.call(method, path, body)
            except PlatformUnavailable:
                pass
""" + SHOW),
    ("once", "to open waits at .*sleep", '        await postbox.call("GET", "/me")\n', """\
        import trio
        while True:
            try:
                await postbox.call("GET", "/me")
                break
            except PlatformUnavailable:
                await trio.sleep(5)
"""),
    ("once", "`limit`, `send` waits", SHOW, """\
        try:
            return await self.call(method, path, body)
        except RateLimited as error:
            import trio
            await trio.sleep(error.retry_after_s)
""" + SHOW),
    ("once", "`receive` waits", POLL, f"""\
try:
                {POLL}
            except PlatformUnavailable:
                import trio
                await trio.sleep(1)
                continue"""),
    ("once", "on a good day, to open waits", '        await postbox.call("GET", "/me")\n', """\
        import trio
        await trio.sleep(0.5)
        await postbox.call("GET", "/me")
"""),
    # 7
    ("source", "the module keeps SEEN", LOG, LOG + "SEEN: dict[str, str] = {}\n"),
    ("source", "the module keeps KNOWN", LOG, LOG + "KNOWN = {'a': 1}\n\n\ndef know() -> None:\n    KNOWN['b'] = 2\n"),
    ("source", "the module keeps seen", "    capabilities = CAPABILITIES\n", "    capabilities = CAPABILITIES\n    seen = []\n"),
    ("source", "the module keeps ONE", "@asynccontextmanager\n", "class Box:\n    pass\n\n\nONE = Box()\n\n\n@asynccontextmanager\n"),
    ("source", "changes the module's HOLD_S", LOG, LOG + "def hold() -> None:\n    global HOLD_S\n    HOLD_S = 7\n"),
    ("source", "reads the environment", LOG, LOG + "import os\nTOKEN = os.environ.get('X')\n"),
    ("source", "reads the environment", LOG, LOG + "from os import getenv\n"),
    ("source", "imports asyncio", "import logging\n", "import asyncio\nimport logging\n"),
    ("source", "imports urllib.request", "import logging\n", "import logging\nimport urllib.request\n"),
    ("source", "imports hermes.store, which is not", "import msgspec\n", "import msgspec\nfrom hermes.store import Store\n"),
    ("source", "importing it loads .*openai", "import msgspec\n", "import msgspec\nimport openai\n"),
    ("source", "importing it does open .*hostname", LOG, LOG + "HOST = __import__('pathlib').Path('/etc/hostname').read_text()\n"),
    ("source", "importing it does socket", LOG, LOG + "__import__('socket').socket().close()\n"),
    ("source", "keeps every result", LOG, LOG + "import functools\n@functools.cache\ndef double(x: int) -> int:\n    return 2 * x\n"),
    ("source", "uses trio.open_tcp_stream", LOG, LOG + "import trio\n\n\nasync def dial():\n    await trio.open_tcp_stream('x', 1)\n"),
    # 8
    ("translate", "time.time was called", "at=found.at", "at=__import__('time').time()"),
    ("translate", "translated twice, and differently", "id=str(found.number)", "id=str(len(NUMBERS.append(1) or NUMBERS))"),
    ("translate", "raised TypeError", "raise PlatformProtocolError(f", "raise LookupError(f"),
    ("translate", "cannot be kept", "id=str(found.number)", "id=''"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words", "old", "new"), BROKEN, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(BROKEN)]
)
def test_a_broken_platform_is_found(name: str, words: str, old: str, new: str, make: Make) -> None:
    changes = [(old, new)]
    if "NUMBERS" in new:
        changes.append((LOG, LOG + "NUMBERS: list[int] = []\n"))
    subject = make(*changes)
    with pytest.raises(Breach, match=rf"(?s)^clause {BY_NAME[name].number}, .*({words})"):
        BY_NAME[name](subject)


def test_every_clause_is_broken_in_some_way() -> None:
    assert {name for name, *_ in BROKEN} == set(BY_NAME)
