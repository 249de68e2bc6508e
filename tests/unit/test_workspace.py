"""No path leads out of the workspace or into the home: hermes.tools.workspace."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes.errors import ToolDenied, ToolError
from hermes.testing.census import open_descriptors
from hermes.tools.workspace import Workspace

SECRET = "the secret"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A workspace `ws` beside a home and a directory outside, each with a file; no descriptor may be left open."""
    for name in ("ws/inner", "home/workspace", "home/logs", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ws/inner/file").write_text("inside")
    for name in ("home/.env", "home/logs/log", "outside/file"):
        (tmp_path / name).write_text(SECRET)
    (tmp_path / "home/workspace/file").write_text("inside")
    before = open_descriptors()
    yield tmp_path
    assert open_descriptors().keys() == before.keys()


def read(root: Path, path: str, home: Path) -> str:
    """What a read of this path would show."""
    with Workspace(root, home).place(path) as place:
        descriptor, _ = place.open_file()
        with os.fdopen(descriptor) as file:
            return file.read()


@pytest.mark.parametrize(
    "path",
    [
        "inner/file", "./inner//file", "inner/../inner/file", "link/file", "link/../inner/file", "chain",
        "{ws}/inner/file", "absolute",
    ],
)  # fmt: skip
def test_paths_inside_lead_where_they_say(base: Path, path: str) -> None:
    (base / "ws/link").symlink_to("inner")
    (base / "ws/chain").symlink_to("link/../link/file")
    (base / "ws/absolute").symlink_to(base / "ws/inner/file")
    assert read(base / "ws", path.format(ws=base / "ws"), base / "home") == "inside"


@pytest.mark.parametrize(
    "path",
    [
        "..", "../outside/file", "inner/../../outside/file", "{base}/outside/file", "/etc/passwd", "//etc/passwd",
        "out/file", "file-out", "relative-out", "inner/up/outside/file", "to-root/etc/passwd", "{ws}/../outside/file",
        "{ws}x/file", "{home}/.env", "to-home/.env",
    ],
)  # fmt: skip
def test_no_path_leads_out(base: Path, path: str) -> None:
    (base / "wsx").mkdir()
    (base / "wsx/file").write_text(SECRET)
    ws = base / "ws"
    for name, target in (
        ("out", base / "outside"), ("file-out", base / "outside/file"), ("relative-out", "../outside/file"),
        ("inner/up", "../.."), ("to-root", "/"), ("to-home", base / "home"),
    ):  # fmt: skip
        (ws / name).symlink_to(target)
    with pytest.raises(ToolDenied, match="outside the workspace"):
        read(ws, path.format(base=base, ws=ws, home=base / "home"), base / "home")


@pytest.mark.parametrize("path", ["home/.env", "home/logs/log", "home/workspace/file", "alias/.env", "ws/../home/.env"])
def test_a_workspace_around_the_home_does_not_reach_it(base: Path, path: str) -> None:
    (base / "alias").symlink_to("home")
    with pytest.raises(ToolDenied, match="out of reach"):
        read(base, path, base / "home")
    assert read(base, "ws/inner/file", base / "home") == "inside"


def test_the_home_is_known_by_what_it_is_and_not_by_its_name(base: Path) -> None:
    (base / "moved-home").symlink_to("home")
    with pytest.raises(ToolDenied, match="out of reach"):
        read(base, "home/.env", base / "moved-home")


def test_the_workspace_of_the_home_is_one_and_its_neighbours_are_not(base: Path) -> None:
    home = base / "home"
    assert read(home / "workspace", "file", home) == "inside"
    (home / "workspace/project").mkdir()
    (home / "workspace/project/file").write_text("inside")
    assert read(home / "workspace/project", "file", home) == "inside"
    with pytest.raises(ToolDenied):
        read(home / "workspace", "../.env", home)
    for root in (home, home / "logs"):
        with pytest.raises(ToolDenied, match="workspace"):
            read(root, "log", home)
    (base / "alias").symlink_to("home/logs")
    with pytest.raises(ToolDenied, match="inside the gateway's home"):
        read(base / "alias", "log", home)


def test_a_hard_link_to_a_file_of_the_home_is_that_file(base: Path) -> None:
    os.link(base / "home/.env", base / "ws/innocent")
    os.link(base / "ws/inner/file", base / "ws/twin")
    with pytest.raises(ToolDenied, match="home"):
        read(base / "ws", "innocent", base / "home")
    assert read(base / "ws", "twin", base / "home") == "inside"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
@pytest.mark.parametrize("path", ["proc/self/environ", "proc/self/root/etc/passwd", "/proc/self/environ"])
def test_the_process_itself_cannot_be_read(base: Path, path: str) -> None:
    with pytest.raises(ToolDenied, match="out of reach"):
        read(Path("/"), path, base / "home")


def test_only_regular_files_are_opened_and_nothing_waits(base: Path) -> None:
    os.mkfifo(base / "ws/fifo")
    (base / "ws/loop").symlink_to("loop")
    for path, complaint in (
        ("fifo", "not a regular file"), ("inner", "is a directory"), ("loop", "too many symbolic links"),
        ("no", "no such file"), ("no/file", "no such file"), ("inner/file/x", "not a directory"),
        ("", "1 to 4096"), ("a\0b", "no NUL"),
        ("a" * 300, "name too long"), ("x/" * 3000, "1 to 4096"), ("a\ud800", "valid Unicode"),
    ):  # fmt: skip
        with pytest.raises(ToolError, match=complaint):
            read(base / "ws", path, base / "home")
    with pytest.raises(ToolError, match="not a regular file"):
        read(Path("/dev"), "zero", base / "home")


def test_a_tree_deeper_than_the_bound_is_refused_with_few_descriptors(base: Path) -> None:
    deep = "/".join("d" * 80)
    with pytest.raises(ToolError, match="directories deep"):
        with Workspace(base / "ws", base / "home").place(f"{deep}/f", create=True):
            pass


def test_missing_directories_are_made_only_inside(base: Path) -> None:
    (base / "ws/out").symlink_to(base / "outside")
    workspace = Workspace(base / "ws", base / "home")
    with workspace.place("new/deep/file", create=True) as place:
        assert place.name == "file"
    assert (base / "ws/new/deep").is_dir()
    for path in ("../made/file", "out/made/file", "new/../../made/file"):
        with pytest.raises(ToolDenied), workspace.place(path, create=True):
            pass
    assert not (base / "made").exists()
    assert not (base / "outside/made").exists()


def test_a_directory_swapped_for_a_link_in_the_middle_of_a_walk_leads_nowhere(base: Path) -> None:
    """A thread swaps a directory for a link to the outside, and back, as fast as it can."""
    ws, stop = base / "ws", threading.Event()
    (ws / "spare").mkdir()
    (ws / "spare/file").write_text("inside")
    (ws / "evil").symlink_to(base / "outside")

    def swap() -> None:
        while not stop.is_set():
            os.rename(ws / "spare", ws / "turn")
            os.rename(ws / "turn", ws / "spare")
            os.rename(ws / "evil", ws / "turn")
            os.rename(ws / "turn", ws / "evil")

    seen: set[str] = set()
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for count in itertools.count():
            if count >= 2000 and seen >= {"denied", "inside"}:  # both were met, so the race was run
                break
            try:
                seen.add(read(ws, "turn/file", base / "home"))
            except ToolError as error:
                seen.add("denied" if isinstance(error, ToolDenied) else "refused")
    finally:
        stop.set()
        thread.join()
    assert SECRET not in seen


def test_a_file_swapped_for_a_link_or_a_fifo_between_the_look_and_the_opening(base: Path) -> None:
    ws = base / "ws"
    for swap in (lambda: (ws / "file").symlink_to(base / "outside/file"), lambda: os.mkfifo(ws / "file")):
        (ws / "file").write_text("inside")
        with Workspace(ws, base / "home").place("file") as place:
            (ws / "file").unlink()
            swap()
            with pytest.raises(ToolError, match="not a regular file"):
                place.open_file()
        (ws / "file").unlink()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["..", ".", "inner", "file", "out", "up", "home", "logs", ".env", "abs"]),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_whatever_the_path_nothing_outside_is_read(base: Path, parts: list[str], absolute: bool) -> None:
    ws = base / "ws"
    for name, target in (
        ("out", base / "outside"),
        ("inner/up", "../.."),
        ("up", ".."),
        ("abs", ws / "inner"),
        ("home", base / "home"),
    ):
        if not (ws / name).is_symlink():
            (ws / name).symlink_to(target)
    path = "/".join(parts)
    with suppress(ToolError):
        assert read(ws, f"{ws}/{path}" if absolute else path, base / "home") == "inside"


def test_the_mode_of_what_is_found_is_looked_at_without_following(base: Path) -> None:
    with Workspace(base / "ws", base / "home").place("inner/file") as place:
        assert stat.S_ISREG(place.check_file().st_mode)
