from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fer_agent.config import loading
from fer_agent.config.model import AgentConfig, Section
from fer_agent.config.problems import known_keys, lines_of_keys, variable
from fer_agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOOD = """\
[deployment]
context = "research"

[camera.front]
source = "/dev/video0"
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def refuse(path: Path | None = None, **options: Any) -> ConfigError:
    """Return the error that reading ends in."""
    options.setdefault("env", {})
    with pytest.raises(ConfigError) as caught:
        loading.load(path, **options)
    assert caught.value.remedy
    return caught.value


def test_options_win_over_environment_over_file_over_defaults(write: Any) -> None:
    path = write(GOOD + "[detector]\nscore = 0.1\nnms_iou = 0.1\nlong_side = 640\n")
    env = {"FER_AGENT__DETECTOR__SCORE": "0.2", "FER_AGENT__DETECTOR__NMS_IOU": "0.2"}
    config = loading.load(path, env=env, overrides={"detector.score": 0.3, "tracker": None})
    assert config.detector.score == 0.3
    assert config.detector.nms_iou == 0.2
    assert config.detector.long_side == 640
    assert config.detector.threads == 1


def test_environment_alone_makes_a_configuration(tmp_path: Path) -> None:
    env = {
        "HOME": str(tmp_path),
        "FER_AGENT__DEPLOYMENT__CONTEXT": "home",
        "FER_AGENT__CAMERA__FRONT_DOOR__SOURCE": "/dev/video0",
        "FER_AGENT__CAMERA__FRONT_DOOR__FPS": "15",
        "FER_AGENT__DETECTOR__DOWNLOAD": "false",
        "FER_AGENT__MQTT__USERNAME": "1234",
        "FER_AGENT__MQTT__PASSWORD_FILE": "/run/secret",
        "FER_AGENT__SMOOTHER__ABSTAIN_BELOW": "0.5",
        "FER_AGENT__MQTT__CA_FILE": "",
    }
    config = loading.load(env=env)
    assert config.camera["front-door"].source == "/dev/video0"
    assert config.camera["front-door"].fps == 15
    assert config.detector.download is False
    assert config.mqtt.username == "1234"
    assert config.mqtt.password_file == Path("/run/secret")
    assert config.smoother.abstain_below == 0.5
    assert config.mqtt.ca_file is None


def test_a_table_on_the_command_line_replaces_the_whole_table(write: Any) -> None:
    only = {"camera": {"clip": {"source": "clip.mp4"}}}
    config, origins = loading.read(write(GOOD), env={}, overrides=only)
    assert list(config.camera) == ["clip"]
    assert ("camera", "front") not in origins


def test_users_own_file_is_read_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    system, own = tmp_path / "etc.toml", tmp_path / "home" / "fer-agent" / "config.toml"
    monkeypatch.setattr(loading, "_SYSTEM_FILE", system)  # the real one is in /etc
    own.parent.mkdir(parents=True)
    env = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    system.write_text(GOOD.replace("research", "safety"))
    assert loading.load(env=env).deployment.context == "safety"
    own.write_text(GOOD)
    assert loading.load(env=env).deployment.context == "research"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert loading.load(env=env).deployment.context == "safety"


def test_unknown_key_names_file_line_and_the_nearest_key(write: Any) -> None:
    path = write(GOOD + "\n[detector]\nlong_sid = 640\n")
    error = refuse(path)
    assert str(error) == f"{path}:8: there is no key `detector.long_sid`"
    assert error.remedy == "did you mean `detector.long_side`?"
    assert error.exit_code == 78


@pytest.mark.parametrize(
    ("text", "line", "nearest"),
    [
        ('[camera.back]\nsorce = "x"\nsource = "y"\n', 7, "camera.back.source"),
        ("[detectr]\nscore = 0.5\n", 6, "detector"),
        ("[detector]\ndwell_s = 0.5\n", 7, "smoother.dwell_s"),
        ("[mqtt]\nbroker_uri = 'mqtt://a'\n", 7, "mqtt.broker"),
    ],
)
def test_nearest_key_is_looked_for_in_all_sections(
    write: Any, text: str, line: int, nearest: str
) -> None:
    error = refuse(write(GOOD + text))
    assert f":{line}: there is no key" in str(error)
    assert f"`{nearest}`" in error.remedy


def test_wrong_type_names_line_type_and_value(write: Any) -> None:
    path = write(GOOD + '[detector]\nscore = "high"\n')
    error = refuse(path)
    assert str(error) == f"{path}:7: `detector.score` must be a number, not 'high'"
    assert "0.6" in error.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[detector]\ndownload = 1", "`detector.download` must be true or false, not 1"),
        ("[detector]\nthreads = 1.5", "`detector.threads` must be a whole number, not 1.5"),
        ("[detector]\nlong_side = 33", "must be a multiple of 32, not 33"),
        ("[detector]\nscore = nan", "`detector.score` must be"),
        ("[detector]\nbackend = 'yolo'", "must be 'auto', 'yunet' or 'haar', not 'yolo'"),
        ("[smoother]\nupdate_s = inf", "must be a finite number, not inf"),
        ("[mqtt]\nusername = true", "must be text in quotes, not true"),
        ("[device]\nid = 'Küche'", "small letters, digits and hyphens, not 'Küche'"),
        ("[camera.'Front Door']\nsource = 'x'", "small letters, digits and hyphens"),
        ("[mqtt]\nbroker = 'localhost'", "'localhost' is no mqtt://host:port"),
        ("[camera.side]\nsource = ''", "`camera.side.source` must not be empty"),
        ("[camera.side]\nfps = 10.0", "`camera.side.source` is missing"),
        ("[camera]\nsource = 'x'", "`camera.source` must be a table, not 'x'"),
        ("[[tracker]]\nmin_iou = 0.1", "`tracker` must be a table"),
        ("roi = [0, 0, 1.5, 1]", "number 3 of `camera.front.roi` must be less than or equal to 1"),
        ("roi = [0, 0.5]", "`camera.front.roi` must have at least 4 items"),
    ],
)
def test_wrong_values_are_explained_in_plain_words(write: Any, text: str, words: str) -> None:
    error = refuse(write(GOOD + text))
    assert words in str(error)
    assert re.match(r".*config\.toml:[67]: ", str(error))


def test_all_problems_are_told_at_once_each_with_its_remedy(write: Any) -> None:
    error = refuse(write(GOOD + "[detector]\nscore = 2\n[smoother]\ndwel_s = 1\n"))
    first, second = str(error).splitlines()
    assert "detector.score" in first
    assert "which is 0.6" in first
    assert "dwel_s" in second
    assert "did you mean `smoother.dwell_s`?" in second
    assert "config validate" in error.remedy


def test_a_wrong_item_of_a_list_is_mended_in_that_list(write: Any) -> None:
    error = refuse(write(GOOD + "roi = [0, 0, 1.5, 1]\nloop = 3\n"))
    roi, loop = str(error).splitlines()
    assert "leave it out for the default" in roi
    assert "which is false" in loop


def test_missing_context_lists_the_choices(write: Any) -> None:
    error = refuse(write('[camera.front]\nsource = "x"\n'))
    assert "`deployment.context` is missing" in str(error)
    for context in ("home", "research", "accessibility", "medical", "safety", "public"):
        assert context in error.remedy


def test_missing_cameras_and_context_without_any_file(tmp_path: Path) -> None:
    error = refuse(env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert str(error).startswith("no configuration file: `deployment.context` is missing")
    assert "no camera is configured" in str(error)
    assert "fer-agent config init" in error.remedy


def test_workplace_is_refused_with_its_line(write: Any) -> None:
    error = refuse(write(GOOD.replace("research", "workplace")))
    assert ":2: `deployment.context`" in str(error)
    assert "prohibited by the EU AI Act" in str(error)
    assert "medical_or_safety_justification" in error.remedy


def test_unknown_variable_is_named_with_the_nearest_one(write: Any) -> None:
    error = refuse(write(GOOD), env={"FER_AGENT__MQTT__PASWORD": "hunter2"})
    assert str(error) == "FER_AGENT__MQTT__PASWORD: there is no key `mqtt.pasword`"
    assert error.remedy == "did you mean FER_AGENT__MQTT__PASSWORD_FILE?"


def test_wrong_variable_is_named_with_its_value(write: Any) -> None:
    error = refuse(write(GOOD), env={"FER_AGENT__DETECTOR__DOWNLOAD": "yes"})
    assert str(error).startswith("FER_AGENT__DETECTOR__DOWNLOAD: `detector.download` must be true")


def test_wrong_option_is_said_to_come_from_the_command_line(write: Any) -> None:
    error = refuse(write(GOOD), overrides={"mqtt.broker": "tcp://x"})
    assert str(error).startswith("command line: `mqtt.broker`")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[deployment\n", 1),
        ("[deployment]\ncontext = home\n", 2),
        ("[detector]\nscore = 0.5\nscore = 0.6\n", 3),
        ('[deployment]\ncontext = "home\n', 2),
        ('[deployment]\ncontext = """home\n', 2),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(write: Any, text: str, line: int) -> None:
    path = write(text)
    error = refuse(path)
    assert str(error).startswith(f"{path}:{line}: this is not TOML: ")


def test_missing_folder_binary_and_forbidden_files_are_config_errors(tmp_path: Path) -> None:
    assert "No such file" in str(refuse(tmp_path / "none.toml"))
    assert "Is a directory" in str(refuse(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'x = "\xe9"\n')
    assert "not UTF-8" in str(refuse(tmp_path / "latin.toml"))
    (tmp_path / "empty.toml").write_bytes(b"")
    assert "deployment.context" in str(refuse(tmp_path / "empty.toml"))


def test_file_without_read_permission_is_a_config_error(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GOOD)

    def refuse_to_read(*_args: object, **_options: object) -> str:
        raise PermissionError(13, "Permission denied")  # root may read everything

    monkeypatch.setattr(Path, "read_text", refuse_to_read)
    assert str(refuse(path)) == f"cannot read {path}: Permission denied"


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert loading.load(path, env={}).deployment.context == "research"


def test_lines_are_found_in_every_notation() -> None:
    text = '''\
# [not.a.table]
top.dotted = 1
"quoted key" = """
[not.a.header]
no = "key"
"""

[table."with space"]
array = [
  1,
]
inline = { a = 1, b = { c = 2 } }
[[list]]
x = 1
'''
    assert dict(lines_of_keys(text)) == {
        ("top",): 2,
        ("top", "dotted"): 2,
        ("quoted key",): 3,
        ("table", "with space"): 8,
        ("table", "with space", "array"): 9,
        ("table", "with space", "inline"): 12,
        ("table", "with space", "inline", "a"): 12,
        ("table", "with space", "inline", "b"): 12,
        ("table", "with space", "inline", "b", "c"): 12,
        ("list",): 13,
        ("list", "x"): 14,
    }


def test_template_holds_every_key_and_is_valid_once_uncommented() -> None:
    text = loading.template()
    tables = tomllib.loads(re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE))
    AgentConfig.model_validate(tables)
    written = {key for key, _ in lines_of_keys(re.sub(r"(?m)^#(?=[a-z\[])", "", text))}
    for key, field in known_keys():
        assert tuple("front" if step == "*" else step for step in key) in written
        assert field.description
        assert f"# {' '.join(field.description.split())}\n" in text


def test_template_as_written_holds_only_what_was_chosen() -> None:
    settings = {
        "deployment.context": "home",
        "camera.hall.source": '/dev/v4l/by-id/usb-"x"',
        "mqtt.broker": None,
    }
    tables = tomllib.loads(loading.template(settings))
    assert {name: table for name, table in tables.items() if table} == {
        "deployment": {"context": "home"},
        "camera": {"hall": {"source": '/dev/v4l/by-id/usb-"x"'}},
    }


@pytest.mark.parametrize(
    "settings",
    [{"deployment.context": "workplace"}, {"mqtt.brokr": "x"}, {"camera.UP.source": "x"}],
)
def test_template_refuses_what_the_configuration_would(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="command line"):
        loading.template(settings)


def test_rendered_configuration_reads_back_and_says_where_values_come_from(write: Any) -> None:
    path = write(GOOD)
    env = {"FER_AGENT__DETECTOR__SCORE": "0.7"}
    config, origins = loading.read(path, env=env, overrides={"device.id": "kitchen"})
    text = loading.render(config, origins)
    assert f'context = "research"  # {path}:2' in text
    assert "score = 0.7  # FER_AGENT__DETECTOR__SCORE" in text
    assert 'id = "kitchen"  # command line' in text
    assert "threads = 1  # default" in text
    assert AgentConfig.model_validate(tomllib.loads(text)) == config
    assert "#" not in loading.render(config).split("\n", 2)[1]


def test_credentials_in_an_address_are_refused_and_not_repeated(write: Any) -> None:
    source = "rtsp://me:hunter2@camera.local/stream"
    with pytest.raises(ConfigError, match="password_file") as caught:
        loading.load(write(GOOD), env={}, overrides={"camera.back": {"source": source}})
    assert "hunter2" not in str(caught.value) + caught.value.remedy


def test_rendered_configuration_would_hide_credentials_all_the_same(write: Any) -> None:
    config = loading.load(write(GOOD), env={})
    camera = config.camera["front"].model_copy(update={"source": "rtsp://me:hunter2@host/x"})
    text = loading.render(config.model_copy(update={"camera": {"front": camera}}))
    assert 'source = "rtsp://***@host/x"' in text


def test_schema_accepts_the_template_and_refuses_unknown_keys() -> None:
    schema = loading.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    tables = tomllib.loads(GOOD)
    assert validator.is_valid(tables)
    assert not validator.is_valid(tables | {"detector": {"scor": 1}})
    assert not validator.is_valid({"camera": tables["camera"]})


def test_every_key_has_a_variable_that_sets_it(write: Any) -> None:
    path = write(GOOD)
    for key, _ in known_keys():
        named = tuple("front-door" if step == "*" else step for step in key)
        name = variable(named)
        try:
            _, origins = loading.read(path, env={name: "?"})
            origin = origins[named]
        except ConfigError as error:  # no value fits every key
            origin = str(error).partition(":")[0]
        assert origin == name


def test_every_section_says_what_it_is() -> None:
    for field in AgentConfig.model_fields.values():
        section = loading.section_of(field.annotation)
        assert section is not None
        assert issubclass(section, Section)
        assert section.__doc__
