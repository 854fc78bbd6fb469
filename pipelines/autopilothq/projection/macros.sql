-- Turns JSON text into typed values (docs/contract/warehouse.md#values). Every macro that takes `v` takes JSON text
-- (`"…"` for text) and returns null if the value cannot become the type without loss.

CREATE MACRO blank_as_null(t) AS CASE WHEN t >= '!' THEN t WHEN regexp_full_match(t, '\s*') THEN NULL ELSE t END;
CREATE MACRO is_text(v) AS starts_with(v, '"');
CREATE MACRO as_text(v) AS CASE
    WHEN NOT is_text(v) THEN v
    WHEN contains(v, '\') THEN TRY(json_extract_string(v, '$'))
    ELSE trim(v, '"') END;
CREATE MACRO is_number(v) AS regexp_full_match(v, '-?[0-9].*');
CREATE MACRO is_integer(t) AS regexp_full_match(t, '-?(0|[1-9][0-9]*)');

-- 3.0 and 1e18 are integers; a number beyond 64 bits is not. A float is exact up to 15 digits. Longer numbers are
-- decided by their text: the exponent minus the number of decimals says how many zeros follow or, if negative, how many
-- of the last digits must be zeros. Casting texts to decimals takes fifty times as long.
CREATE MACRO mantissa(v) AS regexp_extract(v, '^[^eE]*');
CREATE MACRO digits(v) AS length(trim(regexp_replace(mantissa(v), '[^0-9]', '', 'g'), '0'));
CREATE MACRO exponent(v) AS coalesce(try_cast(nullif(regexp_extract(v, '[eE][+]?(.*)', 1), '') AS BIGINT), 0)
    - length(regexp_extract(v, '[.]([0-9]*)', 1));
CREATE MACRO shifted(m, e) AS CASE
    WHEN e >= 0 THEN try_cast(m || repeat('0', least(e, 19)) AS BIGINT)
    WHEN trim(right(m, -e), '0') = '' THEN try_cast(left(m, e) AS BIGINT) END;
CREATE MACRO number_as_bigint(v) AS CASE
    WHEN is_integer(v) THEN try_cast(v AS BIGINT)
    WHEN try_cast(v AS DOUBLE) <> trunc(try_cast(v AS DOUBLE))
        OR abs(try_cast(v AS DOUBLE)) > 1e19 OR (try_cast(v AS DOUBLE) = 0 AND digits(v) > 0) THEN NULL
    WHEN abs(try_cast(v AS DOUBLE)) < 1e15 AND digits(v) <= 15 THEN try_cast(v AS DOUBLE)::BIGINT
    ELSE shifted(replace(mantissa(v), '.', ''), exponent(v)) END;
CREATE MACRO as_bigint(v) AS CASE
    WHEN is_number(v) THEN number_as_bigint(v)
    WHEN is_text(v) AND is_integer(as_text(v)) THEN try_cast(as_text(v) AS BIGINT) END;

-- An integer that would lose digits does not become a float; a number other than 0 does not become 0.
CREATE MACRO number_as_double(v) AS CASE
    WHEN isinf(try_cast(v AS DOUBLE)) THEN NULL
    WHEN try_cast(v AS DOUBLE) = 0 AND digits(v) > 0 THEN NULL
    WHEN is_integer(v) AND try_cast(try_cast(v AS DOUBLE) AS HUGEINT) IS DISTINCT FROM try_cast(v AS HUGEINT) THEN NULL
    ELSE try_cast(v AS DOUBLE) END;
CREATE MACRO as_double(v) AS CASE
    WHEN is_number(v) THEN number_as_double(v)
    WHEN is_text(v) AND is_number(as_text(v))
        AND (is_integer(as_text(v)) OR try_cast(as_text(v) AS DOUBLE)::VARCHAR = as_text(v))
    THEN number_as_double(as_text(v)) END;
CREATE MACRO as_bool(v) AS CASE
    WHEN v IN ('true', '"true"', '1', '1.0') THEN true
    WHEN v IN ('false', '"false"', '0', '0.0') THEN false END;

-- Timestamps (docs/contract/warehouse.md#timestamps).

CREATE MACRO within_years(t) AS CASE
    WHEN t BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999' THEN t END;
CREATE MACRO zoned(t) AS (try_cast(t AS TIMESTAMPTZ) AT TIME ZONE 'UTC');

-- A column that the catalogue does not know gets the type timestamp only if every text is an RFC 3339 date-time with a
-- zone.
CREATE MACRO rfc3339(t) AS CASE
    WHEN regexp_full_match(
        t, '\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)')
    THEN within_years(zoned(upper(t))) END;
CREATE MACRO as_timestamp(v) AS CASE WHEN is_text(v) THEN rfc3339(as_text(v))::TIMESTAMPTZ END;

-- The four timestamps of a message are read in every notation that senders are known to use. This is the usual one,
-- which costs least. `strptime` also accepts numbers with fewer digits, which the lengths rule out, and the year 0,
-- which the comparison rules out: the engine would plan and evaluate `strptime` again for each use of its result.
CREATE MACRO usual_clock(v) AS CASE WHEN v >= '"0001' THEN CASE strlen(v)
    WHEN 26 THEN try_strptime(v, '"%Y-%m-%dT%H:%M:%S.%gZ"')
    WHEN 22 THEN try_strptime(v, '"%Y-%m-%dT%H:%M:%SZ"')
    ELSE CASE WHEN ends_with(v, 'Z"') AND strlen(v) < 30
        THEN try_strptime(replace(v, 'Z"', repeat('0', 29 - strlen(v)) || 'Z"'), '"%Y-%m-%dT%H:%M:%S.%fZ"') END END END;

-- All other notations. The engine plans and evaluates an argument each time that a macro names it, hence the chains and
-- lambdas. The first macro has the named zones of RFC 822; longer names come first, because each is replaced in turn.
CREATE MACRO numeric_zone(t) AS replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    replace(t, 'EST', '-0500'), 'EDT', '-0400'), 'CST', '-0600'), 'CDT', '-0500'), 'MST', '-0700'), 'MDT', '-0600'),
    'PST', '-0800'), 'PDT', '-0700'), 'UTC', '+0000'), 'GMT', '+0000'), 'UT', '+0000'), 'Z', '+0000');
CREATE MACRO numeric_month(t) AS replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    replace(replace(t, '-Jan-', '-01-'), '-Feb-', '-02-'), '-Mar-', '-03-'), '-Apr-', '-04-'), '-May-', '-05-'),
    '-Jun-', '-06-'), '-Jul-', '-07-'), '-Aug-', '-08-'), '-Sep-', '-09-'), '-Oct-', '-10-'), '-Nov-', '-11-'),
    '-Dec-', '-12-');
CREATE MACRO iso_8601(t) AS zoned(regexp_replace(
    regexp_replace(replace(upper(t), ',', '.'), ' ([Z+-])', '\1'), '^([^:]*:\d\d)($|[^:])', '\1:00\2'));

-- A number counts seconds if its integer part has up to 11 digits, milliseconds up to 14, microseconds up to 17,
-- nanoseconds beyond. For each length, the list has the number of decimals to keep (if negative, of digits to drop) to
-- get tenths of microseconds, which are then rounded because floats are slightly off.
CREATE MACRO plain_number(t) AS CASE
    WHEN regexp_matches(t, '[eE]') THEN try_cast(t AS DECIMAL(38, 16))::VARCHAR ELSE t END;
CREATE MACRO microseconds(integer_part, fraction) AS try_cast(regexp_replace(left(
    integer_part || rpad(fraction, 7, '0'),
    strlen(integer_part) + [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 4, 4, 4, 1, 1, 1, -2, -2, -2, -2][
        strlen(ltrim(integer_part, '+-'))]), '(.)$', '.\1') AS BIGINT);
CREATE MACRO clock_number(t) AS make_timestamp(list_transform(
    [string_split(plain_number(t), '.')], lambda parts: microseconds(parts[1], coalesce(parts[2], '')))[1]);

-- Numbers, ISO 8601, and the notations of Ruby, Go, RFC 1123 and RFC 822, and JavaScript. Days of the week are not
-- checked: any word passes for one.
CREATE MACRO unusual_clock(v) AS CASE
    WHEN regexp_full_match(v, '-?\d.*|"[+-]?(0|[1-9]\d*)(\.\d+)?"') THEN clock_number(trim(v, '"'))
    WHEN regexp_full_match(
        v, '"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d{0,9})?)?( ?([Zz]|[+-]([01]\d|2[0-3])(:?[0-5]\d)?))?)?"')
    THEN iso_8601(trim(v, '"'))
    WHEN regexp_full_match(
        v, '"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d([.,]\d{0,9})?)? (EST|EDT|CST|CDT|MST|MDT|PST|PDT|UTC|GMT|UT|Z)"')
    THEN iso_8601(numeric_zone(trim(v, '"')))
    WHEN regexp_full_match(
        v, '"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d([.,]\d{0,9})?)? [+-]([01]\d|2[0-3])[0-5]\d [A-Z0-9+-]+( m=[+-][0-9.]+)?"')
    THEN iso_8601(regexp_replace(v, '^"(\S+ \S+ \S+).*$', '\1'))
    WHEN regexp_full_match(
        v, '"([A-Z][a-z]+, )?\d\d? (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d(:\d\d)? '
        || '([+-]([01]\d|2[0-3])[0-5]\d|EST|EDT|CST|CDT|MST|MDT|PST|PDT|UTC|GMT|UT|Z)"')
    THEN iso_8601(numeric_month(regexp_replace(
        numeric_zone(v), '^"(\S+, )?(\S+) (\S+) (\S+) (\S+) (\S+)"$', '\4-\3-\2 \5\6')))
    WHEN regexp_full_match(
        v, '"[A-Z][a-z]+ (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d\d \d{4} \d\d:\d\d:\d\d '
        || 'GMT[+-]([01]\d|2[0-3])[0-5]\d( \([^\\]*\))?"')
    THEN iso_8601(numeric_month(regexp_replace(
        v, '^\S+ (\S+) (\S+) (\S+) (\S+) GMT(\S{5}).*$', '\3-\1-\2 \4\5'))) END;
-- Planning `unusual_clock` for each of four columns takes ten times as long as planning it for a list of their values.
CREATE MACRO unusual_clocks(vs) AS list_transform(
    list_transform(vs, lambda v: unusual_clock(v)), lambda t: CASE WHEN within_years(t) = t THEN t END);

-- A time that the origin has already converted from whatever notation it came in.
CREATE MACRO as_moment(v) AS usual_clock(v)::TIMESTAMPTZ;

-- The type of a value as one of the bits of `types.py`, and the bits of all values of a column. An integer beyond 64
-- bits counts as text, because only text keeps its digits.
CREATE MACRO type_bit(v) AS CASE
    WHEN is_text(v) THEN CASE WHEN rfc3339(as_text(v)) IS NULL THEN 1 ELSE 2 END
    WHEN is_integer(v) THEN CASE WHEN try_cast(v AS BIGINT) IS NULL THEN 1 ELSE 4 END
    WHEN is_number(v) THEN 8
    WHEN v IN ('true', 'false') THEN 16
    ELSE 32 END;
CREATE MACRO type_bits(v) AS bit_or(type_bit(v)) FILTER (v IS NOT NULL);

-- Finds values that the engine may read differently from how they are written. First, text that may have been a number
-- whose digits the engine changed:
CREATE MACRO text_may_be_number(v) AS CASE WHEN v >= '-' AND v < ':' THEN CASE
    WHEN contains(v, '.') OR contains(v, 'e') OR v IN ('0', '-0') THEN try_cast(v AS DOUBLE) IS NOT NULL END END;
CREATE MACRO any_number_unquoted(texts, line) AS len(list_filter(texts, lambda v:
    text_may_be_number(v) AND NOT contains(line, '"' || v || '"'))) > 0;
-- Second, JSON values: numbers other than plain integers.
CREATE MACRO any_json_may_change(jsons) AS len(list_filter(jsons, lambda v:
    v >= '-' AND v < ':' AND (v IN ('0', '-0') OR NOT regexp_full_match(v, '-?[0-9]+')))) > 0;
CREATE MACRO any_between(texts, first, behind) AS len(list_filter(texts, lambda v: v >= first AND v < behind)) > 0;

-- The number of a line in the load is its file's number times 2^40, plus its number in the file.
CREATE MACRO file_of(seq) AS seq >> 40;
CREATE MACRO line_of(seq) AS seq & 1099511627775;
