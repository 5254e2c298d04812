-- Single values: name and whatever its owner writes.
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- Credentials with which the appliance answers a server's challenge for a phone.
CREATE TABLE authentication_entry (
    registration_id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    -- sealed with the registration id as context
    password BLOB NOT NULL,
    -- extensions that the entry may be used for besides its registration id, separated by commas
    aliases TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

-- Certificates of servers that no authority vouches for, and what an operator decided.
CREATE TABLE server_certificate (
    -- SHA-256 of the certificate, lower-case hexadecimal
    fingerprint TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    chain_pem TEXT NOT NULL,
    why TEXT NOT NULL,
    first_seen_unix INTEGER NOT NULL,
    last_seen_unix INTEGER NOT NULL,
    -- null until somebody trusts it
    trusted_unix INTEGER,
    trusted_by TEXT
) WITHOUT ROWID;

-- Who may sign in to the pages.
CREATE TABLE administrator (
    name TEXT PRIMARY KEY,
    -- Argon2id in PHC form
    password TEXT NOT NULL,
    changed_unix INTEGER NOT NULL
) WITHOUT ROWID;

-- Tokens for the REST interface; only their hash is kept.
CREATE TABLE api_token (
    -- SHA-256 of the token, lower-case hexadecimal
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    created_unix INTEGER NOT NULL,
    last_used_unix INTEGER
) WITHOUT ROWID;

-- Configurations that were applied, newest last.
CREATE TABLE configuration_version (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    applied_unix INTEGER NOT NULL,
    applied_by TEXT NOT NULL,
    text TEXT NOT NULL
);

-- Phones' bindings: calls to a phone work right after a restart.
CREATE TABLE binding (
    token TEXT PRIMARY KEY,
    expires_unix INTEGER NOT NULL,
    record TEXT NOT NULL
) WITHOUT ROWID;
