"""`--credentials` may name a variable or a file; errors say what is missing."""

import os
from pathlib import Path

import duckdb
import pytest

from autopilothq.clients.http import HttpClient
from autopilothq.clients.settings import ApiSettings
from calling import GOOD, Call, errors


def test_credentials_come_from_a_variable_and_from_a_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.ndjson").write_text(GOOD)
    Path("where").write_text("events.duckdb\r\n")
    Path("where").chmod(0o600)
    monkeypatch.setenv("WHERE", "events.duckdb\n")
    said = call("load", "archive", "a.ndjson", "--credentials", "@where")
    assert (said.status, errors(said)) == (0, [])
    assert Path("events.duckdb").exists()
    for credentials in ("env:WHERE", "@where", "events.duckdb"):
        assert "Too old" not in call("status", "--credentials", credentials).out
        said = call("schema", "diff", "--against", f"autopilothq/{credentials}", "--credentials", credentials)
        assert (said.status, errors(said)) == (0, [])
    said = call("forget", "--user-id", "1", "--credentials", "env:WHERE")
    assert said.out.splitlines()[-1] == f"from {Path('events.duckdb').absolute()}, dataset autopilothq"
    with duckdb.connect("events.duckdb") as con:
        assert con.execute("select count(*) from autopilothq.tracks").fetchall() == [(0,)]


WRONG = {
    "env:NOWHERE": "but that variable is not set, or empty.",
    "env:": "but that variable is not set, or empty.",
    "env:EMPTY": "but that variable is not set, or empty.",
    "@nowhere": "but it cannot be read: No such file or directory.",
    "@": "but it cannot be read: No such file or directory.",
    "@.": "but it cannot be read: Is a directory.",
    "@empty": "but that file is empty.",
    "@bytes": "but it cannot be read: it is not UTF-8 text.",
    "@big": "but it has more than 65,536 characters.",
}


@pytest.mark.parametrize(("credentials", "told"), WRONG.items())
def test_credentials_that_are_not_there(
    call: Call, monkeypatch: pytest.MonkeyPatch, credentials: str, told: str
) -> None:
    monkeypatch.setenv("EMPTY", " \n")
    for name, content in (("empty", b"\n\n"), ("bytes", b"\xff\xfe"), ("big", b"x" * 65_537)):
        Path(name).write_bytes(content)
        Path(name).chmod(0o600)
    said = call("status", "--credentials", credentials)
    error = f"Error: Invalid value for '--credentials': Expected a value in {credentials}, {told}"
    assert (said.status, said.err.splitlines()[-1]) == (2, error)


def test_a_file_that_everybody_can_read_is_warned_of(call: Call) -> None:
    Path("where").write_text("events.duckdb")
    Path("where").chmod(0o604)
    told = "Warning: Everybody on this machine can read the credentials in where. Keep them to yourself: chmod 600"
    assert call("schema", "--live", "--credentials", "@where").err.splitlines()[0] == told


def test_a_path_that_looks_like_a_variable_is_written_with_its_folder(call: Call) -> None:
    Path("a.ndjson").write_text(GOOD)
    said = call("load", "archive", "a.ndjson", "--credentials", "./env:X.duckdb")
    assert (said.status, os.path.exists("env:X.duckdb")) == (0, True)


@pytest.mark.parametrize("command", [("load", "archive", "a.ndjson"), ("status",), ("forget", "--user-id", "1")])
@pytest.mark.parametrize("url", ["postgresql://me:Xq0@Zz1@127.0.0.1/db", "postgresql://me:Xq0@a/Zz1@127.0.0.1/db"])
def test_a_password_is_not_taken_for_a_host(call: Call, command: tuple[str, ...], url: str) -> None:
    Path("a.ndjson").write_text(GOOD)
    said = call(*command, "--destination", "postgres", "--credentials", url)
    assert said.status == 1
    assert said.err.splitlines()[-2:] == [
        "Error: Expected the credentials of postgres as a URL with one @, before the host, but there are more.",
        "In its user and password write %40 for @, %2F for /, %3A for :, %3F for ? and %25 for %.",
    ]


REFUSED = (
    "{0}.base_url is not https: the key would go to 10.255.255.1 for everyone on the way to read. Use https://."
    " In a network that you trust it can be allowed: --allow-http, or {0}.allow_http = true"
)


@pytest.mark.parametrize(
    ("command", "key", "setting"),
    [
        (("load", "api"), "SOURCES__AUTOPILOTHQ__API_KEY", "sources.autopilothq.api"),
        (("send", "messages", "a.ndjson"), "DESTINATION__AUTOPILOTHQ__API_KEY", "destination.autopilothq"),
        (
            ("load", "profiles", "--space", "spa_1", "--people", "people"),
            "SOURCES__AUTOPILOTHQ__PROFILES__TOKEN",
            "sources.autopilothq.profiles",
        ),
    ],
    ids=["api", "send", "profiles"],
)
def test_a_key_goes_over_http_where_that_is_allowed(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], key: str, setting: str
) -> None:
    Path("a.ndjson").write_text(GOOD)
    Path("people").write_text("ada@example.com\n")
    prefix = setting.upper().replace(".", "__")
    monkeypatch.setenv(key, "0123456789abcdef")
    monkeypatch.setenv(f"{prefix}__BASE_URL", "http://10.255.255.1/v1")
    said = call(*command)
    assert (said.status, said.err.splitlines()[-1]) == (1, f"Error: {REFUSED.format(setting)}")
    reached: list[bool] = []

    def client(_: HttpClient, api: ApiSettings, **__: object) -> None:
        reached.append(api.allow_http)
        raise RuntimeError("stopped before the network")

    monkeypatch.setattr(HttpClient, "__init__", client)
    call(*command, "--allow-http")
    call(*command)
    monkeypatch.setenv(f"{prefix}__ALLOW_HTTP", "true")
    call(*command)
    assert reached == [True, False, True]
