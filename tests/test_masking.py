"""No secret appears in errors, tracebacks, log lines, notes or dlt's files, however it is spelt."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

import dlt
import psycopg2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from autopilothq import masking
from autopilothq.masking import masked, remember_credentials, remember_hook, remember_secret
from calling import Call

# Words that no message has, joined by characters with a meaning in URLs, JSON, TOML, SQL and regular expressions.
WORDS = st.text("XQZ0189", min_size=4, max_size=8)
MARKS = st.text("éñ雪@:/?#%&=+ '\"\\[](){}|*.$^~`;,<>!-_", min_size=1, max_size=3)
ENDS = st.sampled_from(["", "@", "%4", "\\", ":/"])
PASSWORDS = st.tuples(ENDS, WORDS, MARKS, WORDS, ENDS).map("".join)


def spellings(secret: str) -> Iterator[str]:
    """Returns the forms in which libraries print a secret."""
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe=" +"))
    whole = quote(secret, safe="")
    yield from (re.sub("%..", lambda found: found[0].lower(), whole), quote(whole, safe=""))
    yield from (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield repr(secret.encode())[2:-1]


@settings(deadline=None)
@given(PASSWORDS)
def test_a_secret_is_found_in_every_spelling(secret: str) -> None:
    masking._remembered.clear()
    remember_secret(secret)
    for spelt in spellings(secret):
        assert masked(f"before<{spelt}>behind") == "before<***>behind"


HOSTLESS = "postgresql://loader:{}"
URLS = (
    "postgresql://loader:{}@127.0.0.1:9/db",
    "postgresql://loader:{}@127.0.0.1:port9/db",
    HOSTLESS,
    "postgres//loader:{}@127.0.0.1:9/db",
    "postgresql:/loader:{}@127.0.0.1/db",
    "loader:{}@127.0.0.1/db",
    "postgresql://loader:{}@[::1/db",
)


def left(secret: str) -> list[str]:
    """Returns the parts of a secret that a driver may print after cutting it."""
    return [word for word in re.split(r"[^XQZ0189]+", secret) if len(word) >= 4]


def told(call: Call, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns everything that a call prints, including the traceback."""
    try:
        said = call(*words)
    except Exception:  # noqa: BLE001 - what --debug lets through is printed by Python
        sys.excepthook(*sys.exc_info())
        return "".join(capsys.readouterr())
    return said.out + said.err


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=PASSWORDS, url=st.sampled_from(URLS), encoded=st.booleans(), debug=st.booleans())
def test_no_error_of_a_command_has_a_part_of_the_password(
    secret: str, url: str, encoded: bool, debug: bool, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assume(encoded or url != HOSTLESS or not secret.startswith("@"))  # which would be an empty password and a host
    for of in (masking._remembered, masking._strings):
        of.clear()
    url = url.format(quote(secret, safe="") if encoded else secret)
    options = ("--destination", "postgres", "--credentials", url)
    said = told(call, capsys, *["--debug"] * debug, "status", *options)
    assert "Error" in said
    assert [word for word in left(secret) if word in said] == []


def test_a_call_that_cannot_be_read_is_repeated_without_its_password(call: Call) -> None:
    said = call("load", "archive", "--credential", "postgresql://loader:Xq0/Zz1@warehouse/db", "--destinatio=n")
    assert (said.status, "Xq0" in said.err, "Zz1" in said.err) == (2, False, False)
    said = call("postgres//loader:Xq0/Zz1@warehouse/db")
    assert (said.status, "Xq0" in said.err, "Zz1" in said.err) == (2, False, False)
    said = call("status", "postgres//loader:Xq0/Zz1@warehouse/db")
    assert said.err.splitlines()[-1] == (
        "Error: Got unexpected extra argument (postgres//loader:***@warehouse/db): status takes no arguments, only"
        " options (--max-age, --received, --destination, --credentials, …)."
    )


STRINGS = [
    ("postgresql://me:pa@sswd@host:5432/db", 'no host "sswd@host"', 'no host "***@host"'),
    ("postgresql://me:pa@sswd@host:5432/db", "pa%40sswd", "***"),
    ("postgresql://me:ab@host/db", "cab for user me:ab@host", "cab for user me:***@host"),
    ("postgresql://me:first:5second@host/db", "invalid port 5second", "invalid port ***"),
    ("postgresql://me:first:5second@host:x/db", "first:5second@host:x", "***@host:x"),
    ("postgresql://me:s%40cre+t%2f@host/db", "s@cre+t/ s@cre t/ s%40cre%2Bt%2F", "*** *** ***"),
    ("postgresql://me:hushhush", "no number: hushhush", "no number: ***"),
    ("postgresql://me:@hush:5678x", "no number: 5678x, no host hush", "no number: ***, no host ***"),
    ("postgresql://me:@host:5432/data", "no host: host:5432/data", "no host: host:5432/data"),
    ("postgresql://me@host:5432/data", "me@host:5432/data", "me@host:5432/data"),
    ("postgresql://host/db?user=me&password=hushhush&x=data", "hushhush data", "*** data"),
    ("host=h user=me password='hush hush' port=1", "hush hush on h", "*** on h"),
    ("DRIVER=x;UID=me;PWD=hushhush;", "PWD=hushhush", "PWD=***"),
    ("md:events?motherduck_token=eyJhb.Gci", "eyJhb.Gci events", "*** events"),
    ('{"username": "me", "password": "hu:sh@hush"}', "hu:sh@hush of username", "*** of username"),
    ("/data/events.duckdb", "/data/events.duckdb", "/data/events.duckdb"),
    ("s3://bucket/data:more/2019", "data:more/2019", "data:more/2019"),
    ("http://[::1]:8080/data", "http://[::1]:8080/data", "http://[::1]:8080/data"),
    ("postgresql://me:12345@host:5432/data", "12345 5432", "*** 5432"),
    ("az://box@account.dfs.core.windows.net/data", "box@account.dfs", "box@account.dfs"),
]


@pytest.mark.parametrize(("string", "text", "expected"), STRINGS)
def test_parts_of_a_connection_string(string: str, text: str, expected: str) -> None:
    remember_credentials(string)
    assert masked(text) == expected


def test_secrets_of_the_environment_and_of_secrets_toml_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS__PASSWORD", "fromEnv1")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me:from@Env2@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fromEnv/3+4")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0000")
    monkeypatch.setenv("PWD", "/data")
    monkeypatch.setenv("WAREHOUSE_PASSWORD_FILE", "/run/secrets/warehouse")
    monkeypatch.setenv("FEATURE_SECRETS", "true")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__API_KEY", "abc")  # too short to be told from an ordinary word
    dlt.secrets["destination.snowflake.credentials.password"] = "fromToml5"
    dlt.secrets["destination.snowflake.credentials.private_key"] = "-----BEGIN-----\nMIIEvQ+x\n-----END-----"
    dlt.secrets["destination.snowflake.credentials.port"] = 5432
    text = "fromEnv1 Env2@host fromEnv%2f3%2B4 fromToml5 MIIEvQ+x 5432 AKIA0000 /data abc true"
    assert masked(text) == "*** ***@host *** *** *** 5432 AKIA0000 /data abc true"
    assert masked("/run/secrets/warehouse") == "/run/secrets/warehouse"


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        (
            "https://hooks.slack.com/services/T01/B02/s3cr3t",
            "no s3cr3t at hooks.slack.com",
            "no *** at hooks.slack.com",
        ),
        ("https://hooks.slack.com/services/T01/B02/s3cr3t", "POST /services/T01/B02/s3cr3t", "POST ***"),
        ("https://chat.example.com/v1?key=k3yk3y&token=t0kt0k", "k3yk3y and t0kt0k", "*** and ***"),
        ("hooks.slack.com/T01/s3cr3t", "unknown: hooks.slack.com/T01/s3cr3t", "unknown: ***"),
    ],
)
def test_the_path_of_a_webhook_is_its_secret(url: str, text: str, expected: str) -> None:
    remember_hook(url)
    assert masked(text) == expected


def test_a_provider_that_fails_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise OSError("the vault is gone")

    monkeypatch.setattr(type(dlt.secrets), "config_providers", property(broken))
    remember_secret("hushhush")
    assert masked("no hushhush") == "no ***"


def test_nothing_of_a_run_into_postgresql_keeps_the_password(
    call: Call, capsys: pytest.CaptureFixture[str], postgres: str, tmp_path: Path
) -> None:
    password, wrong = "Xq0@/:Zz1%Qq2", "Wr0ng@/:Zz1%Qq2"
    with closing(psycopg2.connect(postgres)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS hidden")
        cursor.execute("CREATE ROLE hidden LOGIN SUPERUSER PASSWORD %s", [password])
        connection.commit()
    Path("a.ndjson").write_text('{"type":"track","event":"Email Opened","messageId":"m1","userId":"1"}\n')
    where = postgres.partition("@")[2]
    words = ("load", "archive", "a.ndjson", "--destination", "postgres", "--credentials")
    good = told(call, capsys, *words, f"postgresql://hidden:{quote(password, safe='')}@{where}")
    assert f"into postgresql://hidden:***@{where}, dataset autopilothq" in good
    bad = told(call, capsys, "--debug", *words, f"postgresql://hidden:{quote(wrong, safe='')}@{where}")
    assert "Traceback (most recent call last)" in bad
    assert 'password authentication failed for user "hidden"' in bad
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for part in (b"Xq0", b"Wr0ng", b"Zz1", b"Qq2"):
        assert not [text for text in (good.encode(), bad.encode(), *kept) if part in text]


def test_a_strangers_text_is_searched_in_good_time() -> None:
    started = time.monotonic()
    for text in ("://a:" * 20_000, "from string '" * 10_000, "https://" * 15_000, "://" + "a:" * 50_000):
        assert masked(text)
    assert time.monotonic() - started < 10  # 0.2 s on an idle machine; without bounds minutes
