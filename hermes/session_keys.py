"""Which conversation an event belongs to, and whose it is: keys of sessions. Pure.

A key is `account:type:chat[:thread][:user person]`, its parts escaped, so that no two places share one whatever ids a service
or a sender makes up.
"""

from __future__ import annotations

from hermes.access import AccessPolicy
from hermes.events import InboundEvent

_USER = "user "  # begins the last part of a key that names a person; `escaped` keeps it from anything else


def session_key(policy: AccessPolicy, event: InboundEvent) -> str:
    """The mailbox of an event; a person's own in a group, where the policy says so."""
    address = event.address
    parts = [address.account, event.chat_kind, address.chat]
    if address.thread is not None:
        parts.append(address.thread)
    if event.chat_kind != "dm" and not is_shared(policy, event):
        return ":".join((*map(escaped, parts), _USER + escaped(event.sender.id)))
    return ":".join(map(escaped, parts))


def escaped(part: str) -> str:
    """A part of a session's key, without the signs that separate parts and mark the one that names a person."""
    return part.replace("%", "%25").replace(":", "%3A").replace(" ", "%20")


def kind_of_chat(key: str) -> str:
    """What `InboundEvent.chat_kind` said where this key was made; empty for a key of another form."""
    return key.split(":", 2)[1] if key.count(":") >= 2 else ""


def is_personal(key: str) -> bool:
    """Whether the conversation of a session's key is with one person: a direct message, or that person's own in a group."""
    return kind_of_chat(key) == "dm" or key.rpartition(":")[2].startswith(_USER)


def owns(key: str, principal: str, other_key: str, other_principal: str) -> bool:
    """Whether a conversation belongs to whoever speaks now, so that it may be listed and gone on with.

    A personal conversation belongs to the person that began it, wherever on the account that person speaks alone with us; a shared
    one belongs to its place and is seen nowhere else, nor is a personal one seen there.

    Args:
        key: of the session that is spoken in.
        principal: who speaks, `account:person`.
        other_key, other_principal: of the conversation, as it was begun.
    """
    if not is_personal(key):
        return other_key == key
    same_account = other_key.partition(":")[0] == key.partition(":")[0]
    return same_account and is_personal(other_key) and other_principal == principal


def is_shared(policy: AccessPolicy, event: InboundEvent) -> bool:
    """Whether several people speak in the conversation of this event, so that each must be named to the model.

    In a group each person has a conversation of its own by default; a thread is one conversation for all in it.
    """
    if event.chat_kind == "dm":
        return False
    apart = event.address.thread is None or policy.thread_sessions_per_user
    return not (policy.group_sessions_per_user and apart)
