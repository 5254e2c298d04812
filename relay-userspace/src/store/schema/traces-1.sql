-- Traces of calls that have ended: their SIP messages. A call that went on over a restart has several.
CREATE TABLE trace (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    call_id TEXT NOT NULL,
    method TEXT NOT NULL,
    from_address TEXT NOT NULL,
    to_address TEXT NOT NULL,
    begun_unix_us INTEGER NOT NULL,
    last_unix_us INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    left_out INTEGER NOT NULL,
    status TEXT,
    -- bytes that the row takes, as they are counted towards the limit
    bytes INTEGER NOT NULL,
    -- the messages, in the form that the room of traces writes
    record BLOB NOT NULL
);
CREATE INDEX trace_call_id ON trace(call_id);
CREATE INDEX trace_last ON trace(last_unix_us);
