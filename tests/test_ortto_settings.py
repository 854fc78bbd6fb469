"""Settings of an Ortto account from the environment, where all values are text."""

from pathlib import Path

import pytest
from dlt.common.runtime.run_context import active

from autopilothq.clients.ortto import OrttoSettings
from autopilothq.destination import OrttoDestinationSettings, resolve_settings
from autopilothq.errors import InvalidSetting

SECTION = "DESTINATION__AUTOPILOTHQ__ORTTO__"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{SECTION}API_KEY", "12345")


def test_texts_of_the_environment_get_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "REQUESTS_PER_SECOND": "2.5",
        "TIMEOUT": "7",
        "TRIES": "3",
        "ALLOW_HTTP": "false",
        "REGION": "eu",
        "ACTIVITIES": '{"Bought": "act:cm:bought"}',
        "UNKNOWN_TRAITS": "refuse",
    }
    for name, text in texts.items():
        monkeypatch.setenv(f"{SECTION}{name}", text)
    found = OrttoDestinationSettings.resolve()
    api = OrttoSettings(
        api_key="12345",
        setting="destination.autopilothq.ortto.api_key",
        region="eu",
        requests_per_second=2.5,
        timeout=7,
        tries=3,
    )
    assert found == OrttoDestinationSettings(api, None, {"Bought": "act:cm:bought"}, "refuse")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TRIES", "many", "destination.autopilothq.ortto.tries must be a whole number, got 'many'"),
        ("TIMEOUT", "long", "destination.autopilothq.ortto.timeout must be a number, got 'long'"),
        ("ACTIVITIES", "x", "destination.autopilothq.ortto.activities must be a table, got 'x'"),
        (
            "ACTIVITES",
            "{}",
            "dlt's configuration has no setting destination.autopilothq.ortto.activites: did you mean activities?",
        ),
    ],
)
def test_what_is_no_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str) -> None:
    monkeypatch.setenv(f"{SECTION}{name}", text)
    with pytest.raises(InvalidSetting) as raised:
        OrttoDestinationSettings.resolve()
    assert str(raised.value) == expected


def test_ortto_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", "autopilot's")
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt/config.toml").write_text('[destination.autopilothq.ortto]\nregion = "au"\n')
    active().reload()
    assert resolve_settings().api.api_key == "autopilot's"
