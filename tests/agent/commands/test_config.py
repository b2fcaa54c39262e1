from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import jsonschema
import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(fer_agent: Run) -> Run:
    """A function that runs `fer-agent config`."""
    return partial(fer_agent, "config")


def test_written_configuration_is_valid(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.toml"
    written = run("init", str(path), "--context", "home", "--source", "/dev/video0")
    assert written.returncode == 0, written.stderr
    assert str(path) in written.stderr
    assert run("validate", "--config", str(path)).returncode == 0


def test_init_does_not_replace_a_file_unasked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("precious")
    refused = run("init", str(path), "--context", "home")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "precious"
    assert run("init", str(path), "--context", "home", "--force").returncode == 0
    assert 'context = "home"' in path.read_text()


def test_init_prints_the_template_on_stdout_when_asked(run: Run) -> None:
    done = run("init", "-")
    assert done.returncode == 0
    assert "#long_side = 320" in done.stdout


def test_init_refuses_a_prohibited_context(run: Run, tmp_path: Path) -> None:
    done = run("init", str(tmp_path / "config.toml"), "--context", "workplace")
    assert done.returncode == 78
    assert "AI Act" in done.stderr
    assert not (tmp_path / "config.toml").exists()


def test_wrong_configuration_ends_with_78_one_sentence_and_a_remedy(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[deployment]\ncontext = "home"\n[camera.a]\nsource = "x"\nfpz = 3\n')
    done = run("validate", "--config", str(path))
    assert done.returncode == 78
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"fer-agent: {path}:5: there is no key `camera.a.fpz`"
    assert second.strip() == "did you mean `camera.a.fps`?"


def test_validate_answers_in_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[deployment\n")
    done = run("validate", "--json", "--config", str(path))
    answer = json.loads(done.stdout)
    assert done.returncode == 78
    assert answer["schema_version"] == 1
    assert not answer["valid"]
    assert f"{path}:1: this is not TOML" in answer["error"]
    assert answer["remedy"]


def test_show_tells_where_each_value_came_from(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[deployment]\ncontext = "home"\n[camera.a]\nsource = "/dev/video0"\n')
    env = {"FER_AGENT__DETECTOR__SCORE": "0.75"}
    text = run("show", "--config", str(path), **env)
    assert f'context = "home"  # {path}:2' in text.stdout
    assert "score = 0.75  # FER_AGENT__DETECTOR__SCORE" in text.stdout
    as_json = run("show", "--json", "--config", str(path), **env)
    assert json.loads(as_json.stdout)["config"]["detector"]["score"] == 0.75


def test_schema_is_a_json_schema(run: Run) -> None:
    schema = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].startswith("urn:fer-agent:")
