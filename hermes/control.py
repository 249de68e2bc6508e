"""What the control socket can ask of a gateway: stop, reload, back up. The socket is its owner's alone; TCP never gets here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from hermes.current import Current
from hermes.errors import RequestError, StoreUnavailable
from hermes.http.services import Json, Services
from hermes.stopping import Stop

Action = Callable[[Json], Awaitable[Json]]


def control_actions(services: Services, current: Current, stop: Stop) -> Mapping[str, Action]:
    """Name -> what `POST /control/{name}` does."""

    async def stop_gateway(body: Json) -> Json:
        reason = body.get("reason", "asked through the control socket")
        if not isinstance(reason, str):
            raise RequestError(400, "reason must be a string", param="reason")
        stop.request(reason[:200], current.config.shutdown.total_s)
        return {"stopping": True, "within_s": current.config.shutdown.total_s}

    async def reload(_body: Json) -> Json:
        if not await current.reload():
            words = f"the configuration is not in order; the one before still holds: {current.error}"
            raise RequestError(409, words, code="config_refused")
        return {"reloaded": True, "changed": sorted(current.changed), "after_restart": sorted(current.waiting)}

    async def backup(body: Json) -> Json:
        path = body.get("path")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise RequestError(400, "path must be the absolute path of a file that does not exist yet", param="path")
        if services.store is None:
            raise RequestError(503, "the store is not open", code="starting", kind="server_error", retry_after_s=1)
        try:
            report = await services.store.database.backup(Path(path))
        except OSError as error:
            raise RequestError(
                409, f"the backup was not made: {error.strerror or error}", code="backup_failed", param="path"
            ) from error
        except StoreUnavailable as error:
            if error.reason in ("busy", "closed"):
                raise
            words = f"the backup was not made: {error.detail or error}"
            raise RequestError(409, words, code="backup_failed", param="path") from error
        return {"path": str(report.path), "size_bytes": report.size_bytes, "schema": report.version, "verified": True}

    return {"stop": stop_gateway, "reload": reload, "backup": backup}
