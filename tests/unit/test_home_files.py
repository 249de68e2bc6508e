"""The home: where it is, what is made in it and how privately, the socket's address, the key."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.errors import ConfigError
from hermes.home import ApiKey, Home, ensure_api_key, find_socket, locate_home, make_home, place_socket, write_atomic
from hermes.settings import Surroundings


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_where_the_home_is(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert locate_home(None, environ) == tmp_path / ".hermes-gateway"
    assert locate_home(None, {**environ, "HERMES_HOME": "~/x"}) == tmp_path / "x"
    assert locate_home(tmp_path / "flag", {**environ, "HERMES_HOME": "/y"}) == tmp_path / "flag"
    with pytest.raises(ConfigError, match="home"):
        locate_home(Path("a\0b"), environ)


def test_what_is_made_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b")
    make_home(home)
    make_home(home)
    assert {mode(each) for each in (home.path, *home.directories)} == {0o700}


def test_what_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is not a directory; use another"):
        make_home(Home(tmp_path / "file"))
    with pytest.raises(ConfigError, match="below cannot be created or written: Not a directory"):
        make_home(Home(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match="cannot be used: File name too long"):
        make_home(Home(tmp_path / ("n" * 300)))
    (tmp_path / "state.db").touch()
    with pytest.raises(ConfigError, match="hermes-agent"):
        make_home(Home(tmp_path))


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = os.umask(0)
    try:
        first = ensure_api_key(home)
    finally:
        os.umask(before)
    assert first.made
    assert len(first.key.reveal()) >= 40
    assert mode(home.api_key_file) == 0o600
    home.api_key_file.chmod(0o644)
    assert ensure_api_key(home) == ApiKey(key=first.key, made=False)
    assert mode(home.api_key_file) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["api_key"]


def test_many_at_once_get_one_key(tmp_path: Path) -> None:
    found: list[ApiKey] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        found.append(ensure_api_key(Home(tmp_path)))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.key.reveal() for each in found}) == 1
    assert sum(each.made for each in found) == 1


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40, b"with blank " * 5])
def test_a_file_without_a_key_is_told_and_left(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "api_key").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no key"):
        ensure_api_key(Home(tmp_path))
    assert (tmp_path / "api_key").read_bytes() == content


def test_the_key_file_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("k" * 40)
    (tmp_path / "api_key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="api_key"):
        ensure_api_key(Home(tmp_path))


def test_a_key_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "api_key")
    with pytest.raises(ConfigError, match="api_key: holds no key"):
        ensure_api_key(Home(tmp_path))


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", b"one")
    write_atomic(tmp_path / "x", b"two", mode=0o644)
    assert (tmp_path / "x").read_bytes() == b"two"
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "d", b"three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "x"]


def test_a_short_home_holds_its_socket(tmp_path: Path) -> None:
    home = Home(Path("/tmp") / tmp_path.name)
    assert find_socket(home) == home.path / "hermes.sock"
    home = Home(tmp_path / "h")
    home.path.mkdir()
    if len(os.fsencode(home.socket_name)) <= 100:
        home.socket_name.touch()
        assert place_socket(home, Surroundings()) == home.socket_name
        assert not home.socket_name.exists()


def long_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / ("x" * 100))
    home.path.mkdir()
    return home


def test_a_long_home_has_its_socket_elsewhere_and_a_client_finds_it(tmp_path: Path, short_dir: Path) -> None:
    home = long_home(tmp_path)
    assert find_socket(home) is None
    path = place_socket(home, Surroundings(runtime_dir=short_dir))
    assert path.parent.parent == short_dir
    assert mode(path.parent) == 0o700
    assert find_socket(home) == path
    other = Home(tmp_path / ("y" * 100))
    other.path.mkdir()
    assert place_socket(other, Surroundings(runtime_dir=short_dir)) != path
    assert place_socket(home, Surroundings(temp_dir=short_dir)) == path


def test_a_directory_that_others_could_have_made_is_refused(tmp_path: Path, short_dir: Path) -> None:
    home = long_home(tmp_path)
    path = place_socket(home, Surroundings(temp_dir=short_dir))
    path.parent.chmod(0o777)
    assert find_socket(home) is None
    with pytest.raises(ConfigError, match="not private"):
        place_socket(home, Surroundings(temp_dir=short_dir))
    path.parent.rmdir()
    (tmp_path / "target").mkdir(mode=0o700)
    path.parent.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="not private"):
        place_socket(home, Surroundings(temp_dir=short_dir))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as name:
        yield Path(name)
