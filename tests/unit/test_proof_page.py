"""What benchmarks record becomes a page of tables, and the scripts that run them are sound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def proof(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "proof.py", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_records_become_tables_in_the_order_of_the_tests(tmp_path: Path, workers: int) -> None:
    turns, chunks, ratios = ["tests/a.py", 9, "turns"], ["tests/a.py", 30, "chunks"], ["tests/b.py", 1, "ratios"]
    lines = [
        {"at": ratios, "table": "A durable turn", "row": "gateway", "figures": {"ratio": 4.1}},
        {"at": chunks, "table": "Streaming", "row": "chunk", "figures": {"cpu_us": 12345.6}},
        {"at": turns, "table": "A durable turn", "row": "gateway", "figures": {"cpu_ms": 2.8712, "turns_per_s": 312}},
        {
            "at": turns,
            "table": "A durable turn",
            "row": "bare | relay",
            "figures": {"cpu_ms": 0.7, "note": "the floor|fair"},
        },
    ]
    for line in lines:  # whichever worker had which test: one test's records are in one file
        with (tmp_path / f"{[turns, chunks, ratios].index(line['at']) % workers}.jsonl").open(
            "a", encoding="utf-8"
        ) as file:
            file.write(json.dumps(line) + "\n")
    page = tmp_path / "docs" / "proof.md"
    done = proof(str(tmp_path), str(page), "--seed", "5", "--status", "1")
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Proof\n")
    assert "seed 5" in text
    assert "not every test passed" in text
    assert (
        "| | cpu ms | turns per s | ratio | note |\n|---|---:|---:|---:|---:|\n| gateway | 2.87 | 312 | 4.1 |  |\n"
        in text
    )
    assert "the floor\\|fair" in text
    assert "| chunk | 12,346 |" in text
    assert text.index("## A durable turn") < text.index("## Streaming")


def test_without_records_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "proof.md"
    page.write_text("as it was", encoding="utf-8")
    assert proof(str(tmp_path), str(page)).returncode == 1
    assert page.read_text(encoding="utf-8") == "as it was"


def test_the_fixture_writes_what_the_page_reads(tmp_path: Path) -> None:
    environment = {"HERMES_RECORDS": str(tmp_path), "PATH": "/usr/bin:/bin"}
    test = tmp_path / "test_one.py"
    test.write_text(
        "def test_one(record, full, seed):\n    record('T', 'r', a=1.5, b='x')\n    assert not full and seed == 7\n"
    )
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(test)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**environment, "HERMES_TEST_SEED": "7"},
    )
    assert done.returncode == 0, done.stdout
    records = [
        json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert records == [
        {"at": ["test_one.py", 0, "test_one"], "table": "T", "row": "r", "figures": {"a": 1.5, "b": "x"}}
    ]


@pytest.mark.parametrize("name", ["cpu_s", "p50_ms", "rss_mb", "per_s_of_cpu", "ms"])
def test_what_wants_a_quiet_machine_is_kept_by_measured_tests_only(
    name: str, record: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HERMES_RECORDS", raising=False)  # nothing of this is for the page
    with pytest.raises(AssertionError, match="mark it `measured`"):
        record("T", "r", **{name: 1.0})
    record("T", "r", endings=3)


class Full:
    """`.ci/full` with an interpreter that only notes what it is asked for, and ends as it is told."""

    def __init__(self, place: Path, alone: int, others: int) -> None:
        self.place = place
        self.stub = place / "python"
        self.stub.write_text(
            f'#!/bin/sh\necho "$HERMES_FULL $HERMES_RECORDS $*" >> {place}/asked\n'
            f'case "$*" in *proof.py*) exit 0;; *"-n 0"*) exit {alone};; *) exit {others};; esac\n'
        )
        self.stub.chmod(0o755)

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(self.stub), "TMPDIR": str(self.place)}
        done = subprocess.run([ROOT / ".ci" / "full", *arguments], env=environment, capture_output=True, check=False)
        return done.returncode, (self.place / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("alone", "others", "status"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2), (5, 0, 0), (0, 5, 0), (5, 1, 1), (5, 5, 5)],
)
def test_what_is_measured_runs_first_and_alone(tmp_path: Path, alone: int, others: int, status: int) -> None:
    ended, asked = Full(tmp_path, alone, others).run("tests/unit")
    assert ended == status
    words = [line.split() for line in asked]
    assert {line[0] for line in words} == {"1"}  # in full
    assert len({line[1] for line in words}) == 1  # one directory of records
    first, second, page = (" ".join(line[2:]) for line in words)
    assert first == "-m pytest -n 0 -m measured tests/unit"
    assert second == "-m pytest -m not measured tests/unit"
    assert page.startswith(f"{ROOT}/.ci/proof.py {words[0][1]} {ROOT}/docs/reference/proof.md ")
    assert page.endswith(f"--status {status}")


@pytest.mark.parametrize("script", ["run", "full"])
def test_the_scripts_are_executable_bash(script: str) -> None:
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], capture_output=True, check=False).returncode == 0
