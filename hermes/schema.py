"""Every key of `config.yaml` with what it takes: the one table that the reader and `docs/reference/config.md` share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from hermes import settings
from hermes.decode import (
    Rule,
    choice,
    flag,
    folder,
    headers,
    host_name,
    origin,
    seconds,
    secret,
    text,
    texts,
    url,
    variable_name,
    whole,
    word,
)

HOUR: Final = 3600
DAY: Final = 86_400
YEAR: Final = 31_536_000
MEBIBYTE: Final = 1_048_576

MODEL_URL: Final = url("http", "https")
PROXY_URL: Final = url("http", "https", "socks5", "socks5h", login=True)

ENDPOINT: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "provider": word(64),
        "base_url": MODEL_URL,
        "api_key": secret().or_null(),
        "api": choice("chat_completions", "responses", "demo"),
        "proxy": PROXY_URL.or_null(),
        "headers": headers(),
    }
)
"""What describes one endpoint, beside the name of its model (`default` at the top, `model` elsewhere)."""

MODEL: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "max_clients": whole(1, 256),
        "client_idle_s": seconds(HOUR),
        "retry_budget": whole(1, 20, "model requests"),
        "backoff_base_s": seconds(HOUR),
        "backoff_max_s": seconds(HOUR),
        "cool_down_s": seconds(DAY, zero=True),
        "connect_timeout_s": seconds(600),
        "max_output_bytes": whole(1024, 256 * MEBIBYTE),
        "context_tokens": whole(1024, 100_000_000).or_null(),
        "vision": flag(),
    }
)
"""How model clients live: the rest of `model:`."""

SECTIONS: Final[Mapping[str, tuple[type[Any], Mapping[str, Rule]]]] = MappingProxyType(
    {
        "http": (
            settings.HttpConfig,
            {
                "host": host_name(),
                "port": whole(0, 65535, "0: any free one"),
                "key": secret(512),
                "cors_origins": texts(origin(), 64),
                "max_body_bytes": whole(1024, 1024 * MEBIBYTE),
                "max_concurrent_turns": whole(1, 10_000),
                "max_connections": whole(1, 100_000),
                "header_timeout_s": seconds(HOUR),
                "body_timeout_s": seconds(HOUR),
                "idle_timeout_s": seconds(DAY),
                "send_timeout_s": seconds(HOUR),
                "keepalive_s": seconds(HOUR),
            },
        ),
        "agent": (
            settings.AgentConfig,
            {
                "max_steps": whole(1, 1000, "model calls"),
                "max_turn_tokens": whole(0, 1_000_000_000, "0: no limit"),
                "instructions": text(65_536, empty=True),
                "tools": texts(choice(*settings.TOOLSETS), 64),
            },
        ),
        "terminal": (
            settings.TerminalConfig,
            {
                "timeout_s": seconds(DAY),
                "max_output_bytes": whole(256, 16 * MEBIBYTE),
                "kill_grace_s": seconds(60, zero=True),
                "max_commands": whole(1, 256, "commands"),
                "env_passthrough": texts(variable_name(), 100),
                "shell": text(4096),
            },
        ),
        "sessions": (
            settings.SessionsConfig,
            {
                "max_live": whole(1, 100_000),
                "max_live_bytes": whole(65_536, 65_536 * MEBIBYTE),
                "idle_ttl_s": seconds(YEAR),
                "busy": choice("interrupt", "queue", "steer"),
                "max_queued": whole(0, 1000),
                "turn_timeout_s": seconds(7 * DAY),
                "first_byte_timeout_s": seconds(DAY),
                "stall_timeout_s": seconds(DAY),
                "merge_window_s": seconds(60, zero=True),
                "stale_after_s": seconds(YEAR),
                "sweep_s": seconds(HOUR),
            },
        ),
        "session_reset": (
            settings.SessionResetConfig,
            {
                "mode": choice("none", "idle", "daily", "both"),
                "idle_minutes": whole(1, 5_256_000),
                "at_hour": whole(0, 23),
            },
        ),
        "media": (
            settings.MediaConfig,
            {
                "max_inbound_bytes": whole(1024, 20_000_000),
                "wait_s": seconds(HOUR, zero=True),
                "save": flag(),
                "max_outbound_bytes": whole(1024, 2_000_000_000),
                "send_from": texts(folder(), 64),
            },
        ),
        "transcription": (
            settings.TranscriptionConfig,
            {
                "model": word(200).or_null(),
                "base_url": MODEL_URL.or_null(),
                "api_key": secret().or_null(),
                "proxy": PROXY_URL.or_null(),
                "language": word(16).or_null(),
                "timeout_s": seconds(HOUR),
            },
        ),
        "delivery": (
            settings.DeliveryConfig,
            {
                "ambiguous": choice("resend_marked", "hold"),
                "edit_interval_s": seconds(HOUR),
                "progress": choice("off", "line"),
                "progress_after_s": seconds(DAY),
                "progress_every_s": seconds(DAY),
                "receipts": choice("off", "reaction"),
                "expire_s": seconds(YEAR),
                "backoff_base_s": seconds(HOUR),
                "backoff_max_s": seconds(DAY),
                "sweep_s": seconds(HOUR),
            },
        ),
        "supervision": (
            settings.SupervisionConfig,
            {
                "backoff_base_s": seconds(HOUR),
                "backoff_max_s": seconds(DAY),
                "healthy_after_s": seconds(DAY),
                "open_timeout_s": seconds(HOUR),
                "send_grace_s": seconds(HOUR, zero=True),
                "quiet_s": seconds(36_000),
                "probe_s": seconds(7 * DAY),
            },
        ),
        "shutdown": (
            settings.ShutdownConfig,
            {
                "total_s": seconds(DAY),
                "drain_timeout_s": seconds(DAY, zero=True),
                "flush_timeout_s": seconds(DAY, zero=True),
                "watchdog_s": seconds(HOUR),
            },
        ),
        "store": (
            settings.StoreConfig,
            {
                "synchronous": choice("full", "normal"),
                "readers": whole(1, 32),
                "busy_timeout_s": seconds(600),
            },
        ),
        "retention": (
            settings.RetentionConfig,
            {
                "finished_rows_s": seconds(10 * YEAR),
                "dedup_s": seconds(10 * YEAR),
                "responses_s": seconds(10 * YEAR),
                "idempotency_s": seconds(10 * YEAR),
                "sessions_days": whole(0, 36_500, "0: for ever"),
                "ephemeral_s": seconds(10 * YEAR),
                "blobs_s": seconds(10 * YEAR),
                "sweep_s": seconds(DAY),
            },
        ),
        "logging": (
            settings.LoggingConfig,
            {
                "level": choice("debug", "info", "warning", "error"),
                "format": choice("human", "json"),
                "max_bytes": whole(65_536, 1024 * MEBIBYTE),
                "files": whole(0, 100),
            },
        ),
    }
)
"""The sections that are read key by key: name -> (settings class, rules)."""

WORKSPACE: Final = text(4096)

TOP_LEVEL: Final = ("model", *SECTIONS, "platforms", "workspace")
