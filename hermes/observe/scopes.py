"""The live tree of lifetimes, read from trio itself: which task is in which nursery, until when, waiting where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import trio

from hermes.observe.lines import short_path

MOST_TASKS = 1000
MOST_CHILDREN = 100  # shown of one nursery
MOST_FRAMES = 8
DEEPEST = 50


@dataclass(slots=True)
class _Budget:
    tasks: int
    stacks: bool


def scope_tree(*, stacks: bool = False, most_tasks: int = MOST_TASKS) -> dict[str, Any]:
    """The tree of tasks and nurseries of this trio run, as a value that JSON can hold.

    Args:
        stacks: whether each task comes with its frames; otherwise with the innermost that is not trio's.
        most_tasks: how many tasks are described (>= 1); the others are counted.

    Returns:
        the root task: `name`, `waits` (the innermost place), `stack` (where asked for), `nurseries`: of each
        `expires_in_s` (null: no deadline), `cancelled`, `shielded`, `tasks`, and `more`, the tasks left out.
        At the top also `living`, the number of all tasks.
    """
    root = trio.lowlevel.current_root_task()
    if root is None:
        return {"living": 0}
    tree = _task(root, _Budget(most_tasks, stacks), 0)
    return {"living": trio.lowlevel.current_statistics().tasks_living, **tree}


def task_tree(task: trio.lowlevel.Task, *, most_tasks: int = MOST_TASKS) -> dict[str, Any]:
    """One task and everything below it, with stacks, as `scope_tree` shows it."""
    tree = _task(task, _Budget(most_tasks, stacks=True), 0)
    return {"living": trio.lowlevel.current_statistics().tasks_living, **tree}


def _task(task: trio.lowlevel.Task, budget: _Budget, depth: int) -> dict[str, Any]:
    budget.tasks -= 1
    frames = _frames(task)
    ours = [text for text, of_trio in frames if not of_trio]
    found: dict[str, Any] = {"name": task.name, "waits": ours[-1] if ours else (frames[-1][0] if frames else "")}
    if budget.stacks:
        found["stack"] = [text for text, _ in frames[-MOST_FRAMES:]]
    nurseries = [_nursery(nursery, budget, depth + 1) for nursery in task.child_nurseries]
    if nurseries:
        found["nurseries"] = nurseries
    return found


def _nursery(nursery: trio.Nursery, budget: _Budget, depth: int) -> dict[str, Any]:
    scope = nursery.cancel_scope
    found: dict[str, Any] = {
        "expires_in_s": None if math.isinf(scope.deadline) else round(scope.deadline - trio.current_time(), 3),
        "cancelled": scope.cancel_called,
        "shielded": scope.shield,
    }
    children = sorted(nursery.child_tasks, key=lambda task: task.name)
    shown: list[dict[str, Any]] = []
    for child in children[:MOST_CHILDREN]:
        if budget.tasks <= 0 or depth > DEEPEST:
            break
        shown.append(_task(child, budget, depth))
    found["tasks"] = shown
    if len(children) > len(shown):
        found["more"] = len(children) - len(shown)
    return found


def _frames(task: trio.lowlevel.Task) -> list[tuple[str, bool]]:
    return [
        (
            f"{short_path(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}",
            frame.f_globals.get("__name__", "").partition(".")[0] == "trio",
        )
        for frame, line in task.iter_await_frames()
    ]


def scope_lines(tree: dict[str, Any]) -> list[str]:
    """The tree as indented text for people, one line a task, nursery or frame.

    Args:
        tree: from `scope_tree()`.
    """
    lines = [f"{tree.get('living', 0)} tasks"]
    waiting: list[tuple[int, str, dict[str, Any]]] = [(0, "task", tree)] if "name" in tree else []
    while waiting:
        depth, kind, item = waiting.pop()
        indent = "  " * depth
        if kind == "task":
            lines.append(f"{indent}{item['name']}  [{item['waits']}]")
            lines += [f"{indent}    | {frame}" for frame in item.get("stack", ())]
            waiting.extend((depth + 1, "nursery", nursery) for nursery in reversed(item.get("nurseries", ())))
        elif kind == "nursery":
            state = [f"{item['expires_in_s']:g} s left"] if item["expires_in_s"] is not None else []
            state += [name for name in ("cancelled", "shielded") if item[name]]
            lines.append(f"{indent}nursery{' (' + ', '.join(state) + ')' if state else ''}")
            if "more" in item:
                waiting.append((depth + 1, "more", item))
            waiting.extend((depth + 1, "task", task) for task in reversed(item["tasks"]))
        else:
            lines.append(f"{indent}and {item['more']} more")
    return lines


def scope_text(*, stacks: bool = False, most_tasks: int = MOST_TASKS) -> str:
    """The tree now, as `scope_lines()` shows it; for a log and for people."""
    return "\n".join(scope_lines(scope_tree(stacks=stacks, most_tasks=most_tasks)))
