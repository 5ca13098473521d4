-- Times are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE events (
    -- One writer at a time: positions are in commit order.
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    data        TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    traceparent TEXT,
    at          INTEGER NOT NULL,
    prev_hash   BLOB    NOT NULL,
    hash        BLOB    NOT NULL,
    UNIQUE (kind, id, seq)
) STRICT;

CREATE TABLE aggregates (
    kind          TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    status        TEXT    NOT NULL,
    service       TEXT    NOT NULL,
    environment   TEXT    NOT NULL,
    correlation   TEXT    NOT NULL,
    labels        TEXT    NOT NULL,
    final         INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    -- When the executor has something to do; NULL when it has nothing.
    due_at        INTEGER,
    -- When the next poll is; NULL when nothing is polled.
    poll_at       INTEGER,
    -- The latest hint that no poll has served yet.
    hinted_at     INTEGER,
    lease_owner   TEXT,
    lease_until   INTEGER,
    -- Claims since the last progress.
    attempts      INTEGER NOT NULL,
    -- Why the executor gave up.
    set_aside     TEXT,
    traceparent   TEXT,
    head_hash     BLOB    NOT NULL,
    state         TEXT    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE INDEX aggregates_due ON aggregates (due_at) WHERE due_at IS NOT NULL AND set_aside IS NULL;
CREATE INDEX aggregates_set_aside ON aggregates (updated_at) WHERE set_aside IS NOT NULL;
CREATE INDEX aggregates_list ON aggregates (kind, created_at DESC, id DESC);
CREATE INDEX aggregates_active ON aggregates (kind, created_at DESC, id DESC) WHERE final = 0;
CREATE INDEX aggregates_service ON aggregates (kind, service, created_at DESC, id DESC) WHERE service <> '';
CREATE INDEX aggregates_correlation ON aggregates (correlation, kind, created_at DESC, id DESC) WHERE correlation <> '';
CREATE INDEX aggregates_version ON aggregates (kind, state_version, id);

CREATE TABLE requests (
    principal   TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    request_id  TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (principal, method, request_id)
) STRICT;
CREATE INDEX requests_age ON requests (created_at);

CREATE TABLE leases (
    name  TEXT    PRIMARY KEY,
    owner TEXT    NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE TABLE relay (
    name          TEXT PRIMARY KEY,
    position      INTEGER NOT NULL,
    last_entry_id TEXT
) STRICT;
