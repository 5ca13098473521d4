-- Bodies that are too large for events, by their SHA-256; see src/content.rs.
CREATE TABLE contents (
    sha256     BLOB    PRIMARY KEY NOT NULL,
    body       BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
