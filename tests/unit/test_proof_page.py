"""What benchmarks record becomes a page of tables, and the scripts that run them are sound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def proof(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "proof.py", *arguments], capture_output=True, text=True, check=False
    )


def test_records_become_tables_in_their_order(tmp_path: Path) -> None:
    lines = [
        {"table": "A durable turn", "row": "gateway", "figures": {"cpu_ms": 2.8712, "turns_per_s": 312}},
        {"table": "A durable turn", "row": "bare | relay", "figures": {"cpu_ms": 0.7, "note": "the floor|fair"}},
        {"table": "Streaming", "row": "chunk", "figures": {"cpu_us": 12345.6}},
        {"table": "A durable turn", "row": "gateway", "figures": {"ratio": 4.1}},
    ]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
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
    assert records == [{"table": "T", "row": "r", "figures": {"a": 1.5, "b": "x"}}]


@pytest.mark.parametrize("script", ["run", "full"])
def test_the_scripts_are_executable_bash(script: str) -> None:
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], capture_output=True, check=False).returncode == 0
