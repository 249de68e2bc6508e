"""Webhooks: other programs call, signed, and are answered on the spot or somewhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hermes.platform import CheckReport, Host, Platform, PlatformSpec
from platforms.webhook.config import CAPABILITIES, WebhookConfig

__all__ = ["platform"]


@asynccontextmanager
async def _open(config: WebhookConfig, host: Host) -> AsyncIterator[Platform]:
    from platforms.webhook.connection import open_webhook  # reading what a platform is loads nothing more

    async with open_webhook(config, host) as found:
        yield found


async def _check(config: WebhookConfig, host: Host) -> CheckReport:
    from platforms.webhook.connection import check

    return await check(config, host)


platform = PlatformSpec(
    name="webhook",
    config=WebhookConfig,
    capabilities=CAPABILITIES,
    secrets=(),  # two accounts may well be called by one program
    help="Other programs call POST /hooks/ROUTE: GitHub, GitLab, Stripe, Slack, or anything that signs what it sends.",
    open=_open,
    check=_check,
    # Who calls has shown a secret of its route, and one program's call is never a correction of the one before.
    access={"dm_policy": "open", "busy": "queue"},
)
