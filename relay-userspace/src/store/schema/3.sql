-- Phones that servers have registered, for when the office is on its own. The record is JSON.
CREATE TABLE known_phone (
    aor TEXT PRIMARY KEY,
    seen_unix INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
