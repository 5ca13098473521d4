-- Kinds and ids compare by their bytes, as they do outside the database: everybody locks rows in the same order.

CREATE TABLE events (
    position    bigint      GENERATED ALWAYS AS IDENTITY,
    -- With the position, the order of the feed: see src/feed.rs.
    tx          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    kind        text        COLLATE "C" NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    seq         bigint      NOT NULL,
    type        text        NOT NULL,
    data        text        NOT NULL,
    actor       text        NOT NULL,
    traceparent text,
    at          timestamptz NOT NULL,
    prev_hash   bytea       NOT NULL,
    hash        bytea       NOT NULL,
    PRIMARY KEY (kind, id, seq)
);
CREATE INDEX events_feed ON events (tx, position);
CREATE INDEX events_at ON events USING brin (at);

CREATE TABLE aggregates (
    kind          text        COLLATE "C" NOT NULL,
    id            text        COLLATE "C" NOT NULL,
    seq           bigint      NOT NULL,
    state_version integer     NOT NULL,
    status        text        NOT NULL,
    service       text        NOT NULL,
    environment   text        NOT NULL,
    correlation   text        NOT NULL,
    labels        jsonb       NOT NULL,
    final         boolean     NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    -- When the executor has something to do; NULL when it has nothing.
    due_at        timestamptz,
    -- When the next poll is; NULL when nothing is polled.
    poll_at       timestamptz,
    -- The latest hint that no poll has served yet.
    hinted_at     timestamptz,
    lease_owner   text,
    lease_until   timestamptz,
    -- Claims since the last progress.
    attempts      integer     NOT NULL,
    -- Why the executor gave up.
    set_aside     text,
    traceparent   text,
    head_hash     bytea       NOT NULL,
    state         text        NOT NULL,
    PRIMARY KEY (kind, id)
    -- Room on each page for the next version of its rows, which then needs no new index entries.
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX aggregates_due ON aggregates (due_at) WHERE due_at IS NOT NULL AND set_aside IS NULL;
CREATE INDEX aggregates_set_aside ON aggregates (kind, id) WHERE set_aside IS NOT NULL;
CREATE INDEX aggregates_list ON aggregates (kind, created_at DESC, id DESC);
CREATE INDEX aggregates_active ON aggregates (kind, created_at DESC, id DESC) WHERE NOT final;
CREATE INDEX aggregates_service ON aggregates (kind, service, created_at DESC, id DESC) WHERE service <> '';
CREATE INDEX aggregates_correlation ON aggregates (correlation, kind, created_at DESC, id DESC) WHERE correlation <> '';
CREATE INDEX aggregates_labels ON aggregates USING gin (labels jsonb_path_ops) WHERE labels <> '{}';

CREATE TABLE requests (
    principal   text        NOT NULL,
    method      text        NOT NULL,
    request_id  text        NOT NULL,
    fingerprint text        NOT NULL,
    kind        text        NOT NULL,
    id          text        NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (principal, method, request_id)
);
CREATE INDEX requests_age ON requests USING brin (created_at);

CREATE TABLE leases (
    name  text        PRIMARY KEY,
    owner text        NOT NULL,
    until timestamptz NOT NULL
);

CREATE TABLE relay (
    name          text   PRIMARY KEY,
    tx            xid8   NOT NULL,
    position      bigint NOT NULL,
    last_entry_id text
);
