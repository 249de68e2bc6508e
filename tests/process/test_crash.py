"""A day of everything clients do, with the real process killed at random and at named points; afterwards nothing is lost.

What clients were told is written down as they are told it. After each kill a copy of the database is looked at, and at the
end every promise is held against what the gateway then says.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import signal
import sqlite3
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from hermes.home import Home
from hermes.intake import FINAL_ROW_STATES
from hermes.testing.fake_model import FakeModel, Slow, Step, open_fake_model
from hermes.testing.fake_wire import Reply
from hermes.testing.gateway_process import GatewayProcess, open_gateway_process, until, write_config

CLIENTS = 10
SESSIONS = ("red", "green", "blue", "grey", "pink")
JOB = re.compile(r"job:(\w+):(\w+)")
CLIENT_TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}
REFUSALS = {409, 429, 503}  # what a client may hear of a gateway that stops, is busy, or was stopped by another client
LEFT = (httpx2.TransportError,)


class Model(deque[Step]):
    """Answers each request from its history alone, as a provider does; every call and every answer is unlike all others."""

    def __init__(self) -> None:
        super().__init__()
        self.upstream: FakeModel | None = None
        self.number = 0
        self.asked = trio.Event()

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Step:
        assert self.upstream is not None
        body = self.upstream.requests[-1].body
        self.asked.set()
        self.number += 1
        nonce, kind, rounds = _job(body["messages"])
        if kind == "lookup" and not rounds:
            return Reply(calls=[("lookup", "{}")], call_ids=[f"lookup{self.number}"])
        if kind == "work" and rounds < 2:
            marks = [f"{nonce}-{self.number}-{position}" for position in range(2 - rounds)]
            commands = [("terminal", json.dumps({"command": f"echo {mark} >> effects"})) for mark in marks]
            return Reply(
                calls=[*commands, ("search_files", json.dumps({"pattern": nonce}))],
                call_ids=[*marks, f"s{self.number}"],
            )
        text = (f"answer:{nonce}:", str(self.number), " ", "and more")
        return Slow(first_s=0.005, between_s=0.002, reply=Reply(text=text)) if kind == "slowly" else Reply(text=text)


def _job(messages: list[dict[str, Any]]) -> tuple[str, str, int]:
    """What the last user message asks for, and how many rounds of calls there have been since."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            nonce, kind = JOB.findall(json.dumps(messages[index]["content"]))[-1]
            return nonce, kind, sum(bool(each.get("tool_calls")) for each in messages[index:])
    raise AssertionError("a request without a user's message")


@dataclass
class Promises:
    """What clients were told."""

    events: set[str] = field(default_factory=set)  # rows that must exist
    said: list[tuple[str, str, str]] = field(default_factory=list)  # (session, nonce, answer) of stored sessions
    runs: dict[str, str] = field(default_factory=dict)  # run -> nonce
    stopped_runs: set[str] = field(default_factory=set)
    stopped_sessions: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    keyed: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # key -> (job, answers)
    responses: dict[str, str] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    told: Counter[str] = field(default_factory=Counter)


class Client:
    """One of the day's clients: it does one thing after another until the gateway is gone."""

    def __init__(
        self, name: str, gateway: GatewayProcess, rng: random.Random, promises: Promises, tick: Callable[[], None]
    ) -> None:
        self.gateway, self.rng, self.promises, self.tick = gateway, rng, promises, tick
        self.name = name
        self.count = 0

    async def run(self) -> None:
        actions: list[Callable[[], Awaitable[None]]] = [
            self.chat, self.chat, self.stream, self.stateless, self.keyed, self.keyed_again, self.start_run, self.start_run,
            self.session_chat, self.stop, self.stop_run, self.delete, self.respond, self.client_tool,
        ]  # fmt: skip
        while True:
            action = self.rng.choice(actions)
            try:
                await action()
            except LEFT:
                self.promises.told["cut"] += 1
                return
            self.promises.told[action.__name__] += 1
            self.tick()

    def job(self, *kinds: str) -> tuple[str, str]:
        self.count += 1
        nonce = f"{self.name}n{self.count}"
        return nonce, f"please do job:{nonce}:{self.rng.choice(kinds or ('say', 'slowly', 'work'))}"

    def heard(self, answer: httpx2.Response) -> dict[str, Any] | None:
        """The body of a good answer; what was refused is counted."""
        self.promises.told[str(answer.status_code)] += 1
        if answer.status_code in REFUSALS:
            return None
        assert answer.status_code in (200, 201, 202), f"{answer.status_code} {answer.text}"
        body: dict[str, Any] = answer.json()
        return body

    def completed(self, body: dict[str, Any] | None, session: str | None, nonce: str) -> str | None:
        """Write down a whole chat completion."""
        if body is None:
            return None
        text: str = body["choices"][0]["message"]["content"]
        assert text.startswith(f"answer:{nonce}:"), text
        self.promises.events.add(body["id"].removeprefix("chatcmpl-"))
        if session is not None:
            self.promises.said.append((session, nonce, text))
        return text

    async def chat(self) -> None:
        session, (nonce, text) = self.rng.choice(SESSIONS), self.job()
        self.completed(self.heard(await self.gateway.chat(text, session=session)), session, nonce)

    async def stateless(self) -> None:
        nonce, text = self.job()
        self.completed(self.heard(await self.gateway.chat(text)), None, nonce)

    async def stream(self) -> None:
        session, (nonce, text) = self.rng.choice(SESSIONS), self.job()
        body = {"model": "hermes", "stream": True, "messages": [{"role": "user", "content": text}]}
        request = self.gateway.client.stream(
            "POST", "/v1/chat/completions", json=body, headers={"X-Hermes-Session-Id": session}
        )
        words = ""
        async with request as answer:
            if answer.status_code != 200:
                await answer.aread()
                self.heard(answer)
                return
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    self.promises.said.append((session, nonce, words))
                elif line.startswith("data: "):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        continue
                    self.promises.events.add(chunk["id"].removeprefix("chatcmpl-"))
                    words += "".join(each["delta"].get("content") or "" for each in chunk["choices"])

    async def keyed(self) -> None:
        nonce, text = self.job()
        self.promises.keyed[nonce] = (text, set())
        await self.ask_with_key(nonce)

    async def keyed_again(self) -> None:
        if self.promises.keyed:
            await self.ask_with_key(self.rng.choice(sorted(self.promises.keyed)))

    async def ask_with_key(self, nonce: str) -> None:
        text, answers = self.promises.keyed[nonce]
        answer = self.completed(self.heard(await self.gateway.chat(text, key=nonce)), None, nonce)
        if answer is not None:
            answers.add(answer)

    async def start_run(self) -> None:
        nonce, text = self.job()
        session = self.rng.choice(SESSIONS)
        body = self.heard(await self.gateway.client.post("/v1/runs", json={"input": text, "session_id": session}))
        if body is not None:
            self.promises.runs[body["run_id"]] = nonce
            self.promises.events.add(body["run_id"])

    async def stop_run(self) -> None:
        if self.promises.runs:
            run = self.rng.choice(sorted(self.promises.runs))
            self.promises.stopped_runs.add(run)
            self.heard(await self.gateway.client.post(f"/v1/runs/{run}/stop"))

    async def session_chat(self) -> None:
        session, (nonce, text) = self.rng.choice(SESSIONS), self.job()
        path = f"/api/sessions/{session}/chat?create=true"
        body = self.heard(await self.gateway.client.post(path, json={"message": text}))
        if body is not None:
            self.promises.said.append((session, nonce, f"answer:{nonce}:"))

    async def stop(self) -> None:
        session = self.rng.choice(SESSIONS)
        self.promises.stopped_sessions.add(session)  # any run may have been waiting in it
        answer = await self.gateway.client.post(f"/api/sessions/{session}/stop")
        assert answer.status_code in (200, 404, 503)

    async def delete(self) -> None:
        session = f"gone-{self.job()[0]}"
        if self.heard(await self.gateway.chat(self.job()[1], session=session)) is None:
            return
        if self.heard(await self.gateway.client.delete(f"/api/sessions/{session}")) is not None:
            self.promises.deleted.add(session)

    async def respond(self) -> None:
        nonce, text = self.job("say", "slowly")
        body: dict[str, Any] = {"model": "hermes", "input": text}
        if self.promises.responses and self.rng.random() < 0.5:
            body["previous_response_id"] = self.rng.choice(sorted(self.promises.responses))
        told = self.heard(await self.gateway.client.post("/v1/responses", json=body))
        if told is not None:
            self.promises.responses[told["id"]] = f"answer:{nonce}:"

    async def client_tool(self) -> None:
        session, (_, text) = f"own-{self.name}", self.job("lookup")
        body = self.heard(await self.gateway.chat(text, session=session, tools=[CLIENT_TOOL]))
        if body is None:
            return
        self.promises.sessions.add(session)
        self.promises.events.add(body["id"].removeprefix("chatcmpl-"))
        call = body["choices"][0]["message"]["tool_calls"][0]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "found"}
        self.tick()
        more = {"messages": [result], "tools": [CLIENT_TOOL]}
        self.heard(await self.gateway.chat("", session=session, **more))


class Ticks:
    """Counts what happens, and says when enough has."""

    def __init__(self) -> None:
        self.left = 0
        self.enough = trio.Event()

    def ask(self, count: int) -> None:
        self.left, self.enough = count, trio.Event()

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.enough.set()


POINTS = ("things done", "model asked", "model answered", "tool ran", "accepted", "starting", "stopping")


@dataclass
class Day:
    """The whole of it: one home, one model, many lives of the gateway."""

    home: Path
    rng: random.Random
    model: Model
    promises: Promises = field(default_factory=Promises)
    ticks: Ticks = field(default_factory=Ticks)
    points: Counter[str] = field(default_factory=Counter)

    @property
    def effects(self) -> list[str]:
        path = self.home / "workspace" / "effects"
        return path.read_text().splitlines() if path.exists() else []

    async def life(self, number: int) -> None:
        """Start, let clients do things, kill."""
        point = self.rng.choice(POINTS)
        self.points[point] += 1
        async with open_gateway_process(self.home, wait=False) as gateway:
            if point == "starting":
                await until(lambda: gateway.said or gateway.lines, "it has begun to say something")
                await gateway.kill()
                return
            await gateway.served()
            async with trio.open_nursery() as nursery:
                self.ticks.ask(self.rng.randrange(5, 25))
                for client in range(CLIENTS):
                    seeded = random.Random(self.rng.random())
                    nursery.start_soon(Client(f"l{number}c{client}", gateway, seeded, self.promises, self.ticks).run)
                await self.wait_for(point, gateway)
                await gateway.kill()

    async def wait_for(self, point: str, gateway: GatewayProcess) -> None:
        await self.ticks.enough.wait()
        match point:
            case "model asked" | "model answered":
                self.model.asked = trio.Event()
                await self.model.asked.wait()
                if point == "model answered":  # the answer is on its way, and then the commit that ends the turn
                    await trio.sleep(self.rng.uniform(0, 0.015))
            case "tool ran":
                before = len(self.effects)
                await until(lambda: len(self.effects) > before, "a tool has changed something")
            case "accepted":
                before = len(self.promises.runs)
                await until(lambda: len(self.promises.runs) > before, "a run was accepted")
            case "stopping":
                gateway.process.send_signal(signal.SIGTERM)
                await trio.sleep(self.rng.uniform(0, 0.03))

    def look(self, scratch: Path) -> None:
        """Look at a copy of what the dead process left; the original keeps its log for the next start to read."""
        database = Home(self.home).database
        copy = scratch / "copy.db"
        for suffix in ("", "-wal"):
            source = Path(f"{database}{suffix}")
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
            if source.exists():
                shutil.copy(source, f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy)) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if self.promises.events:
                known = {event for (event,) in con.execute("SELECT event_id FROM inbox")}
                assert not self.promises.events - known, "accepted and lost"
            check_rows(con)
        lines = Counter(self.effects)
        assert not {mark: count for mark, count in lines.items() if count > 1}, "a call ran twice"


def check_rows(con: sqlite3.Connection) -> None:
    """What holds at every moment: a row is over or it is not, and its turn agrees."""
    found = con.execute(
        "SELECT i.event_id, i.state, i.finished_at IS NOT NULL, t.state FROM inbox i LEFT JOIN turns t ON t.id = i.turn_id"
    ).fetchall()
    twice = "SELECT session_id FROM turns WHERE state = 'running' GROUP BY session_id HAVING count(*) > 1"
    assert not con.execute(twice).fetchall(), "two turns run in one session"
    fits = {"answered": {"done", "failed"}, "live": {"running"}, "interrupted": {"interrupted", None}}
    for event, state, finished, turn in found:
        assert finished == (state in FINAL_ROW_STATES), (event, state)
        assert state in (*FINAL_ROW_STATES, "pending", "live"), (event, state)
        if state in fits and turn is not None:
            assert turn in fits[state], (event, state, turn)


@pytest.mark.wall_clock_s(900)
async def test_kills_lose_nothing_that_was_acknowledged(
    tmp_path: Path, seed: int, full: bool, record: Callable[..., None]
) -> None:
    kills = 200 if full else 20
    model = Model()
    async with open_fake_model(steps=model) as upstream:
        model.upstream = upstream
        home = tmp_path / "home"
        write_config(home, {
            "model": {"default": "fake", "base_url": upstream.base_url, "retry_budget": 1},
            "sessions": {"sweep_s": 0.2, "max_queued": 32}, "http": {"max_connections": 256},
        })  # fmt: skip
        day = Day(home, random.Random(seed), model)
        for number in range(kills):
            await day.life(number)
            day.look(tmp_path)
            assert not upstream.refused, upstream.refused
        await settle_up(day, upstream)
    day.look(tmp_path)
    told = day.promises.told
    points = ", ".join(f"{name} {count}" for name, count in sorted(day.points.items()))
    print(f"seed {seed}: {kills} kills ({points}); told {dict(told)}; {len(day.effects)} effects")
    record(
        "Kills of the real process", "a day of all that clients do", seed=seed, kills=kills, points=points,
        good_answers=told["200"] + told["202"], cut_requests=told["cut"], side_effects=len(day.effects),
    )  # fmt: skip


async def settle_up(day: Day, upstream: FakeModel) -> None:
    """The last life: what is open ends, and everything that was promised is asked for."""
    promises = day.promises
    async with open_gateway_process(day.home) as gateway:

        def quiet() -> bool:
            with contextlib.closing(sqlite3.connect(f"file:{Home(day.home).database}?mode=ro", uri=True)) as con:
                return not con.execute("SELECT 1 FROM inbox WHERE state IN ('pending', 'live')").fetchall()

        await until(quiet, "no row waits or runs", within_s=60)
        for run, nonce in promises.runs.items():
            shown = (await gateway.client.get(f"/v1/runs/{run}")).raise_for_status().json()
            if shown["status"] == "completed":
                assert shown["output"].startswith(f"answer:{nonce}:")
            else:
                asked = run in promises.stopped_runs or shown["session_id"] in promises.stopped_sessions
                stopped = shown["status"] == "cancelled" and asked
                assert stopped or "three times" in shown["error"]["message"], shown
        texts = {session: await transcript(gateway, session) for session in {each for each, _, _ in promises.said}}
        for session, nonce, answer in promises.said:
            assert f"job:{nonce}:" in texts[session], f"what was asked in {session} is gone"
            assert answer in texts[session], f"an answer of {session} is gone"
        for key, (text, answers) in promises.keyed.items():
            assert len(answers) <= 1, f"the key {key} has had different answers: {answers}"
            again = await gateway.chat(text, key=key)
            if answers:
                assert again.json()["choices"][0]["message"]["content"] in answers
            else:
                assert again.status_code == 200 or again.json()["error"]["code"] == "idempotency_outcome_unknown"
        for session in promises.deleted:
            assert (await gateway.client.get(f"/api/sessions/{session}")).status_code == 404
        for response, answer in promises.responses.items():
            shown = (await gateway.client.get(f"/v1/responses/{response}")).raise_for_status().json()
            assert shown["status"] == "completed"
            assert answer in json.dumps(shown["output"])
        listed = [each["id"] for each in await pages(gateway, "/api/sessions", "offset")]
        assert set(listed) >= promises.sessions
        for number, session in enumerate(listed):
            last = await gateway.chat(f"last words job:last{number}:say", session=session)
            assert last.status_code == 200, f"{session}: {last.text}"
        assert not upstream.refused, upstream.refused
        assert await gateway.terminate() == 0
    with contextlib.closing(sqlite3.connect(Home(day.home).database)) as con:
        assert not con.execute("SELECT * FROM inbox WHERE state NOT IN (?, ?, ?, ?)", (
            "answered", "interrupted", "stopped", "quarantined",
        )).fetchall()  # fmt: skip
        assert con.execute("SELECT count(*) FROM turns WHERE state = 'running'").fetchone() == (0,)
        assert (
            con.execute("SELECT count(*) FROM steps").fetchone()
            == con.execute("SELECT count(*) FROM calls").fetchone()
            == (0,)
        )


async def transcript(gateway: GatewayProcess, session: str) -> str:
    """Every message of a session as text."""
    return "\n".join(map(json.dumps, await pages(gateway, f"/api/sessions/{session}/messages", "after")))


async def pages(gateway: GatewayProcess, path: str, by: str) -> list[dict[str, Any]]:
    """Everything that a route lists, page by page."""
    found: list[dict[str, Any]] = []
    where = ""
    while True:
        page = (await gateway.client.get(f"{path}?limit=200{where}")).raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        where = f"&{by}={len(found) if by == 'offset' else found[-1]['seq']}"
