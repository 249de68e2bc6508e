"""`hermes platform check`: what the servers say about the account, without sending or changing anything."""

from __future__ import annotations

from collections import Counter
from email import message_from_bytes, policy

from hermes.errors import PlatformUnavailable, SendError
from hermes.platform import CheckReport, Host
from platforms.email.authentication import servers
from platforms.email.config import ANY_FROM, EmailConfig, copies
from platforms.email.imap import Imap, open_imap, sent_mailbox
from platforms.email.smtp import open_smtp

LOOKED_AT = 20  # of the latest mails
MAX_NAME = 100


async def check(config: EmailConfig, host: Host) -> CheckReport:
    """Who we are, how mails come and go, whose word is taken for a sender."""
    facts, missing = list[str](), list[str]()
    async with open_imap(config, host) as imap:
        mailbox = await imap.select(config.mailbox)
        waits = config.idle and "IDLE" in imap.capabilities
        facts.append("mails come by IDLE" if waits else f"the mailbox is looked through each {config.poll_s:g} s")
        names = await _names(imap, mailbox.next_uid)
        sent = await sent_mailbox(imap, config)
    try:
        async with open_smtp(config, host) as smtp:
            size = smtp.extensions.get("SIZE", "")
            await smtp.leave()
    except SendError as error:
        raise PlatformUnavailable(str(error)) from None
    facts.append(
        f"mails are submitted at {config.smtp_host}" + (f", of at most {int(size):,} bytes" if size.isdigit() else "")
    )
    _about_copies(config, sent, facts, missing)
    _about_senders(config, names, facts, missing)
    return CheckReport(identity=config.address, facts=tuple(facts), missing=tuple(missing))


async def _names(imap: Imap, next_uid: int) -> Counter[str]:
    """Who says to have checked the latest mails: of each the topmost name, which is our server's if it checks any."""
    found: Counter[str] = Counter()
    for uid in (await imap.search(b"UID %d:*" % max(1, next_uid - LOOKED_AT)))[-LOOKED_AT:]:
        mail = await imap.fetch(uid, b"BODY.PEEK[HEADER]")
        head = mail.get("BODY[HEADER]") if mail is not None else None
        if isinstance(head, bytes):
            found.update(servers(message_from_bytes(head, policy=policy.compat32))[:1])
    return found


def _about_copies(config: EmailConfig, sent: str | None, facts: list[str], missing: list[str]) -> None:
    match copies(config):
        case "none":
            facts.append("no copies of what is sent are kept: what is in doubt is sent again, with a mark")
        case _ if sent is None:
            missing.append("there is no folder of what was sent: make one called Sent, or name it as `sent_mailbox`")
        case "server":
            facts.append(f"the SMTP service keeps copies of what is sent in {sent}")
        case _:
            facts.append(f"copies of what is sent are put into {sent}")


def _about_senders(config: EmailConfig, names: Counter[str], facts: list[str], missing: list[str]) -> None:
    seen = ", ".join(f"{name[:MAX_NAME]} ({count})" for name, count in names.most_common(5)) or "none"
    facts.append(f"names atop the Authentication-Results of the latest mails: {seen}")
    if config.authserv_id is None:
        how = "set it to your mail server's name among those"
        if not names:
            how = "send the mailbox a mail from elsewhere and check again, to see your mail server's name"
        missing.append(f"`authserv_id` is not set, so nobody's mails are read: {how}")
    elif config.authserv_id == ANY_FROM:
        missing.append("`authserv_id: none` believes any From line: whoever knows an allowed address can speak for it")
    elif names and not any(name.lower() == config.authserv_id.lower() for name in names):
        missing.append(
            f"none of the latest mails was checked by {config.authserv_id}: mails that were not are passed over"
        )
