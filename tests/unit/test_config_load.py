"""The configuration: what is read, what wins, what is refused, and that no secret is ever repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hermes.config import config_fingerprint, diff_config, load, load_config
from hermes.config_display import flatten, to_display
from hermes.decode import Findings
from hermes.discovery import FoundPlatform
from hermes.errors import ConfigError
from hermes.gateway_options import Overrides
from hermes.settings import Config, Secret
from hermes.variables import Variables, is_loopback, proxy_for
from platforms.telegram import platform as telegram

PLANTED = "sk-planted-7f3a9c1e5b2d8046"
NOTHING = Overrides()

DESIGNED = """
model:
  provider: openai
  base_url: https://api.openai.com/v1
  api_key: ${OPENAI_API_KEY}
  default: gpt-5-mini
  api: chat_completions
  fallback: [{base_url: https://other.example/v1, api_key: ${OTHER_KEY}, model: other}]
  max_clients: 16
  client_idle_s: 30
  proxy: null
http: {host: 127.0.0.1, port: 8642, key: ${API_SERVER_KEY}, cors_origins: [], max_body_bytes: 10485760}
sessions: {max_live: 128, idle_ttl_s: 3600, busy: interrupt, turn_timeout_s: 1800, first_byte_timeout_s: 120,
  stall_timeout_s: 180, merge_window_s: 1.0, stale_after_s: 3600}
session_reset: {mode: none, idle_minutes: 1440, at_hour: 4}
delivery: {ambiguous: resend_marked, edit_interval_s: 1.0, expire_s: 86400}
supervision: {backoff_base_s: 1, backoff_max_s: 300, healthy_after_s: 30, open_timeout_s: 30, send_grace_s: 10,
  quiet_s: 900, probe_s: 600}
shutdown: {total_s: 60, drain_timeout_s: 30, flush_timeout_s: 10}
store: {synchronous: full}
retention: {finished_rows_s: 604800, dedup_s: 259200, responses_s: 86400, sessions_days: 0, blobs_s: 2592000}
"""


def read(home: Path, text: str = "", environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
    (home / "config.yaml").write_text(text)
    return load_config(home, None, Overrides(**overrides), environ or {"HOME": str(home)})


def problems(home: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(home, text, environ, **overrides)
    return {problem.path: problem.reason for problem in caught.value.problems}


def test_an_empty_home_is_the_demo_model_on_loopback(tmp_path: Path) -> None:
    config = load_config(tmp_path, None, NOTHING, {})
    assert config.model.primary.api == "demo"
    assert (config.http.host, config.http.port, config.http.key) == ("127.0.0.1", 8642, None)
    assert config == Config(
        home=tmp_path, workspace=tmp_path / "workspace", surroundings=config.surroundings
    )  # every other value is the default of its settings class
    assert list(tmp_path.iterdir()) == []


def test_the_designed_shape_is_all_defaults(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "a" * 20, "OTHER_KEY": "b" * 20, "API_SERVER_KEY": "c" * 20}
    config = read(tmp_path, DESIGNED, environ)
    assert config.model.primary.model == "gpt-5-mini"
    assert config.model.primary.api_key == Secret("a" * 20)
    assert config.model.fallback[0].api_key == Secret("b" * 20)
    assert config.http.key == Secret("c" * 20)
    default = Config(home=tmp_path, workspace=tmp_path)
    for name in ("sessions", "session_reset", "delivery", "supervision", "shutdown", "store", "retention"):
        assert getattr(config, name) == getattr(default, name)
    assert config.warnings == ()


MISTAKES = [
    ("http: {port: 70000}", "http.port", "whole number from 0 to 65535"),
    ("http: {port: '8642'}", "http.port", "is text"),
    ("http: {port: true}", "http.port", "is true or false"),
    ("http: {port: 08642}", "http.port", "leading zeros"),
    ("http: {port: }", "http.port", "has no value"),
    ("http: {prot: 1}", "http.prot", "did you mean port?"),
    ("http: [1]", "http", "is a list"),
    ("http: {host: 'bad host'}", "http.host", "a host name or an IP address"),
    ("http: {host: 0.0.0.0}", "http.host", "needs a key of 16"),
    ("http: {host: '::', key: short}", "http.host", "needs a key of 16"),
    ("http: {cors_origins: ['https://a/b']}", "http.cors_origins", "entry 1"),
    ("htpp: {}", "htpp", "did you mean http?"),
    ("sessions: {idle_ttl: 1}", "sessions.idle_ttl", "did you mean idle_ttl_s?"),
    ("sessions: {idle_ttl_s: 0}", "sessions.idle_ttl_s", "more than 0"),
    ("sessions: {idle_ttl_s: .inf}", "sessions.idle_ttl_s", "is text"),
    ("sessions: {idle_ttl_s: 1e999}", "sessions.idle_ttl_s", "more than 0"),
    ("sessions: {busy: never}", "sessions.busy", "one of interrupt, queue, steer"),
    ("sessions: {max_live: 1.5}", "sessions.max_live", "is a number"),
    ("model: {base_url: ftp://x}", "model.base_url", "begins with http:// or https://"),
    ("model: {base_url: 'https://u:p@x'}", "model.base_url", "must not hold a user name"),
    ("model: {base_url: 'https://x:0'}", "model.base_url", "port"),
    ("model: {proxy: 'socks4://x'}", "model.proxy", "socks5://"),
    ("model: {api_key: 'with blank'}", "model.api_key", "visible ASCII"),
    ("model: {api_key: 12345678}", "model.api_key", "quote it"),
    ("model: gpt-5", "model.api_key", "is needed for https://api.openai.com/v1"),
    ("model: {fallback: [x]}", "model.fallback[0]", "needs base_url"),
    ("model: {base_url: http://x, fallback: [{base_url: http://y}]}", "model.fallback[0]", "needs model"),
    ("model: {base_url: http://x, fallback: [{modl: y}]}", "model.fallback[0].modl", "did you mean model?"),
    ("model: {base_url: http://x, aliases: {hermes: y}}", "model.aliases.hermes", "gateway's own"),
    ("model: {base_url: http://x, headers: {Host: y}}", "model.headers", "header field"),
    ("model: {backoff_base_s: 9}", "model.backoff_base_s", "not be larger"),
    ("supervision: {backoff_base_s: 301}", "supervision.backoff_base_s", "not be larger"),
    ("model: {api_key: ${ABSENT}}", "model.api_key", "ABSENT is set neither"),
    ("model: {api_key: '${bad name}'}", "model.api_key", "without a variable's name"),
    ("platforms: {telegrm: {token: x}}", "platforms.telegrm", "is no platform that is installed"),
    ("platforms: {a: {platform: telegrm}}", "platforms.a.platform", "is no platform that is installed"),
    ("platforms: [1]", "platforms", "is a list"),
    ("workspace: ..", "workspace", "must not be the home"),
    ("workspace: logs", "workspace", "must not be inside the home"),
    ("terminal: {env_passthrough: [A-B]}", "terminal.env_passthrough", "environment variable"),
    ("agent: {tools: terminal}", "agent.tools", "is text"),
    ("logging: {files: -1}", "logging.files", "0 to 100"),
    ("http: {port: 1, port: 2}", "http.port", "is given twice (line 1)"),
    ("http: {port: !!int 1}", "http.port", "tags are not used"),
    ("http: {<<: 1}", "http.(key 1)", "is not a key"),
    ("[1]", "config.yaml", "must hold sections"),
    ("a: b: c", "config.yaml", "line 1, column 5: is not valid YAML (mapping values"),
    ("a: *nobody", "config.yaml", "an alias to something"),
    ("a: &x [*x]", "config.yaml", "an alias to something"),
    ("--- 1\n--- 2", "config.yaml", "second document"),
    ("[" * 5000, "config.yaml", "nested deeper than"),
    ("a: '\x01'", "config.yaml", "characters that YAML does not allow"),
]


@pytest.mark.parametrize(("text", "path", "reason"), MISTAKES, ids=[text[:40] for text, _, _ in MISTAKES])
def test_a_mistake_is_told_with_its_path(tmp_path: Path, text: str, path: str, reason: str) -> None:
    found = problems(tmp_path, text)
    assert path in found
    assert reason in found[path]


def test_all_sections_report_at_once(tmp_path: Path) -> None:
    text = "\n".join(
        f"{name}: {{nonsense: 1}}"
        for name in ("model", "http", "agent", "terminal", "sessions", "session_reset", "delivery", "supervision")
    )
    found = problems(tmp_path, text + "\nshutdown: 3\nstore: x\nretention: {dedup_s: -1}\nlogging: {level: loud}\n")
    sections = {path.partition(".")[0] for path in found}
    assert sections == {
        *("model", "http", "agent", "terminal", "sessions", "session_reset", "delivery", "supervision"),
        *("shutdown", "store", "retention", "logging"),
    }


def test_several_mistakes_in_one_section_are_all_told(tmp_path: Path) -> None:
    assert set(problems(tmp_path, "http: {port: x, host: [], max_body_bytes: 1}")) == {
        "http.port",
        "http.host",
        "http.max_body_bytes",
    }


def test_repeated_aliases_are_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 20000 values" in problems(tmp_path, "\n".join(lines))["config.yaml"]


def test_too_large_and_not_text(tmp_path: Path) -> None:
    assert "larger than" in problems(tmp_path, "# " + "x" * 1_048_576)["config.yaml"]
    (tmp_path / "config.yaml").write_bytes(b"model: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path, None, NOTHING, {})


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config: there is no such file"):
        load_config(tmp_path, tmp_path / "absent.yaml", NOTHING, {})
    other = tmp_path / "other.yaml"
    other.write_text("http: {port: 1234}")
    assert load_config(tmp_path, other, NOTHING, {}).http.port == 1234


def test_file_over_environment_over_dotenv_and_the_command_line_over_all(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_SERVER_PORT=1001\nAPI_SERVER_HOST=127.0.0.3\nOPENAI_API_KEY=from-dotenv\n")
    (tmp_path / ".env").chmod(0o600)
    environ = {"API_SERVER_PORT": "1002", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}
    config = read(tmp_path, "", environ)
    assert (config.http.host, config.http.port) == ("127.0.0.3", 1002)
    assert config.model.primary.base_url == "http://127.0.0.1:9/v1"
    assert config.model.primary.api_key == Secret("from-dotenv")
    assert read(tmp_path, "http: {port: 1003}", environ).http.port == 1003
    assert read(tmp_path, "http: {port: 1003}", environ, port=0).http.port == 0
    assert read(tmp_path, "model: {api_key: null}", environ).model.primary.api_key is None
    assert read(tmp_path, "model: {api_key: ${OPENAI_API_KEY}}", environ).model.primary.api_key == Secret("from-dotenv")
    loaded = load(tmp_path, None, Overrides(host="localhost"), environ)
    assert loaded.origins["http.host"] == "command line"
    assert loaded.origins["http.port"] == "environment API_SERVER_PORT"
    assert loaded.origins["model.api_key"] == "file"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OPENAI_API_KEY": "k"}, ("chat_completions", "gpt-5-mini", "https://api.openai.com/v1", "k")),
        ({"OPENAI_BASE_URL": "http://x/v1"}, ("chat_completions", "gpt-5-mini", "http://x/v1", None)),
        ({"OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}, ("chat_completions", "m", "https://api.openai.com/v1", "k")),
        ({"OPENAI_API_KEY": ""}, ("demo", "demo", "demo:", None)),
        ({"OPENAI_MODEL": "m"}, ("demo", "demo", "demo:", None)),
    ],
)
def test_the_environment_alone_gives_a_model(
    tmp_path: Path, environ: dict[str, str], expected: tuple[str, str, str, str | None]
) -> None:
    primary = load_config(tmp_path, None, NOTHING, environ).model.primary
    key = primary.api_key.reveal() if primary.api_key else None
    assert (primary.api, primary.model, primary.base_url, key) == expected


def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "nonsense", "API_SERVER_PORT": "many", "API_SERVER_KEY": "a b"}
    assert set(problems(tmp_path, "", environ)) == {"OPENAI_BASE_URL", "API_SERVER_PORT", "API_SERVER_KEY"}
    assert set(problems(tmp_path, "", {}, host="no host", port=70000)) == {"--host", "--port"}


def test_the_plain_string_form_and_what_others_share(tmp_path: Path) -> None:
    config = read(tmp_path, "model: local-model", {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})
    assert config.model.primary.model == "local-model"
    text = """
model:
  base_url: http://127.0.0.1:1/v1
  api_key: first
  headers: {X-Team: blue}
  aliases:
    fast: small
    far: {base_url: https://far.example/v1, model: large, api: responses}
  fallback: [{model: medium}, second]
"""
    config = read(tmp_path, text)
    aliases = dict(config.model.aliases)
    assert (aliases["fast"].model, aliases["fast"].api_key, aliases["fast"].headers) == (
        "small",
        Secret("first"),
        (("X-Team", "blue"),),
    )
    assert (aliases["far"].api_key, aliases["far"].headers, aliases["far"].api) == (None, (), "responses")
    assert [endpoint.model for endpoint in config.model.fallback] == ["medium", "second"]


def test_the_demo_model_can_be_asked_for(tmp_path: Path) -> None:
    config = read(tmp_path, "model: {api: demo}", {"OPENAI_API_KEY": "k"})
    assert config.model.primary.api == "demo"
    assert config.model.primary.api_key is None


def test_dollars_and_numbers_from_variables(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "agent: {instructions: 'costs $5, $${HOME} and ${WHO}'}\nhttp: {port: ${PORT}}\nsessions: {idle_ttl_s: ${TTL}}",
        {"WHO": "${HOME}", "PORT": "1234", "TTL": "1.5"},
    )
    assert config.agent.instructions == "costs $5, ${HOME} and ${HOME}"
    assert (config.http.port, config.sessions.idle_ttl_s) == (1234, 1.5)


def test_a_bind_beyond_loopback_needs_a_real_key(tmp_path: Path) -> None:
    assert "http.host" in problems(tmp_path, "", {}, host="0.0.0.0")
    assert "http.host" in problems(tmp_path, "", {"API_SERVER_KEY": "k" * 15}, host="192.0.2.1")
    assert read(tmp_path, "", {"API_SERVER_KEY": "k" * 16}, host="0.0.0.0").http.host == "0.0.0.0"
    assert "shorter than 16" in read(tmp_path, "http: {key: short}").warnings[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_what_loopback_is(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example", "127.0.0.1.example", "0", "127.1", ""]
)
def test_what_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_a_home_of_hermes_agent_is_refused_with_one_line(tmp_path: Path) -> None:
    assert list(problems(tmp_path, "_config_version: 33\nhttp: {port: x}")) == ["config.yaml"]
    (tmp_path / "state.db").touch()
    assert list(problems(tmp_path, "")) == ["home"]


def test_keys_of_hermes_agent_are_one_warning(tmp_path: Path) -> None:
    config = read(
        tmp_path, "agent: {max_turns: 5}\nstt: {enabled: true}\nlogging: {level: INFO, max_size_mb: 5}\ntelegram: {}\n"
    )
    assert config.logging.level == "info"
    (warning,) = config.warnings
    assert warning.endswith(
        ": stt, telegram (here: platforms.telegram), agent.max_turns (here: agent.max_steps),"
        " logging.max_size_mb (here: logging.max_bytes)"
    )


def test_platforms_are_asked_for_only_when_configured(tmp_path: Path) -> None:
    asked: list[Path] = []

    def known(home: Path) -> Mapping[str, FoundPlatform]:
        asked.append(home)
        return {"telegram": FoundPlatform(name="telegram", where="a package", load=lambda: telegram)}  # type: ignore[dict-item, return-value]

    (tmp_path / "config.yaml").write_text("http: {}")
    load(tmp_path, None, NOTHING, {"HOME": "/nowhere"}, platforms=known)
    assert asked == []
    (tmp_path / "config.yaml").write_text("platforms: {telegram: {token: ${T}}, work: {platform: telegram, token: b}}")
    loaded = load(tmp_path, None, NOTHING, {"T": PLANTED}, platforms=known)
    config, origin = loaded.config, loaded.origins.get
    assert origin("platforms") is None  # of each key, not of all: what is left out is a default
    assert config.platforms["telegram"].config.token.reveal() == PLANTED
    assert asked == [tmp_path]
    assert origin("platforms.telegram.token") == "file"
    assert origin("platforms.telegram.drafts") is None
    assert PLANTED not in repr(config)
    assert PLANTED not in json.dumps(to_display(config))
    (tmp_path / "config.yaml").write_text("platforms: {telegrm: {}}")
    with pytest.raises(ConfigError, match="did you mean telegram"):
        load(tmp_path, None, NOTHING, {}, platforms=known)


@pytest.mark.parametrize(
    ("account", "environ"),
    [
        ("telegram", {"TELEGRAM_BOT_TOKEN": "1:a"}),
        ("discord", {"DISCORD_BOT_TOKEN": "a"}),
        ("slack", {"SLACK_BOT_TOKEN": "xoxb-a", "SLACK_APP_TOKEN": "xapp-a"}),
        ("irc", {"IRC_SERVER": "irc.example.org", "IRC_NICK": "hermes"}),
        (
            "email",
            {
                "EMAIL_ADDRESS": "a@example.org",
                "EMAIL_PASSWORD": "p",
                "EMAIL_IMAP_HOST": "imap.example.org",
                "EMAIL_SMTP_HOST": "smtp.example.org",
            },
        ),
    ],
)
def test_variables_alone_make_an_account_of_each_platform_that_has_some(
    tmp_path: Path, account: str, environ: dict[str, str]
) -> None:
    assert list(load(tmp_path, None, NOTHING, environ).config.platforms) == [account]


@pytest.mark.parametrize(
    ("base_url", "environ", "expected"),
    [
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example/v1", {"https_proxy": "p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
        ("http://a.example/v1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://a.example/v1", {"ALL_PROXY": "socks5h://p:1"}, "socks5h://p:1"),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample, b.example"}, "http://p:1"),
        ("https://a.example:8443/v1", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.example:8443"}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.example:8443"}, "http://p:1"),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("https://10.1.2.3/v1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://127.0.0.1:1/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]:1/v1", {"ALL_PROXY": "http://p:1"}, None),
    ],
)
def test_which_proxy(base_url: str, environ: dict[str, str], expected: str | None) -> None:
    findings = Findings()
    assert proxy_for(base_url, Variables(environ, {}), findings) == expected
    assert findings.problems == []


def test_the_proxy_ends_in_the_endpoint_and_null_is_direct(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": f"http://user:{PLANTED}@p:1", "OPENAI_API_KEY": "k"}
    config = read(tmp_path, "", environ)
    assert config.model.primary.proxy == environ["HTTPS_PROXY"]
    assert PLANTED not in json.dumps(to_display(config)) + repr(config)
    assert read(tmp_path, "model: {proxy: null}", environ).model.primary.proxy is None
    assert problems(tmp_path, "", {"HTTPS_PROXY": f"gopher://{PLANTED}", "OPENAI_API_KEY": "k"})["HTTPS_PROXY"]


def test_children_get_an_allow_list(tmp_path: Path) -> None:
    environ = {"HOME": "/h", "PATH": "/p", "LC_ALL": "C", "OPENAI_API_KEY": PLANTED, "EXTRA": "e", "OTHER": "o"}
    config = read(tmp_path, "terminal: {env_passthrough: [EXTRA, ABSENT]}", environ)
    assert dict(config.surroundings.terminal_env) == {"HOME": "/h", "PATH": "/p", "LC_ALL": "C", "EXTRA": "e"}
    assert "PATH" in load_config(tmp_path / "none", None, NOTHING, {}).surroundings.terminal_env


def test_surroundings(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2500000", "INVOCATION_ID": "i", "XDG_RUNTIME_DIR": "/run/x"}
    found = load_config(tmp_path, None, NOTHING, environ).surroundings
    assert (found.notify_socket, found.watchdog_s, found.invocation_id) == ("@n", 2.5, "i")
    assert found.runtime_dir == Path("/run/x")
    assert found.state_dir is None
    for more, place in (({"HOME": "/h"}, "/h/.local/state"), ({"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s")):
        assert load_config(tmp_path, None, NOTHING, {**environ, **more}).surroundings.state_dir == Path(place)
    other = load_config(tmp_path, None, NOTHING, {**environ, "WATCHDOG_PID": "1"}).surroundings
    assert other.watchdog_s is None


def test_what_changed(tmp_path: Path) -> None:
    old = read(tmp_path, "http: {port: 1}")
    assert diff_config(old, read(tmp_path, "http: {port: 1}")) == frozenset()
    assert diff_config(old, read(tmp_path, "http: {port: 2}\nmodel: {max_clients: 2}")) == {"http", "model"}


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    absent = config_fingerprint(tmp_path, None)
    (tmp_path / "config.yaml").write_text("http: {}")
    first = config_fingerprint(tmp_path, None)
    (tmp_path / "config.yaml").write_text("http: {port: 1}")
    second = config_fingerprint(tmp_path, None)
    (tmp_path / ".env").write_text("A=1")
    assert len({absent, first, second, config_fingerprint(tmp_path, None)}) == 4


def test_a_readable_env_file_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / ".env").chmod(0o644)
    assert "chmod 600" in load_config(tmp_path, None, NOTHING, {}).warnings[0]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([PLANTED, f"http://u:{PLANTED}@h", f"${{{PLANTED}}}", "${A}", "${B", "https://x/v1", "x"]),
)
NAMES = st.sampled_from(
    [
        *("model", "http", "sessions", "platforms", "workspace", "agent", "default", "base_url", "api_key", "fallback"),
        *("aliases", "host", "port", "key", "headers", "instructions", "telegram", "proxy", "cors_origins", PLANTED),
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=6), inner, max_size=4),
    max_leaves=25,
)


def outcome(home: Path, environ: Mapping[str, str]) -> Config | ConfigError:
    try:
        return load_config(home, None, NOTHING, environ)
    except ConfigError as error:
        return error


@given(tree=st.dictionaries(NAMES, TREES, max_size=6))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_tree_crashes_the_reader_or_leaks(tmp_path: Path, tree: dict[str, Any]) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(tree))  # JSON is YAML
    found = outcome(tmp_path, {"A": PLANTED, "HOME": "/h"})
    if isinstance(found, ConfigError):
        assert PLANTED not in str(found)
        assert found.problems
        assert all(problem.reason for problem in found.problems)
    else:
        shown = dict(flatten(to_display(found)))
        assert PLANTED not in f"{shown['http.key']} {shown['model.api_key']} {shown['model.proxy']}"


@given(text=st.text(max_size=60), cut=st.integers(0, 60))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_yaml_is_never_quoted(tmp_path: Path, text: str, cut: int) -> None:
    (tmp_path / "config.yaml").write_bytes((text[:cut] + PLANTED + text[cut:]).encode("utf-8", "replace"))
    found = outcome(tmp_path, {})
    assert PLANTED not in str(found)


def test_supervision_says_how_long_an_account_may_be_quiet_unless_the_account_does(tmp_path: Path) -> None:
    accounts = "platforms:\n  telegram: {token: '1:a'}\n  other: {platform: telegram, token: '2:b', quiet_s: 30}\n"
    config = read(tmp_path, accounts + "supervision: {quiet_s: 60}\n")
    assert {name: each.config.quiet_s for name, each in config.platforms.items()} == {"telegram": 60, "other": 30}
    assert read(tmp_path, accounts).platforms["telegram"].config.quiet_s == 900
    assert read(tmp_path, accounts + "supervision: {probe_s: 60}\n").platforms["telegram"].config.quiet_s == 900
