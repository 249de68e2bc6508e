"""The REST API of the fake Discord: its routes, its rules for messages, its error codes and its limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hermes.testing.fake_http import Answered, Asked, answer_json

if TYPE_CHECKING:
    from hermes.testing.fake_discord import FakeDiscord

MAX_TEXT = 2000
NOTHING = Answered(status=204)


class Refused(Exception):
    """A request that Discord refuses, with its status, code and words."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = answer_json({"message": message, "code": code}, status)


UNKNOWN_CHANNEL = (404, 10003, "Unknown Channel")
UNKNOWN_MESSAGE = (404, 10008, "Unknown Message")
DENIED = {
    50001: (403, "Missing Access"),
    50007: (403, "Cannot send messages to this user"),
    50013: (403, "Missing Permissions"),
}


class RestSide:
    """The routes. What they change is in the world."""

    def __init__(self, world: FakeDiscord) -> None:
        self._world = world
        self._nonces: dict[str, dict[str, Any]] = {}
        self._used: dict[str, list[float]] = {}
        channel, message = r"/channels/(\d+)", r"/channels/(\d+)/messages/(\d+)"
        self._routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/users/@me", lambda _: world.users["1000"] | {"verified": True}),
            ("GET", "(?:/oauth2)?/applications/@me", lambda _: self._application()),
            ("GET", "/gateway/bot", lambda _: self._gateway()),
            ("GET", "/users/@me/guilds", lambda _: [{"id": "500", "name": "a server", "permissions": str(1 << 3)}]),
            ("POST", "/users/@me/channels", lambda _: world.channels["502"]),
            ("GET", channel, lambda _, id_: self._channel(id_)),
            ("GET", f"{channel}/messages", self._list),
            ("POST", f"{channel}/messages", self._create),
            ("GET", message, lambda _, id_, which: self._message(id_, which)),
            ("PATCH", message, self._edit),
            ("DELETE", message, self._delete),
            ("POST", f"{channel}/typing", self._type),
            ("PUT", rf"{message}/reactions/(.+)/@me", self._react),
            ("DELETE", rf"{message}/reactions/(.+)/@me", self._unreact),
            ("POST", f"{message}/threads", self._thread),
            ("GET", r"/applications/1000/commands", lambda _: world.commands),
            ("PUT", r"/applications/1000/commands", self._commands),
            ("POST", r"/interactions/(\d+)/([^/]+)/callback", self._callback),
            ("GET", r"/webhooks/1000/([^/]+)/messages/@original", self._original),
            ("PATCH", r"/webhooks/1000/([^/]+)/messages/@original", self._fill),
            ("POST", r"/webhooks/1000/([^/]+)", self._follow_up),
        ]

    async def handle(self, asked: Asked) -> Answered:
        """Answer one request."""
        world = self._world
        world.requests.append(asked)
        world.touch()
        for fault in world.faults:
            if re.fullmatch(fault.method, asked.method) and re.search(fault.path, asked.path):
                break
        else:
            return self._serve(asked)
        world.faults.remove(fault)
        if fault.times > 1:
            world.faults.insert(0, type(fault)(answer=fault.answer, method=fault.method, path=fault.path,
                                               times=fault.times - 1, serve=fault.serve))  # fmt: skip
        if fault.serve or fault.answer is None:
            self._serve(asked)
        world.touch()
        return fault.answer or Answered(cut=0)

    def _serve(self, asked: Asked) -> Answered:
        try:
            found = re.fullmatch(r"/attachments/(.+)", asked.path)
            if found:
                if found[1] not in self._world.files:
                    raise Refused(404, 0, "404: Not Found")
                return Answered(body=self._world.files[found[1]], media_type="application/octet-stream")
            path = asked.path.removeprefix("/api/v10")
            if not path.startswith(("/interactions/", "/webhooks/")):
                self._authorize(asked)
            headers = self._limit(asked, path)
            for method, pattern, handler in self._routes:
                match = re.fullmatch(pattern, path)
                if method == asked.method and match:
                    done = handler(asked, *match.groups())
                    self._world.touch()
                    if isinstance(done, Answered):
                        return Answered(status=done.status, body=done.body, headers=headers)
                    return answer_json(done, headers=headers)
            raise Refused(404, 0, "404: Not Found")
        except Refused as refused:
            return refused.answer
        except ValueError:
            return answer_json({"message": "400: Bad Request", "code": 50109}, 400)

    def _authorize(self, asked: Asked) -> None:
        if self._world.reject_auth or asked.headers.get("authorization") != f"Bot {self._world.token}":
            raise Refused(401, 0, "401: Unauthorized")

    def _limit(self, asked: Asked, path: str) -> dict[str, str]:
        """Count the request in its bucket. Raises Refused with a 429 when that is empty."""
        found = re.fullmatch(r"/channels/(\d+)/messages", path)
        if self._world.bucket is None or asked.method != "POST" or not found:
            return {}
        limit, window_s = self._world.bucket
        now = self._world.clock()
        used = [each for each in self._used.get(found[1], []) if each > now - window_s]
        after = (used[0] + window_s - now) if used else window_s
        left = limit - len(used) - 1
        headers = {
            "x-ratelimit-bucket": "b0c4e7", "x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(max(0, left)),
            "x-ratelimit-reset-after": f"{after:.3f}",
        }  # fmt: skip
        if left < 0:
            refused = Refused(429, 0, "")
            document = {"message": "You are being rate limited.", "retry_after": after, "global": False}
            refused.answer = answer_json(
                document, 429, {**headers, "retry-after": f"{after:.0f}", "x-ratelimit-scope": "user"}
            )
            raise refused
        self._used[found[1]] = [*used, now]
        return headers

    def _application(self) -> dict[str, Any]:
        flags = 1 << 19 if self._world.allowed_intents & 1 << 15 else 0
        return {"id": "1000", "name": "hermes", "flags": flags, "approximate_guild_count": 1, "description": "",
                "icon": None, "bot_public": True, "bot_require_code_grant": False, "summary": "", "verify_key": "0",
                "owner": self._world.users["900"], "team": None}  # fmt: skip

    def _gateway(self) -> dict[str, Any]:
        limit = {
            "total": 1000,
            "remaining": self._world.identifies_left,
            "reset_after": 14_400_000,
            "max_concurrency": 1,
        }
        return {"url": self._world.gateway_url, "shards": self._world.shards, "session_start_limit": limit}

    def guild(self) -> dict[str, Any]:
        """The one server, as GUILD_CREATE has it."""
        channels = [each for each in self._world.channels.values() if each["type"] not in (1, 10, 11, 12)]
        threads = [each for each in self._world.channels.values() if each["type"] in (10, 11, 12)]
        everyone = {"id": "500", "name": "@everyone", "color": 0, "hoist": False, "position": 0, "managed": False,
                    "permissions": str((1 << 50) - 1), "mentionable": False, "flags": 0,
                    "colors": {"primary_color": 0}}  # fmt: skip
        members = [
            {
                "user": user,
                "roles": [],
                "joined_at": "2026-01-01T00:00:00+00:00",
                "deaf": False,
                "mute": False,
                "flags": 0,
            }
            for user in self._world.users.values()
        ]
        return {
            "id": "500", "name": "a server", "owner_id": "900", "channels": channels, "threads": threads, "roles": [everyone],
            "emojis": [], "stickers": [], "features": [], "members": members, "member_count": len(members), "presences": [],
            "voice_states": [], "stage_instances": [], "guild_scheduled_events": [], "soundboard_sounds": [], "large": False,
            "verification_level": 0, "default_message_notifications": 0, "explicit_content_filter": 0, "mfa_level": 0,
            "system_channel_id": None, "system_channel_flags": 0, "rules_channel_id": None, "afk_channel_id": None,
            "afk_timeout": 300, "icon": None, "splash": None, "discovery_splash": None, "banner": None, "description": None,
            "preferred_locale": "en-US", "public_updates_channel_id": None, "premium_tier": 0, "nsfw_level": 0,
            "vanity_url_code": None, "premium_progress_bar_enabled": False, "application_id": None, "unavailable": False,
            "joined_at": "2026-01-01T00:00:00+00:00", "max_members": 500_000,
        }  # fmt: skip

    # --- channels and messages

    def _channel(self, id_: str) -> dict[str, Any]:
        if id_ not in self._world.channels:
            raise Refused(*UNKNOWN_CHANNEL)
        if (code := self._world.denied.get(id_)) is not None:
            status, words = DENIED[code]
            raise Refused(status, code, words)
        return self._world.channels[id_]

    def _message(self, channel: str, id_: str) -> dict[str, Any]:
        self._channel(channel)
        found = self._world.messages[channel].get(id_)
        if found is None:
            raise Refused(*UNKNOWN_MESSAGE)
        return found

    def _list(self, asked: Asked, channel: str) -> list[dict[str, Any]]:
        self._channel(channel)
        after, limit = int(asked.query.get("after", "0")), int(asked.query.get("limit", "50"))
        newer = [each for each in self._world.messages[channel].values() if int(each["id"]) > after]
        return sorted(newer, key=lambda each: int(each["id"]))[:limit][::-1]

    def _checked(self, asked: Asked, *, new: bool = True) -> dict[str, Any]:
        """The body of a message by the service's rules."""
        body = asked.document() or {}
        text = body.get("content") or ""
        files = [each for each in asked.parts() if each[0].startswith("files")] if asked.is_form else []
        if len(text) > MAX_TEXT or len(str(body.get("nonce") or "")) > 25:
            raise Refused(400, 50035, "Invalid Form Body")
        if new and not text.strip() and not files and not body.get("embeds"):
            raise Refused(400, 50006, "Cannot send an empty message")
        rows = body.get("components") or []
        ids = [each.get("custom_id") for row in rows for each in row["components"]]
        bad = [row for row in rows if not 1 <= len(row["components"]) <= 5]
        if len(rows) > 5 or bad or len(set(ids)) < len(ids) or any(not 1 <= len(each or "") <= 100 for each in ids):
            raise Refused(400, 50035, "Invalid Form Body")
        fields = {name: body[name] for name in ("components", "flags", "message_reference", "nonce") if name in body}
        reference = fields.pop("message_reference", None)
        if reference:  # ids may be numbers, too
            fields["message_reference"] = reference | {"message_id": str(reference["message_id"])}
        fields["content"] = text.strip()
        if files:
            fields["attachments"] = [self._keep(name or "file", data) for _, name, data in files]
        return fields | {"enforce_nonce": body.get("enforce_nonce", False)}

    def _keep(self, name: str, data: bytes) -> dict[str, Any]:
        id_ = self._world.snowflake()
        self._world.files[f"{id_}/{name}"] = data
        url = f"http://127.0.0.1:{self._world.port}/attachments/{id_}/{name}"
        return {"id": id_, "filename": name, "size": len(data), "url": url, "proxy_url": url}

    def _create(self, asked: Asked, channel: str) -> dict[str, Any]:
        self._channel(channel)
        fields = self._checked(asked)
        enforced, nonce = fields.pop("enforce_nonce"), fields.get("nonce")
        if enforced and nonce and nonce in self._nonces:
            return self._nonces[nonce]
        reference = fields.get("message_reference")
        if reference and reference["message_id"] not in self._world.messages[channel]:
            if reference.get("fail_if_not_exists", True):
                raise Refused(400, 50035, "Invalid Form Body")
            del fields["message_reference"]
        message = self._world.add_message(channel, "1000", fields.pop("content"), **fields)
        if enforced and nonce:
            self._nonces[nonce] = message
        self._world.gateway.dispatch("MESSAGE_CREATE", self._world.event_of(message))
        return message

    def _edit(self, asked: Asked, channel: str, id_: str) -> dict[str, Any]:
        message = self._message(channel, id_)
        if message["author"]["id"] != "1000":
            raise Refused(403, 50005, "Cannot edit a message authored by another user")
        fields = self._checked(asked, new=False)
        del fields["enforce_nonce"]
        message |= fields | {"edited_timestamp": "2026-01-01T00:00:02+00:00"}
        self._world.gateway.dispatch("MESSAGE_UPDATE", self._world.event_of(message))
        return message

    def _delete(self, _: Asked, channel: str, id_: str) -> Answered:
        self._message(channel, id_)
        del self._world.messages[channel][id_]
        return NOTHING

    def _type(self, _: Asked, channel: str) -> Answered:
        self._channel(channel)
        self._world.typing.append(channel)
        return NOTHING

    def _react(self, _: Asked, channel: str, id_: str, emoji: str) -> Answered:
        message = self._message(channel, id_)
        message["reactions"] = [*message["reactions"], {"emoji": {"id": None, "name": emoji}, "me": True, "count": 1}]
        self._world.reactions.append((channel, id_, emoji))
        return NOTHING

    def _unreact(self, _: Asked, channel: str, id_: str, emoji: str) -> Answered:
        message = self._message(channel, id_)
        message["reactions"] = [each for each in message["reactions"] if each["emoji"]["name"] != emoji]
        return NOTHING

    def _thread(self, asked: Asked, channel: str, id_: str) -> dict[str, Any]:
        self._message(channel, id_)
        if id_ in self._world.channels:
            raise Refused(400, 160004, "A thread has already been created for this message")
        return self._world.add_channel(id_, 11, name=asked.document()["name"], parent=channel)

    # --- commands and interactions

    def _commands(self, asked: Asked) -> list[dict[str, Any]]:
        self._world.commands[:] = [
            {"id": self._world.snowflake(), "application_id": "1000", "version": "1", "default_member_permissions": None,
             "type": 1, "nsfw": False} | each
            for each in asked.document()
        ]  # fmt: skip
        return self._world.commands

    def _held(self, token: str) -> dict[str, Any]:
        held = self._world.interactions.get(token)
        if held is None:
            raise Refused(404, 10015, "Unknown Webhook")
        return held

    def _callback(self, asked: Asked, id_: str, token: str) -> Answered:
        held = self._world.interactions.get(token)
        if held is None or held["interaction"]["id"] != id_:
            raise Refused(404, 10062, "Unknown interaction")
        if held["answer"] is not None:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        answer: dict[str, Any] = asked.document()
        held["answer"] = answer
        if answer["type"] in (4, 5):
            loading = answer["type"] == 5
            text = (answer.get("data") or {}).get("content") or ""
            channel = held["interaction"]["channel_id"]
            held["message"] = self._world.add_message(channel, "1000", text, flags=128 if loading else 0)
        if asked.query.get("with_response", "").lower() not in ("1", "true"):
            return NOTHING
        about: dict[str, Any] = {"id": id_, "type": held["interaction"]["type"]}
        resource: dict[str, Any] = {"type": answer["type"]}
        if held["message"] is not None:
            about |= {"response_message_id": held["message"]["id"], "response_message_loading": answer["type"] == 5}
            resource["message"] = held["message"]
        return answer_json({"interaction": about, "resource": resource})

    def _original(self, _: Asked, token: str) -> dict[str, Any]:
        message: dict[str, Any] | None = self._held(token)["message"]
        if message is None:
            raise Refused(*UNKNOWN_MESSAGE)
        return message

    def _fill(self, asked: Asked, token: str) -> dict[str, Any]:
        message = self._original(asked, token)
        fields = self._checked(asked, new=False)
        del fields["enforce_nonce"]
        message |= fields | {"flags": 0}
        return message

    def _follow_up(self, asked: Asked, token: str) -> dict[str, Any]:
        channel = self._held(token)["interaction"]["channel_id"]
        fields = self._checked(asked)
        del fields["enforce_nonce"]
        return self._world.add_message(channel, "1000", fields.pop("content"), **fields)
