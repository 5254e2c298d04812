-- What stands for an entry's password in the realms of servers that have taken it: JSON, sealed with the registration id as
-- context. Null until one has.
ALTER TABLE authentication_entry ADD COLUMN digests BLOB;
-- When the last realm was added; the password goes when that is long ago. Null until there is one.
ALTER TABLE authentication_entry ADD COLUMN learned_unix INTEGER;
