"""Dovecot and Exim, as Debian packages them, in a private directory and on ports of the loopback, for tests.

Nothing of the system's own mail service is touched. They need root, for each of them changes to a user of its own.
"""

from __future__ import annotations

import imaplib
import os
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from hermes.testing.fake_mail import PASSWORD, TRUSTED, USER

PERSON = "anna@people.test"
START_S = 20.0
EXIM_USER = "Debian-exim"

DOVECOT = """
base_dir = {here}/run
state_dir = {here}/state
log_path = {here}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{here}/cert.pem
ssl_key = <{here}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
mail_location = maildir:{here}/mail/%u
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
first_valid_gid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={here}/mail/%u
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
namespace inbox {{
  inbox = yes
  mailbox "Gesendete Ämter & mehr" {{
    special_use = \\Sent
    auto = create
  }}
}}
"""

EXIM = """
primary_hostname = {trusted}
spool_directory = {here}/spool
log_file_path = {here}/exim-%slog
exim_user = {user}
exim_group = {group}
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {smtp} : {smtps}
tls_on_connect_ports = {smtps}
tls_certificate = {here}/cert.pem
tls_privatekey = {here}/key.pem
tls_advertise_hosts = *
message_size_limit = 30M
never_users =
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny local_parts = nobody
       message = 5.1.1 no such user
  deny local_parts = later
       message = 5.7.1 not for you
  defer local_parts = grey
       message = 4.7.1 come again
  accept authenticated = *
  accept domains = hermes.test
  deny message = 5.7.1 relaying denied
data:
  warn !authenticated = *
       condition = ${{if eqi{{${{domain:${{address:$h_from:}}}}}}{{forged.test}}}}
       add_header = :at_start:Authentication-Results: {trusted}; dmarc=fail header.from=${{domain:${{address:$h_from:}}}}
  warn !authenticated = *
       condition = ${{if eqi{{${{domain:${{address:$h_from:}}}}}}{{people.test}}}}
       add_header = :at_start:Authentication-Results: {trusted}; dmarc=pass header.from=${{domain:${{address:$h_from:}}}}
  accept
begin routers
agent:
  driver = accept
  local_parts = agent
  transport = agent_box
others:
  driver = accept
  transport = people_box
begin transports
agent_box:
  driver = appendfile
  directory = {here}/mail/{agent}
  maildir_format
  create_directory
  return_path_add
people_box:
  driver = appendfile
  directory = {here}/people
  maildir_format
  create_directory
  envelope_to_add
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = yes
  server_condition = ${{if and{{{{eq{{$auth2}}{{{agent}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


def why_not() -> str:
    """Why they cannot run here, in words; empty if they can."""
    missing = [name for name in ("dovecot", "exim4", "openssl") if _program(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install dovecot-imapd exim4-daemon-light openssl)"
    if os.geteuid() != 0:
        return "Dovecot and Exim start as root only"
    try:
        pwd.getpwnam(EXIM_USER)
    except KeyError:
        return f"there is no user {EXIM_USER}"
    return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.defpath}:/usr/sbin:/sbin:/usr/local/sbin")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealMail:
    """The servers.

    Args:
        imap, imaps, smtp, smtps: their ports.
        here: where they keep everything; they must be able to reach it.
        tls: a context that believes their certificate.
    """

    imap: int
    imaps: int
    smtp: int
    smtps: int
    here: Path
    tls: ssl.SSLContext

    def write(self, mail: bytes, *, sender: str = PERSON) -> None:
        """Somebody out there sends the agent a mail."""
        with smtplib.SMTP("127.0.0.1", self.smtp, timeout=20) as client:
            client.sendmail(sender, [USER], mail)

    def delivered(self) -> list[bytes]:
        """What people got, in the order of its arrival."""
        return [path.read_bytes() for path in sorted((self.here / "people" / "new").glob("*"))]

    def mailbox(self) -> imaplib.IMAP4:
        """The agent's own mailbox, by Python's library."""
        client = imaplib.IMAP4("127.0.0.1", self.imap, timeout=20)
        client.login(USER, PASSWORD)
        return client


@contextmanager
def real_mail(here: Path) -> Iterator[RealMail]:
    """Both servers, from when they answer.

    Args:
        here: an empty directory that everybody may pass through.

    Lifetime: exit = their processes have ended.
    """
    person = pwd.getpwnam(EXIM_USER)
    with ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(4)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        imap, imaps, smtp, smtps = (each.getsockname()[1] for each in taken)
    _certificate(here)
    words = {
        "here": here, "user": EXIM_USER, "group": person.pw_gid, "password": PASSWORD, "agent": USER, "trusted": TRUSTED,
        "imap": imap, "imaps": imaps, "smtp": smtp, "smtps": smtps,
    }  # fmt: skip
    (here / "dovecot.conf").write_text(DOVECOT.format(**words), encoding="utf-8")
    (here / "exim.conf").write_text(EXIM.format(**words), encoding="utf-8")
    for name in ("run", "state", "mail", "spool", "people"):
        (here / name).mkdir()
    for name in ("mail", "spool", "people", "."):
        os.chown(here / name, person.pw_uid, person.pw_gid)
    dovecot, exim = _program("dovecot"), _program("exim4")
    assert dovecot is not None
    assert exim is not None
    with (
        _running([dovecot, "-F", "-c", str(here / "dovecot.conf")], here),
        _running([exim, "-C", str(here / "exim.conf"), "-bdf"], here),
    ):
        for port in (imap, smtp):
            _until_greeted(port, here)
        tls = ssl.create_default_context(cafile=str(here / "cert.pem"))
        yield RealMail(imap=imap, imaps=imaps, smtp=smtp, smtps=smtps, here=here, tls=tls)


def _certificate(here: Path) -> None:
    openssl = _program("openssl")
    assert openssl is not None
    key, certificate = here / "key.pem", here / "cert.pem"
    subprocess.run(  # noqa: S603  # our own command
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o644)  # of a test


@contextmanager
def _running(command: list[str], here: Path) -> Iterator[None]:
    """A server in a session of its own, which is ended as a whole."""
    with (here / f"{Path(command[0]).name}.out").open("wb") as out:
        process = subprocess.Popen(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _until_greeted(port: int, here: Path) -> None:
    until = monotonic() + START_S
    while monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                if connection.recv(1):
                    return
        except OSError:
            sleep(0.05)
    said = "\n".join(path.read_text(errors="replace")[-500:] for path in here.glob("*.[lo][ou][gt]"))
    raise AssertionError(f"no server greets at {port}: {said}")
