-- How values of adopted tables are typed, in addition to the projection's macros. `t` is plain text, `v` JSON text.

CREATE MACRO storable(t) AS CASE WHEN NOT contains(t, chr(0)) THEN t END;
CREATE MACRO moment(t) AS CASE
    WHEN t BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00' THEN t END;
CREATE MACRO finite(d) AS CASE WHEN isfinite(d) THEN d END;
CREATE MACRO number_json(d) AS CASE WHEN isfinite(d) THEN d::VARCHAR ELSE '"' || d::VARCHAR || '"' END;
CREATE MACRO is_finite_json(v) AS NOT regexp_matches(v, '(?i)nan|inf') OR is_text(v)
    OR NOT regexp_matches(regexp_replace(v, '"([^"\\]|\\.)*"', '', 'g'), '(?i)nan|inf');
CREATE MACRO storable_text(v) AS CASE
    WHEN NOT is_text(v) THEN CASE WHEN is_finite_json(v) THEN v END
    WHEN contains(v, '\') THEN storable(as_text(v))
    ELSE as_text(v) END;
CREATE MACRO moment_json(t) AS '"' || strftime(t AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') || '"';

-- A time as warehouses write it: a date, `T` or a blank, a time of day, and perhaps a zone (`Z`, `+00`, `+00:00`,
-- `UTC`); without a zone it is in UTC.
CREATE MACRO stamp(t) AS CASE
    WHEN regexp_full_match(t, '\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d([.,]\d{1,9})?'
        || '( ?([Zz]|UTC|[+-]([01]\d|2[0-3])(:?[0-5]\d)?))?')
    THEN within_years(iso_8601(replace(t, ' UTC', 'Z')))::TIMESTAMPTZ END;
CREATE MACRO zoned_stamp(t) AS CASE WHEN regexp_matches(t, '([Zz]|UTC|[+-]\d\d(:?\d\d)?)$') THEN stamp(t) END;
-- The timestamps of messages, in any notation that senders use.
CREATE MACRO text_moment(t) AS coalesce(stamp(t), within_years(unusual_clock(to_json(t)::VARCHAR))::TIMESTAMPTZ);

-- Values of files that have only text.
CREATE MACRO loose_bool(t) AS CASE
    WHEN lower(t) IN ('t', 'true', '1') THEN true WHEN lower(t) IN ('f', 'false', '0') THEN false END;
CREATE MACRO is_json_number(t) AS regexp_full_match(t, '-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?');
CREATE MACRO loose_bigint(t) AS CASE WHEN is_json_number(t) THEN number_as_bigint(t) END;
CREATE MACRO loose_double(t) AS CASE WHEN is_json_number(t) THEN number_as_double(t) END;

-- The type of a value, as one of the bits of `projection/types.py`. A text is a number only if this keeps its digits.
CREATE MACRO text_bit(t) AS CASE WHEN t IS NULL THEN NULL WHEN zoned_stamp(t) IS NULL THEN 1 ELSE 2 END;
CREATE MACRO loose_bit(t) AS CASE
    WHEN t IS NULL THEN NULL
    WHEN lower(t) IN ('t', 'true', 'f', 'false') THEN 16
    WHEN is_integer(t) THEN CASE WHEN t <> '-0' AND try_cast(t AS BIGINT) IS NOT NULL THEN 4 ELSE 1 END
    WHEN is_number(t) AND try_cast(t AS DOUBLE)::VARCHAR = t THEN 8
    WHEN stamp(t) IS NULL THEN 1 ELSE 2 END;
CREATE MACRO json_bit(v) AS CASE
    WHEN is_text(v) THEN CASE WHEN zoned_stamp(as_text(v)) IS NULL THEN 1 ELSE 2 END
    WHEN is_finite_json(v) THEN type_bit(v) END;
