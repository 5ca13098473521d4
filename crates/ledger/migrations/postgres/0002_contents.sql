-- Bodies that are too large for events, by their SHA-256; see src/content.rs.
CREATE TABLE contents (
    sha256     bytea       PRIMARY KEY,
    body       bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
