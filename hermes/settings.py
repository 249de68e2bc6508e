"""The configuration as frozen values: every key of `config.yaml` with its default. Read by `hermes.config`, written by nobody.

Seconds end in `_s`, bytes in `_bytes`. A `Secret` never shows itself. Nothing here holds a transport, a client or a handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Secret:
    """A string that must not appear in logs, messages or reprs; `reveal()` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends or compares it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


Api = Literal["chat_completions", "responses", "demo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model behind one base URL: a value, the key of the client cache, and never holding a transport.

    Args:
        model: the provider's name of the model.
        base_url: where the API begins, with its `/v1` where the service has one.
        api_key: absent for local servers.
        api: the protocol spoken there; `demo` is the built-in model without any network.
        provider: a name for people.
        proxy: `http://`, `https://`, `socks5://` or `socks5h://` URL, or None for a direct connection.
        headers: sent with each request.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key: Secret | None = None
    api: Api = "chat_completions"
    provider: str = "openai"
    proxy: str | None = field(default=None, repr=False)  # may hold a user name and password
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold a token


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """`model:`: the primary endpoint, where to go when it fails, and how clients live.

    Args:
        primary: what answers; the demo model when nothing is configured.
        fallback: tried in order when the primary is unavailable.
        aliases: name -> endpoint, offered in `/v1/models` beside `hermes`.
        max_clients: open clients at most (1 to 256).
        client_idle_s: an unleased client is closed after this.
        retry_budget: model requests per call at most, over all endpoints together.
        cool_down_s: how long the primary is passed over after it failed.
        connect_timeout_s: TCP and TLS.
        max_output_bytes: a reply larger than this is cut and refused.
        context_tokens: the window, where known; None asks nothing.
        vision: whether the model can see pictures; it is told of them in words otherwise.
    """

    primary: Endpoint = Endpoint(model="demo", api="demo", provider="demo", base_url="demo:")
    fallback: tuple[Endpoint, ...] = ()
    aliases: tuple[tuple[str, Endpoint], ...] = ()
    max_clients: int = 16
    client_idle_s: float = 30.0
    retry_budget: int = 4
    backoff_base_s: float = 0.5
    backoff_max_s: float = 8.0
    cool_down_s: float = 60.0
    connect_timeout_s: float = 10.0
    max_output_bytes: int = 4_194_304
    context_tokens: int | None = None
    vision: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """`http:`: the listener and what it accepts."""

    host: str = "127.0.0.1"
    port: int = 8642
    key: Secret | None = None
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 10_485_760
    max_concurrent_turns: int = 64
    max_connections: int = 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    send_timeout_s: float = 30.0
    keepalive_s: float = 15.0


TOOLSETS = ("terminal", "files", "sending")  # the built-in ones


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`agent:`: what one turn may use.

    Args:
        max_steps: model calls in one turn at most (1 to 1000).
        max_turn_tokens: tokens in one turn at most, as the provider counts them; 0 = no limit.
        instructions: text added to the system prompt.
        tools: names of the toolsets that are offered.
    """

    max_steps: int = 90
    max_turn_tokens: int = 0
    instructions: str = ""
    tools: tuple[str, ...] = TOOLSETS


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalConfig:
    """`terminal:`: the terminal tool; more than `max_commands` at a time wait in order.

    `env_passthrough` names the variables a command may see beyond the built-in few.
    """

    timeout_s: float = 180.0
    max_output_bytes: int = 50_000
    kill_grace_s: float = 2.0
    max_commands: int = 16
    env_passthrough: tuple[str, ...] = ()
    shell: str = "/bin/sh"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsConfig:
    """`sessions:`: live conversations and the deadlines of their turns."""

    max_live: int = 128
    max_live_bytes: int = 67_108_864
    idle_ttl_s: float = 3600.0
    busy: Literal["interrupt", "queue", "steer"] = "interrupt"
    max_queued: int = 8
    turn_timeout_s: float = 1800.0
    first_byte_timeout_s: float = 120.0
    stall_timeout_s: float = 180.0
    merge_window_s: float = 1.0
    stale_after_s: float = 3600.0
    sweep_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResetConfig:
    """`session_reset:`: when a conversation begins anew by itself."""

    mode: Literal["none", "idle", "daily", "both"] = "none"
    idle_minutes: int = 1440
    at_hour: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    """`media:`: files that people send, and that are sent to them.

    Args:
        max_inbound_bytes: a larger one is not fetched.
        wait_s: how long a message waits for its files at most; 0 = none is fetched.
        save: files of people who have tools with side effects are put into the workspace.
        max_outbound_bytes: a larger one is not sent; a service may allow less.
        send_from: folders, beside the workspace, that files may be sent from.
    """

    max_inbound_bytes: int = 20_000_000
    wait_s: float = 30.0
    save: bool = True
    max_outbound_bytes: int = 50_000_000
    send_from: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionConfig:
    """`transcription:`: who puts speech in words.

    Args:
        model: the provider's name of the model; None = nobody does.
        base_url: where the API begins, with its `/v1`; None = that of the primary model, with its key, proxy and headers.
        api_key, proxy: for a `base_url` of its own.
        language: what is spoken (ISO 639-1), where it is known.
        timeout_s: how long one recording may take, on top of `media.wait_s`.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: Secret | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a user name and password
    language: str | None = None
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """`delivery:`: how replies reach a messaging service."""

    ambiguous: Literal["resend_marked", "hold"] = "resend_marked"
    edit_interval_s: float = 1.0
    progress: Literal["off", "line"] = "off"
    progress_after_s: float = 60.0
    progress_every_s: float = 60.0
    receipts: Literal["off", "reaction"] = "off"
    expire_s: float = 86_400.0
    backoff_base_s: float = 1.0
    backoff_max_s: float = 60.0
    sweep_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionConfig:
    """`supervision:`: how accounts are kept connected."""

    backoff_base_s: float = 1.0
    backoff_max_s: float = 300.0
    healthy_after_s: float = 30.0
    open_timeout_s: float = 30.0
    send_grace_s: float = 10.0
    quiet_s: float = 900.0
    probe_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """`shutdown:`: one deadline for everything, and the budgets inside it."""

    total_s: float = 60.0
    drain_timeout_s: float = 30.0
    flush_timeout_s: float = 10.0
    watchdog_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """`store:`: the database. `synchronous: normal` trades the last commits before a power cut for speed."""

    synchronous: Literal["full", "normal"] = "full"
    readers: int = 2
    busy_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """`retention:`: how long rows that are done are kept; `sessions_days: 0` keeps conversations for ever."""

    finished_rows_s: float = 604_800.0
    dedup_s: float = 259_200.0
    responses_s: float = 86_400.0
    idempotency_s: float = 86_400.0
    sessions_days: int = 0
    ephemeral_s: float = 86_400.0
    blobs_s: float = 2_592_000.0
    sweep_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """`logging:`: the file in `logs/`, rotated by size, and the form of its lines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["human", "json"] = "human"
    max_bytes: int = 5_242_880
    files: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the environment says that no file can: how this process is supervised, and what a child may see.

    Args:
        notify_socket: where a service manager listens (sd_notify), `@` for an abstract name; None without one.
        watchdog_s: how often it wants a sign of life at the latest; None without a watchdog.
        invocation_id: its name for this run.
        runtime_dir: `$XDG_RUNTIME_DIR`.
        state_dir: `$XDG_STATE_HOME`, else `~/.local/state`; None if neither is known.
        temp_dir: `$TMPDIR`, else `/tmp`.
        terminal_env: the environment of every command that the terminal tool runs.
    """

    notify_socket: str | None = None
    watchdog_s: float | None = None
    invocation_id: str = ""
    runtime_dir: Path | None = None
    state_dir: Path | None = None
    temp_dir: Path = Path("/tmp")  # noqa: S108 - only a directory inside it, made 0700 and checked, is ever used
    terminal_env: Mapping[str, str] = field(default_factory=lambda: EMPTY, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that was configured, once, as one frozen value.

    Args:
        home: the home directory, absolute.
        workspace: where file tools and the terminal work.
        platforms: account id -> its `hermes.platform_config.AccountConfig`.
        warnings: what is odd and not wrong, one line each.
        surroundings: what only the environment says; no part of the file.
    """

    home: Path
    workspace: Path
    model: ModelConfig = ModelConfig()
    http: HttpConfig = HttpConfig()
    agent: AgentConfig = AgentConfig()
    terminal: TerminalConfig = TerminalConfig()
    sessions: SessionsConfig = SessionsConfig()
    session_reset: SessionResetConfig = SessionResetConfig()
    media: MediaConfig = MediaConfig()
    transcription: TranscriptionConfig = TranscriptionConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    shutdown: ShutdownConfig = ShutdownConfig()
    store: StoreConfig = StoreConfig()
    retention: RetentionConfig = RetentionConfig()
    logging: LoggingConfig = LoggingConfig()
    platforms: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)  # holds tokens
    warnings: tuple[str, ...] = ()
    surroundings: Surroundings = Surroundings()
