-- Compares ids. Python's functions (`py_…`) get the few texts that the engine might fold differently.
CREATE OR REPLACE TEMP MACRO is_plain(t) AS regexp_full_match(t, '[!-~]*');
CREATE OR REPLACE TEMP MACRO fold_email(t) AS CASE WHEN is_plain(t) THEN lower(t) ELSE py_fold_email(t) END;
CREATE OR REPLACE TEMP MACRO unescaped(t) AS CASE WHEN contains(t, '\') THEN py_unescaped(t) ELSE t END;
CREATE OR REPLACE TEMP MACRO searchable(t) AS
    CASE WHEN strlen(t) = length(t) AND NOT contains(t, '\') THEN lower(t) ELSE py_searchable(t) END;
-- The hash of an id in the suppression list: HMAC-SHA256 if there are the two blocks of a key, otherwise SHA-256.
CREATE OR REPLACE TEMP MACRO hash_of_id(salt, kind, value, inside, outside) AS CASE
    WHEN inside IS NULL THEN sha256(concat_ws(chr(10), salt, kind, value))
    ELSE sha256(outside || unhex(sha256(inside || encode(concat_ws(chr(10), salt, kind, value))))) END;
