"""Turn what the benchmarks and matrices recorded into docs/reference/proof.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HEAD = """# Proof

What was measured, by `.ci/full`. Each table is written by the tests named in it; a ratio compares with a bare relay that was
built from the same libraries and measured in the same run. Times are of this machine; ratios travel.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--seed", default="")
    parser.add_argument("--status", type=int, default=0)
    arguments = parser.parse_args()
    tables = read(arguments.records)
    if not tables:
        sys.stderr.write("nothing was recorded; the page stays as it was\n")
        return 1
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    arguments.page.write_text(render(tables, circumstances(arguments.seed, arguments.status)), encoding="utf-8")
    return 0


def read(place: Path) -> dict[str, dict[str, dict[str, float | str]]]:
    """Table -> row -> figures, in the order of the tests, whichever process ran each; a row recorded twice keeps both sets of figures.

    A test's own records are in one file, in their order.
    """
    items = [
        json.loads(line) for path in place.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    tables: dict[str, dict[str, dict[str, float | str]]] = {}
    for item in sorted(items, key=lambda item: item["at"]):
        tables.setdefault(item["table"], {}).setdefault(item["row"], {}).update(item["figures"])
    return tables


def circumstances(seed: str, status: int) -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607  # whichever git is there
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}, seed {seed}",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "every test passed" if status == 0 else f"**pytest ended with status {status}: not every test passed**",
    ]


def render(tables: dict[str, dict[str, dict[str, float | str]]], about: list[str]) -> str:
    parts = [HEAD, *(f"- {line}\n" for line in about)]
    for table, rows in tables.items():
        columns = list(dict.fromkeys(name for figures in rows.values() for name in figures))
        heads = "|".join(" " + name.replace("_", " ") + " " for name in columns)
        parts.append(f"\n## {table}\n\n| |{heads}|\n|---|{'---:|' * len(columns)}\n")
        for row, figures in rows.items():
            cells = "|".join(f" {shown(figures.get(name, ''))} " for name in columns)
            parts.append(f"| {row} |{cells}|\n")
    return "".join(parts)


def shown(value: float | str) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
