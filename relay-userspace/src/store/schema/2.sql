-- Calls and subscriptions that stand: what a daemon that starts anew needs to go on with them.
CREATE TABLE live_call (
    -- the name by which the media room knows the call
    name TEXT PRIMARY KEY,
    -- sealed with the name as context: it holds media keys
    record BLOB NOT NULL
) WITHOUT ROWID;
