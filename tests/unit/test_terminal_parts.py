"""What a command's output is cut to, and what it sees of the environment: the pure parts of hermes.tools.terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hermes.tools.process import CommandEnd
from hermes.tools.terminal import Kept, child_environment, describe_end

SHOUTED = "THE_SECRET"


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(2, 400))
def test_both_ends_of_the_output_are_kept_and_the_rest_is_counted(pieces: list[bytes], limit: int) -> None:
    kept = Kept(limit)
    for piece in pieces:
        kept.add(piece)
    whole = b"".join(pieces)
    assert kept.total == len(whole)
    if len(whole) <= limit:
        assert kept.text() == whole.decode("utf-8", "replace")
    else:
        head, tail = whole[: limit - limit // 2], whole[len(whole) - limit // 2 :]
        line = f"\n[... {len(whole) - limit} bytes left out ...]\n"
        assert kept.text() == head.decode("utf-8", "replace") + line + tail.decode("utf-8", "replace")


def test_memory_stays_within_the_bound_whatever_comes() -> None:
    kept = Kept(1000)
    for _ in range(2000):
        kept.add(b"x" * 65_536)
        assert len(kept._head) + len(kept._tail) <= 1000 + 3 * 65_536
    assert kept.total == 2000 * 65_536
    assert len(kept.text()) < 1100


def test_no_secret_is_passed_on_unless_it_is_named() -> None:
    environment = {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C.UTF-8", "OPENAI_API_KEY": SHOUTED, "API_SERVER_KEY": SHOUTED,
        "TELEGRAM_BOT_TOKEN": SHOUTED, "SSH_AUTH_SOCK": SHOUTED, "LD_PRELOAD": SHOUTED, "path": SHOUTED,
        "WANTED": "yes",
    }  # fmt: skip
    assert child_environment(environment, ("WANTED", "MISSING")) == {
        "PATH": "/bin", "HOME": "/h", "LC_ALL": "C.UTF-8", "WANTED": "yes",
    }  # fmt: skip


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=5), max_size=12))
def test_nothing_comes_from_elsewhere(environment: dict[str, str]) -> None:
    chosen = child_environment(environment, ())
    assert "PATH" in chosen
    assert all(environment.get(name) == value for name, value in chosen.items() if name != "PATH")


def test_the_last_line_says_how_it_ended() -> None:
    end = CommandEnd(code=3, signal=None, swept=0, proven=True)
    assert describe_end(end, 1.26) == "[exit code 3 after 1.3 s]"
    end = CommandEnd(code=None, signal=9, swept=2, proven=True)
    assert describe_end(end, 0) == (
        "[ended by signal 9 (Killed) after 0.0 s; 2 background process(es) were ended with it]"
    )
    end = CommandEnd(code=None, signal=None, swept=0, proven=False)
    assert "unknown way" in describe_end(end, 0)
