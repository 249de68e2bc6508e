"""The real process behind a model that means harm: it answers, stores, and goes on."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hermes.home import Home
from hermes.testing.fake_model import Raw, open_fake_model
from hermes.testing.gateway_process import open_gateway_process, write_config


def answer(status: int, body: bytes, *headers: str) -> Raw:
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""])
    return Raw(pieces=(head.encode(), body))


def said(**more: Any) -> bytes:
    choice = {"index": 0, "message": {"content": "said"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], **more}).encode()


CALLS = [b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d}]}}]}\n\n' % number for number in range(1100)]
HOSTILE = {
    "a count that no database can hold": (answer(200, said(usage={"prompt_tokens": 10**30})), 200),
    "a count that no integer is": (answer(200, said(usage={"completion_tokens": 1e308})), 200),
    "details of another shape": (answer(200, said(usage={"prompt_tokens_details": "x"})), 200),
    "half a surrogate pair in an error": (answer(400, b'{"error":{"message":"\\ud800"}}'), 400),
    "megabytes out of kilobytes": (answer(200, gzip.compress(bytes(50_000_000)), "content-encoding: gzip"), 502),
    "a coding that nobody asked for": (answer(200, b"x", "content-encoding: gzip, gzip"), 502),
    "more calls than a reply has": (Raw(pieces=(b"HTTP/1.1 200 X\r\n\r\n", *CALLS)), 502),
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
async def test_a_hostile_model_harms_its_own_turns_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_fake_model(strict=False) as upstream:
        model = {"base_url": upstream.base_url, "default": "m", "retry_budget": 1, "cool_down_s": 0}
        write_config(home, {"model": model})
        async with open_gateway_process(home) as gateway:
            assert (await gateway.chat("first")).status_code == 200
            for what, (step, status) in HOSTILE.items():
                upstream.script(step)
                told = await gateway.chat("x", session="one")
                assert told.status_code == status, (what, told.text)
                assert (await gateway.chat("y", session="one")).status_code == 200, what
            assert resident_mb(gateway.pid) < 200
            assert await gateway.terminate() == 0
            assert "internal_error" not in gateway.said
    with contextlib.closing(sqlite3.connect(Home(home).database)) as con:
        states = dict(con.execute("SELECT state, count(*) FROM turns GROUP BY state").fetchall())
    failed = sum(status != 200 for _, status in HOSTILE.values())
    assert states == {"done": 1 + 2 * len(HOSTILE) - failed, "failed": failed}


def resident_mb(pid: int) -> float:
    """The most that the process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
