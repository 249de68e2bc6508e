"""The tables, as append-only migrations. A migration that has landed is never edited: the next change is a new one.

Order within a mailbox and within a conversation is a counter in the session's own row, never a global id. Everything that is
claimed carries its owner (`boot_id`). Ids that the gateway makes begin with their time, so that new rows share
pages. No row holds a local path or a process id.
"""

from __future__ import annotations

from hermes.store.migrations import Migration

M001 = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    principal TEXT NOT NULL,
    title TEXT,
    model TEXT,
    instructions TEXT,
    prefix BLOB,
    parent_id TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    ended_at REAL,
    end_reason TEXT,
    expires_at REAL,
    next_event INTEGER NOT NULL DEFAULT 1,
    next_message INTEGER NOT NULL DEFAULT 1,
    turns INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_open ON sessions (key) WHERE ended_at IS NULL;
CREATE INDEX sessions_recent ON sessions (updated_at) WHERE expires_at IS NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE messages (
    session_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    turn_id TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (session_id, seq)
) WITHOUT ROWID;

CREATE TABLE inbox (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    chat TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    session_key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    mode TEXT NOT NULL,
    source TEXT NOT NULL,
    principal TEXT NOT NULL,
    busy TEXT NOT NULL,
    may_change INTEGER NOT NULL,
    payload BLOB,
    accepted_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    resume INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending',
    reason TEXT,
    turn_id TEXT,
    finished_at REAL,
    UNIQUE (event_id, account, chat, kind)
);
CREATE INDEX inbox_open ON inbox (session_key, seq) WHERE state IN ('pending', 'live');

CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    mode TEXT NOT NULL,
    state TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    changed INTEGER NOT NULL DEFAULT 0,
    outcome BLOB
) WITHOUT ROWID;
CREATE INDEX turns_session ON turns (session_id, started_at);

CREATE TABLE steps (
    turn_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    state TEXT NOT NULL,
    message BLOB NOT NULL,
    opened_at REAL NOT NULL,
    PRIMARY KEY (turn_id, number)
) WITHOUT ROWID;
CREATE INDEX steps_session ON steps (session_id);

CREATE TABLE calls (
    turn_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    name TEXT NOT NULL,
    client INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    state TEXT NOT NULL,
    result BLOB,
    PRIMARY KEY (turn_id, number, position)
) WITHOUT ROWID;

CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    event_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (principal, route, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    session_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    upto INTEGER NOT NULL,
    record BLOB NOT NULL,
    outcome BLOB NOT NULL,
    created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX responses_age ON responses (created_at);
CREATE INDEX responses_session ON responses (session_id);

CREATE TABLE run_events (
    event_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (event_id, number)
) WITHOUT ROWID;
"""

M002 = """
CREATE TABLE cursors (
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;

CREATE TABLE account_memory (
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (account, key)
) WITHOUT ROWID;

ALTER TABLE inbox ADD COLUMN thread TEXT;
ALTER TABLE inbox ADD COLUMN reply BLOB;
ALTER TABLE inbox ADD COLUMN held_until REAL;
ALTER TABLE inbox ADD COLUMN part_of TEXT;
CREATE INDEX inbox_context ON inbox (account, chat, id) WHERE state = 'context' AND turn_id IS NULL;
CREATE INDEX inbox_commands ON inbox (session_key, id) WHERE state = 'pending' AND kind = 'command';

CREATE TABLE addresses (
    account TEXT NOT NULL,
    chat TEXT NOT NULL,
    thread TEXT NOT NULL DEFAULT '',
    next_part INTEGER NOT NULL DEFAULT 1,
    used_at REAL NOT NULL,
    gone_at REAL,
    gone_reason TEXT,
    moved_to TEXT,
    PRIMARY KEY (account, chat, thread)
) WITHOUT ROWID;
CREATE INDEX addresses_used ON addresses (used_at);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    chat TEXT NOT NULL,
    thread TEXT NOT NULL DEFAULT '',
    seq INTEGER NOT NULL,
    source TEXT NOT NULL,
    turn_id TEXT,
    content BLOB NOT NULL,
    reply BLOB,
    state TEXT NOT NULL,
    reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    doubtful INTEGER NOT NULL DEFAULT 0,
    receipt BLOB,
    boot_id TEXT,
    tried_at REAL,
    created_at REAL NOT NULL,
    finished_at REAL
);
CREATE INDEX outbox_open ON outbox (account, chat, thread, seq) WHERE state IN ('live', 'pending', 'sending', 'ambiguous');
CREATE INDEX outbox_done ON outbox (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX outbox_turn ON outbox (turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE state IN ('rejected', 'held');

CREATE INDEX sessions_of_principal ON sessions (principal) WHERE expires_at IS NULL;
CREATE INDEX sessions_of_key ON sessions (key) WHERE expires_at IS NULL;

CREATE TABLE allowed (
    account TEXT NOT NULL,
    person TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (account, person)
) WITHOUT ROWID;

CREATE TABLE pairing_codes (
    account TEXT NOT NULL,
    person TEXT NOT NULL,
    code TEXT NOT NULL,
    made_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (account, person)
) WITHOUT ROWID;
"""

M003 = """
ALTER TABLE inbox ADD COLUMN fetch_until REAL;
CREATE INDEX inbox_unfetched ON inbox (id) WHERE state = 'pending' AND fetch_until IS NOT NULL;
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration("m001_core", M001),
    Migration("m002_platforms", M002),
    Migration("m003_media", M003),
)
