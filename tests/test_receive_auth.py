"""Who may send to an endpoint, and how many endpoints may have no settings, without a server."""

import base64
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from autopilothq.catalog import ARCHIVE_FOLDER
from autopilothq.errors import InvalidSetting
from autopilothq.receive import endpoints, settings
from autopilothq.receive.auth import basic, is_allowed, is_direct, signature, with_query_key
from autopilothq.receive.endpoints import Endpoints
from autopilothq.receive.room import NoRoom
from autopilothq.receive.routes import Endpoint
from autopilothq.receive.settings import Guard, ReceiveSettings, guard

ADA = b"Basic " + base64.b64encode("ada:pässword".encode())
KEY, OTHER = b"Basic " + base64.b64encode(b"key:"), b"basic   " + base64.b64encode(b"other") + b" "
SIGNED = signature(b"abc123", b"{}")
KEYS = Guard(write_keys=(b"key", b"other"))
SIGNATURES = Guard(signatures=(b"older", b"abc123"))
BASIC = Guard(basic=(b"bob:x", "ada:pässword".encode()))
HEADERS = Guard(headers=((b"x-old", b"1"), (b"x-secret", b"s3cret")))
ALL = Guard((b"key",), (b"abc123",), (b"key:",), ((b"x-secret", b"s3cret"),))


def test_one_secret_of_any_kind_guards_an_endpoint() -> None:
    assert [bool(guard) for guard in (Guard(), KEYS, SIGNATURES, BASIC, HEADERS)] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("guard", "headers", "body", "first", "key", "allowed"),
    [
        (Guard(), {}, b"{}", b"", None, True),
        (KEYS, {}, b"{}", b"", None, False),
        (KEYS, {}, b"{}", b"", "other", True),
        (KEYS, {}, b"{}", b"", "\ud800", False),
        (Guard(write_keys=(b"?",)), {}, b"{}", b"", "\ud800", True),  # no real key is like that
        (KEYS, {b"authorization": KEY}, b"{}", b"", None, True),
        (KEYS, {b"authorization": OTHER}, b"{}", b"", "wrong", True),
        (KEYS, {b"authorization": ADA}, b"{}", b"", None, False),
        (KEYS, {b"x-write-key": b"key"}, b"{}", b"", None, True),
        (KEYS, {b"x-write-key": b"key:secret"}, b"{}", b"", None, True),
        (KEYS, {b"x-write-key": b"key:sec:ret"}, b"{}", b"", None, True),
        (Guard(write_keys=(b"key:secret",)), {b"x-write-key": b"key:secret"}, b"{}", b"", None, True),
        (KEYS, {b"x-write-key": b"secret:key"}, b"{}", b"", None, False),
        (Guard(write_keys=(b"",)), {}, b"{}", b"", None, False),
        (SIGNATURES, {}, b"{}", b"", None, False),
        (SIGNATURES, {b"x-signature": SIGNED}, b"{}", b"", None, True),
        (SIGNATURES, {b"x-signature": SIGNED.upper()}, b"{}", b"", None, True),
        (SIGNATURES, {b"x-signature": SIGNED}, b"[{}]", b"{}", None, True),
        (SIGNATURES, {b"x-signature": SIGNED}, b"{}", b"5", None, True),
        (SIGNATURES, {b"x-signature": signature(b"abc123", b"")}, b"[]", b"", None, False),
        (SIGNATURES, {b"x-signature": signature(b"older", b"{}")}, b"{}", b"", None, True),
        (BASIC, {}, b"{}", b"", None, False),
        (BASIC, {b"authorization": ADA}, b"{}", b"", None, True),
        (BASIC, {b"authorization": KEY}, b"{}", b"", None, False),
        (HEADERS, {}, b"{}", b"", None, False),
        (HEADERS, {b"x-secret": b"s3cret"}, b"{}", b"", None, True),
        (HEADERS, {b"x-secret": b"1"}, b"{}", b"", None, False),
    ],
)
def test_each_secret_is_asked_for(
    guard: Guard, headers: Mapping[bytes, bytes], body: bytes, first: bytes, key: str | None, allowed: bool
) -> None:
    assert is_allowed(guard, headers, body, first, key) is allowed


def test_all_kinds_that_have_secrets_are_asked_for() -> None:
    headers = {b"authorization": KEY, b"x-signature": SIGNED, b"x-secret": b"s3cret"}
    assert is_allowed(ALL, headers, b"{}", b"", None)
    for missing in headers:
        assert not is_allowed(ALL, {name: headers[name] for name in headers if name != missing}, b"{}", b"", "key")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, b""),
        (ADA, "ada:pässword".encode()),
        (OTHER, b"other"),
        (ADA.replace(b"Basic", b"Bearer"), b""),
        (b"Basic", b""),
        (b"Basic a2V5Og=", b""),  # one character is missing
        (b"Basic a2V5\nOg==", b""),
    ],
)
def test_the_user_of_basic(header: bytes | None, found: bytes) -> None:
    assert basic({} if header is None else {b"authorization": header}) == found


@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"])
def test_a_proxys_headers_tell_it(name: bytes) -> None:
    assert not is_direct({b"host": b"x", name: b""})
    assert is_direct({b"host": b"x", b"x-" + name: b""})


@pytest.mark.parametrize(
    ("query", "headers", "found"),
    [
        (b"", {}, {}),
        (b"for=x", {b"host": b"x"}, {b"host": b"x"}),
        (b"for=x&key=a%20b", {b"host": b"x"}, {b"host": b"x", b"x-write-key": b"a b"}),
        (b"key=%E9\xe9&key=other", {}, {b"x-write-key": b"\xe9\xe9"}),
        (b"key=a", {b"x-write-key": b"b"}, {b"x-write-key": b"b"}),
    ],
)
def test_a_query_may_have_the_write_key(
    query: bytes, headers: Mapping[bytes, bytes], found: Mapping[bytes, bytes]
) -> None:
    assert with_query_key(headers, query) == found


# ---- endpoints -------------------------------------------------------------------------------------------------------

GUARDED = Endpoint("segment", "guarded")
SHOP, APP, OTHERS = (Endpoint("segment", name) for name in ("shop", "app", "others"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Endpoint]:
    """Records the endpoints whose settings are looked up; only one has settings."""
    found: list[Endpoint] = []

    def guard(kind: str, name: str = "") -> Guard:
        found.append(Endpoint(kind, name))
        return KEYS if found[-1] == GUARDED else Guard()

    monkeypatch.setattr(settings, "guard", guard)
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1"])
def test_an_endpoint_with_settings_is_open_to_all(asked: list[Endpoint], host: str, tmp_path: Path) -> None:
    known = Endpoints(ReceiveSettings(str(tmp_path), host))
    assert GUARDED not in known
    assert [known.guard(GUARDED, direct) for direct in (False, True, True)] == [KEYS, KEYS, KEYS]
    assert (GUARDED in known, asked) == (True, [GUARDED])


def test_an_endpoint_without_settings_is_there_for_programs_of_this_machine_alone(
    asked: list[Endpoint], tmp_path: Path
) -> None:
    local = Endpoints(ReceiveSettings(str(tmp_path)))
    for known, direct in ((local, False), (Endpoints(ReceiveSettings(str(tmp_path), "10.0.0.1")), True)):
        with pytest.raises(LookupError) as error:
            known.guard(SHOP, direct)
        assert (error.value.args, SHOP in known) == ((SHOP,), False)
    assert [local.guard(SHOP, True), local.guard(SHOP, True)] == [Guard(), Guard()]
    assert (SHOP in local, asked) == (True, [SHOP] * 3)
    with pytest.raises(LookupError) as error:
        local.guard(SHOP, False)
    assert error.value.args == (SHOP,)


@pytest.mark.usefixtures("asked")
def test_endpoints_without_settings_are_no_more_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoints, "MOST_OPEN", 2)
    (tmp_path / ARCHIVE_FOLDER / "segment-shop").mkdir(parents=True)  # left by an earlier run
    known = Endpoints(ReceiveSettings(str(tmp_path)))
    assert [known.guard(one, True) for one in (APP, GUARDED)] == [Guard(), KEYS]
    with pytest.raises(NoRoom) as error, caplog.at_level(logging.ERROR):
        known.guard(OTHERS, True)
    assert str(error.value) == "There are already 2 endpoints without settings."
    assert caplog.messages == ["segment-others is not opened: there are already 2 endpoints without settings"]
    assert OTHERS not in known
    assert [known.guard(one, True) for one in (SHOP, APP)] == [Guard(), Guard()]


def test_settings_of_so_many_endpoints_are_remembered(
    asked: list[Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MOST_ENDPOINTS", 1)
    known = Endpoints(ReceiveSettings(str(tmp_path)))
    for endpoint in (SHOP, APP, SHOP, APP):
        assert known.guard(endpoint, True) == Guard()
    assert (SHOP in known, APP in known, asked) == (True, False, [SHOP, APP, APP])


@pytest.mark.parametrize(("basic", "is_set"), [(":", False), (" : ", False), ("ada:", False), (":s3cret", True)])
def test_without_a_password_basic_protects_nothing(basic: str, is_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVE__RUDDER__SHOP__BASIC", basic)
    if is_set:
        assert guard("rudder", "shop") == Guard(basic=(basic.encode(),))
        return
    with pytest.raises(InvalidSetting) as raised:
        guard("rudder", "shop")
    assert str(raised.value) == (
        "Expected receive.rudder.shop.basic to be like 'user:password', but its password is blank. A secret that is"
        " sent as the user, without a password, is set as receive.rudder.shop.write_keys, without the colon."
    )
