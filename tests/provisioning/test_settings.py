from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fer_agent.errors import ConfigError, UsageError
from fer_provisioning.settings import for_target, missing_secret
from fer_provisioning.targets import Target

if TYPE_CHECKING:
    from pathlib import Path

OWN = """\
# the owner's comment
[deployment]
context = "home"

[camera.front]
source = "/dev/video0"
"""


def target(config: Path | None = None, **settings: Any) -> Target:
    return Target(
        "camera-1", config=config, settings={k.replace("__", "."): v for k, v in settings.items()}
    )


def test_board_keeps_its_own_file_to_the_letter() -> None:
    assert for_target(target(), OWN).text == OWN
    assert for_target(target(deployment__context="home"), OWN).text == OWN


def test_setting_that_differs_makes_a_new_file_of_the_old_values() -> None:
    made = for_target(target(detector__score=0.5), OWN)
    assert made.config.detector.score == 0.5
    assert made.config.camera["front"].source == "/dev/video0"


def test_given_file_wins_over_the_boards(tmp_path: Path) -> None:
    given = tmp_path / "given.toml"
    given.write_text(OWN.replace('"home"', '"research"'))
    assert for_target(target(given), OWN).text == given.read_text()


def test_answers_make_a_file_of_their_own() -> None:
    made = for_target(target(deployment__context="home", mqtt__broker="mqtt://hub"), None)
    assert made.config.camera["main"].source == "/dev/video0"
    assert made.config.mqtt.broker == "mqtt://hub"
    assert "#id =" in made.text  # each board takes its own id from its own machine id


def test_nothing_to_make_a_file_of_is_said() -> None:
    with pytest.raises(UsageError, match="nobody said where"):
        for_target(target(), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("home", "office"), "context"),
        ("[deployment\n", "not TOML"),
        (OWN + "[detektor]\n", "detektor"),
    ],
)
def test_wrong_file_is_refused_by_its_name(tmp_path: Path, text: str, said: str) -> None:
    given = tmp_path / "given.toml"
    given.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        for_target(target(given), None)
    assert str(given) in str(caught.value)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        for_target(target(tmp_path / "none.toml"), None)


def test_credential_that_nobody_gave_is_named() -> None:
    wants = OWN + '[mqtt]\nusername = "fer"\npassword_file = "mqtt-password"\n'
    config = for_target(target(), wants).config
    assert missing_secret(config, {}) == "mqtt-password"
    assert missing_secret(config, {"mqtt-password": ""}) is None
    assert missing_secret(for_target(target(), OWN).config, {}) is None
