"""The command line: exit codes, what is printed where, and that it starts lightly."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hermes.cli import main, serve
from hermes.cli.logs import follow, last_lines
from hermes.cli.running import RESTART, guarded
from hermes.cli.serve import add_arguments, options_of
from hermes.config import load_config
from hermes.errors import ConfigError, ControlFailed, HermesError, InstanceHeld, NoGateway, Problem, SchemaTooNew
from hermes.gateway_options import Overrides
from hermes.settings import Surroundings
from hermes.stopping import RESTART_CODE

ROOT = Path(__file__).parents[2]


def raising(error: BaseException) -> int:
    def run(_: argparse.Namespace) -> int:
        raise error

    return guarded(run, argparse.Namespace())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(Problem("http.port", "is wrong"), Problem("model", "is wrong too")), 78),
        (InstanceHeld("process 7"), 69),
        (NoGateway("nobody"), 3),
        (ControlFailed("refused"), 1),
        (SchemaTooNew("newer"), 78),
        (HermesError("port 8642 is taken"), 1),
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("", [ExceptionGroup("", [InstanceHeld("process 7")])]), 69),
    ],
)
def test_errors_with_a_name_are_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(error) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    if isinstance(error, ConfigError):
        assert shown.splitlines() == ["hermes: http.port: is wrong", "hermes: model: is wrong too"]
    if code == 69:
        assert "--replace" in shown


def test_a_crash_stays_a_crash() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())
    with pytest.raises(ExceptionGroup):
        raising(ExceptionGroup("", [HermesError("x"), ZeroDivisionError()]))


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["nonsense"]) == 2
    assert main(["serve", "--port", "70000"]) == 2
    assert main(["serve", "-v", "-q"]) == 2
    capsys.readouterr()
    assert main(["--help"]) == 0
    assert "sessions" in capsys.readouterr().out
    assert main(["--version"]) == 0


def test_serve_tells_every_mistake_and_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("http: {prot: 1}\nsessions: {busy: 3}\n")
    assert main(["serve", "--home", str(tmp_path)]) == 78
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in shown] == ["http.prot", "sessions.busy"]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_the_options_of_serve() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = options_of(parser.parse_args(["--home", "h", "--port", "0", "--replace", "-vv"]))
    assert options.home == Path.cwd() / "h"
    assert (options.overrides.port, options.replace, options.verbosity) == (0, True, 2)
    assert options_of(parser.parse_args(["-q"])).verbosity == -1


def test_config_check_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    (tmp_path / "config.yaml").write_text("http: {key: planted-secret-value}\nstt: {}")
    assert main(["config", "check", *home]) == 0
    assert "stt" in capsys.readouterr().err
    assert main(["config", "show", *home]) == 0
    assert "http.key: ***  (file)" in (shown := capsys.readouterr().out)
    assert "planted-secret-value" not in shown
    assert main(["config", "show", "--json", *home]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["http"]["key"] == "***"
    (tmp_path / "config.yaml").write_text("http: {port: x}")
    assert main(["config", "check", "--json", *home]) == 78
    assert json.loads(capsys.readouterr().out)["problems"][0]["path"] == "http.port"
    assert main(["config", "show", *home]) == 78


def test_without_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    assert main(["status", *home]) == 3
    assert main(["status", "--json", *home]) == 3
    assert '"running": false' in capsys.readouterr().out
    assert main(["stop", *home]) == 0
    assert main(["reload", *home]) == 3
    assert main(["backup", "x.db", *home]) == 3
    assert capsys.readouterr().err.count("`hermes serve` starts one") == 2
    assert main(["logs", *home]) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_last_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "hermes.log"
    log.parent.mkdir()
    log.write_text("".join(f"line {number} {'x' * 100}\n" for number in range(2000)))
    with log.open("rb") as file:
        assert len(last_lines(file, 1500).splitlines()) == 1500
        assert file.read() == b""
        assert last_lines(file, 0) == b""
    assert main(["logs", "-n", "2", "--home", str(tmp_path)]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1998", "1999"]


def test_following_over_a_rotation_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "hermes.log"

    def add(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    def rotate() -> None:
        add("3\n")
        log.rename(tmp_path / "hermes.log.1")
        add("4\n")

    steps = [lambda: add("0\n1\n"), lambda: add("2\n"), rotate, lambda: add("5\n"), lambda: log.write_text("6")]

    class Enough(Exception):
        pass

    def sleep(seconds: float) -> None:
        assert seconds >= 0.2
        if not steps:
            raise Enough
        steps.pop(0)()

    seen = b""
    lines = follow(log, 10, sleep)
    with pytest.raises(Enough):
        while True:
            seen += next(lines)
    assert seen == b"0\n1\n2\n3\n4\n5\n6"


def test_help_and_configuration_import_nothing_heavy() -> None:
    code = """
import sys
from hermes.cli import main
main(["--help"])
main(["config", "check", "--home", sys.argv[1]])
heavy = {"trio", "openai", "httpx2", "starlette", "msgspec", "yaml", "sqlite3", "asyncio", "importlib.metadata"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "absent")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_who_stops_reading_the_start_does_not_stop_the_gateway(tmp_path: Path) -> None:
    """In a process of its own: the words go to a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from hermes.cli.serve import _announce; _announce('one'); _announce('two'); raise SystemExit(7)"
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (7, b"")


@pytest.mark.parametrize(
    ("code", "surroundings", "again"),
    [(75, {}, True), (75, {"notify_socket": "/x"}, False), (75, {"invocation_id": "1"}, False), (0, {}, False)],
)
def test_who_ends_a_restart_starts_it_again_where_nobody_else_does(
    code: int,
    surroundings: dict[str, str],
    again: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(load_config(tmp_path, None, Overrides(), {}), surroundings=Surroundings(**surroundings))
    begun: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(serve, "reload_config", lambda _: config)
    monkeypatch.setattr(serve, "run_trio", lambda _: code)
    monkeypatch.setattr(serve, "_redact_crashes", lambda _: None)
    monkeypatch.setattr(os, "execv", lambda program, words: begun.append((program, words)))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "hermes", "serve"])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert serve.run(parser.parse_args(["--home", str(tmp_path)])) == code
    assert begun == ([(sys.executable, [sys.executable, "-m", "hermes", "serve"])] if again else [])
    assert RESTART == RESTART_CODE


def test_a_check_where_nothing_is_configured_says_how_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["platform", "check", "telegram", "--home", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "there is no account 'telegram' (there are: none)" in said
    assert "`hermes platform list`" in said
