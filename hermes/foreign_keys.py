"""Keys of hermes-agent's `config.yaml` that mean nothing here: warnings, with our own key where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

HOME_MARK: Final = "_config_version"
"""A key that only a home written by hermes-agent has."""


def _none(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "")


TOP_LEVEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_none(
            "providers custom_providers credential_pool_strategies provider_routing group_sessions_per_user "
            "thread_sessions_per_user reset_triggers session_store_max_age_days unauthorized_dm_behavior "
            "filter_silence_narration quick_commands personalities platform_hints platform_toolsets toolsets timezone "
            "prefill_messages_file gateway mattermost matrix whatsapp stt tts voice human_delay "
            "approvals command_allowlist security privacy compression context context_file_max_chars prompt_caching "
            "memory skills curator delegation goals moa cron kanban web tools browser tool_loop_guardrails "
            "code_execution checkpoints mcp_servers mcp_discovery_timeout file_read_max_chars lsp plugins hooks "
            "hooks_auto_accept network secrets updates onboarding model_catalog auxiliary"
        ),
        "slack": "platforms.slack",
        "discord": "platforms.discord",
        "telegram": "platforms.telegram",
        "fallback_providers": "model.fallback",
        "model_aliases": "model.aliases",
        "max_concurrent_sessions": "sessions.max_live",
        "streaming": "delivery.edit_interval_s",
        "display": "sessions.busy for busy_input_mode",
        "tool_output": "terminal.max_output_bytes",
    }
)

BY_SECTION: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "model": {**_none("max_tokens"), "context_length": "model.context_tokens"},
        "agent": {
            **_none(
                "gateway_timeout_warning gateway_notify_interval clarify_timeout gateway_auto_continue_freshness "
                "image_input_mode disabled_toolsets reasoning_effort reasoning_overrides service_tier "
                "tool_use_enforcement intent_ack_continuation verify_on_stop max_verify_nudges coding_context "
                "environment_probe environment_hint"
            ),
            "max_turns": "agent.max_steps",
            "gateway_timeout": "sessions.turn_timeout_s",
            "restart_drain_timeout": "shutdown.drain_timeout_s",
            "api_max_retries": "model.retry_budget",
            "local_stream_stale_timeout": "sessions.stall_timeout_s",
        },
        "session_reset": _none(
            "notify notify_exclude_platforms bg_process_max_age_hours reset_by_platform reset_by_type"
        ),
        "terminal": {
            **_none(
                "backend persistent_shell docker_image container_cpu container_memory container_disk "
                "container_persistent docker_network home_mode"
            ),
            "cwd": "workspace",
            "timeout": "terminal.timeout_s",
            "daemon_term_grace_seconds": "terminal.kill_grace_s",
        },
        "sessions": {
            **_none("auto_prune vacuum_after_prune min_interval_hours write_json_snapshots"),
            "retention_days": "retention.sessions_days",
        },
        "logging": {
            **_none("memory_monitor"),
            "max_size_mb": "logging.max_bytes",
            "backup_count": "logging.files",
        },
    }
)
