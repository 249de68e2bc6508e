"""The subcommands that ask a gateway, against a fake one at the control socket of a home."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hermes.cli import main
from hermes.cli.running import when

MESSAGES = [{"seq": number, "role": "user", "content": f"number {number}"} for number in range(1, 451)]
SESSIONS = [{"id": f"s{number}", "updated_at": 1.8e9, "title": "a\x1b[31mb"} for number in range(3)]

AT = when(1.8e9)


class Gateway(socketserver.ThreadingUnixStreamServer):
    """Keeps what it was asked; answers from a table."""

    daemon_threads = True

    def __init__(self, home: Path) -> None:
        super().__init__(str(home / "hermes.sock"), Handler)
        self.asked: list[tuple[str, str, Any]] = []
        self.refuse_reload = False

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path, body))
        parts = urlsplit(path)
        query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        if (method, path) == ("POST", "/control/reload") and self.refuse_reload:
            return 400, {"error": {"message": "http.port: is wrong", "type": "t", "code": "config", "param": None}}
        if parts.path in ("/api/sessions", "/api/sessions/a%2Fb/messages"):
            every = SESSIONS if parts.path == "/api/sessions" else MESSAGES
            first = query.get("offset", query.get("after", 0))  # a message's place is its number in the session
            page = every[first : first + query["limit"]]
            return 200, {"data": page, "has_more": first + len(page) < len(every)}
        table: dict[tuple[str, str], Any] = {
            ("GET", "/control/status"): {"mode": "serve", "status": "ready", "accounts": {"a": {"state": "connected"}}},
            ("POST", "/control/stop"): {"stopping": True},
            ("POST", "/control/reload"): {"changed": ["http", "model"], "after_restart": ["http"]},
            ("POST", "/control/backup"): {"bytes": 4096},
            ("POST", "/control/pairing-list"): {
                "waiting": [{"account": "tg", "person": "9\x1b", "expires_at": 1.8e9}],
                "allowed": [{"account": "tg", "person": "7", "since": 1.8e9}],
            },
            ("POST", "/control/pairing-approve"): {"account": "tg", "person": "9", "allowed": True},
            ("POST", "/control/pairing-revoke"): {"account": "tg", "person": "9", "allowed": False},
            ("GET", "/api/sessions/a%2Fb"): {"id": "a/b", "object": "session", "title": "t", "model": None},
            ("DELETE", "/api/sessions/s1"): {"deleted": True},
        }
        if (method, path) not in table:
            return 404, {"error": {"message": "no such session", "type": "t", "code": "not_found", "param": None}}
        return 200, table[method, path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = self.server.answer(self.command, self.path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def gateway() -> Iterator[tuple[Path, Gateway]]:
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as name, Gateway(Path(name)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Path(name), serving
        serving.shutdown()
        thread.join()


def test_status(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, _ = gateway
    assert main(["status", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "ready\naccount   a: connected\n"
    assert main(["status", "--json", "--home", str(home)]) == 0
    assert json.loads(capsys.readouterr().out)["running"] is True


def test_stop_asks_and_waits(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, serving = gateway
    assert main(["stop", "--home", str(home)]) == 0
    assert serving.asked == [("POST", "/control/stop", {"reason": "stop"})]
    assert capsys.readouterr().out == "stopped\n"


def test_reload(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, serving = gateway
    assert main(["reload", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "reloaded; changed: http, model\nholds only after a restart: http\n"
    serving.refuse_reload = True
    assert main(["reload", "--home", str(home)]) == 1
    assert capsys.readouterr().err == "hermes: http.port: is wrong\n"


def test_backup_sends_an_absolute_path(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, serving = gateway
    assert main(["backup", "copy.db", "--home", str(home)]) == 0
    assert serving.asked == [("POST", "/control/backup", {"path": str(Path.cwd() / "copy.db")})]
    assert "copied" in capsys.readouterr().out


def test_sessions_are_listed_without_steering_the_terminal(
    gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = gateway
    assert main(["sessions", "list", "--limit", "2", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["s0", "s1"]
    assert "\x1b" not in "".join(lines)
    assert main(["sessions", "list", "--limit", "0", "--home", str(home)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["sessions", "list", "--json", "--home", str(home)]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ["s0", "s1", "s2"]


def test_a_session_is_exported_whole(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, _ = gateway
    assert main(["sessions", "show", "a/b", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("id: a/b\ntitle: t\n\n[user]\nnumber 1\n")
    assert "number 450" in shown
    target = home / "out.json"
    assert main(["sessions", "export", "a/b", str(target), "--home", str(home)]) == 0
    assert json.loads(target.read_text())["messages"] == MESSAGES
    assert target.stat().st_mode & 0o777 == 0o600
    assert main(["sessions", "export", "a/b", str(home / "no" / "x"), "--home", str(home)]) == 1


def test_sessions_are_deleted_or_the_reason_is_told(
    gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]
) -> None:
    home, serving = gateway
    assert main(["sessions", "delete", "s1", "--home", str(home)]) == 0
    assert serving.asked[-1] == ("DELETE", "/api/sessions/s1", None)
    assert main(["sessions", "delete", "s9", "--home", str(home)]) == 1
    assert capsys.readouterr().err == "hermes: no such session\n"


def test_pairing(gateway: tuple[Path, Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    home, serving = gateway
    assert main(["pairing", "list", "--home", str(home)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"waits    tg  9\N{REPLACEMENT CHARACTER}  until {AT}",
        f"allowed  tg  7  since {AT}",
    ]
    assert main(["pairing", "approve", "tg", "abcd2345", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "9 may talk to tg\n"
    assert main(["pairing", "revoke", "tg", "9", "--json", "--home", str(home)]) == 0
    assert json.loads(capsys.readouterr().out)["allowed"] is False
    assert serving.asked == [
        ("POST", "/control/pairing-list", {}),
        ("POST", "/control/pairing-approve", {"account": "tg", "code": "abcd2345"}),
        ("POST", "/control/pairing-revoke", {"account": "tg", "person": "9"}),
    ]


def test_pairing_needs_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairing", "list", "--home", str(tmp_path)]) == 3
    assert "no gateway is running" in capsys.readouterr().err
