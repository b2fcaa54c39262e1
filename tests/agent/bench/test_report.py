from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from fer_agent.bench import compare, machine, markdown, paper, plots, schema, table
from fer_agent.bench.record import BenchReport, BoardReading, Sustained, SustainedSample
from fer_agent.errors import UsageError
from fer_agent.system.board import BoardState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    NewReport = Callable[..., BenchReport]


def validate(name: str, content: Any) -> None:
    document = schema.documents()[f"{name}.schema.json"]
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(document, format_checker=checker).validate(content)


def test_the_schemas_in_the_repository_are_those_of_the_models(root: Path) -> None:
    folder = root / "schemas" / "bench" / "v1"
    files = {path.name: json.loads(path.read_text("utf-8")) for path in folder.iterdir()}
    assert files == schema.documents(), "run python -m fer_agent.bench.schema schemas/bench/v1"
    for document in files.values():
        jsonschema.Draft202012Validator.check_schema(document)


def test_a_result_fits_its_schema_and_a_wrong_one_does_not(new_report: NewReport) -> None:
    content = json.loads(new_report().model_dump_json())
    validate("result", content)
    for spoil in (
        lambda made: made.pop("machine"),
        lambda made: made.update(schema_version=2),
        lambda made: made["networks"][0]["subject"].update(sha256="short"),
        lambda made: made["networks"][0].update(fps=-1.0),
        lambda made: made["pipelines"][0]["stages_ms"].update(guess={}),
    ):
        spoilt = json.loads(json.dumps(content))
        spoil(spoilt)
        with pytest.raises(jsonschema.ValidationError):
            validate("result", spoilt)


def test_a_board_that_hides_its_temperature_is_unknown_and_not_zero(
    new_report: NewReport,
) -> None:
    report = new_report(before=BoardReading.model_validate(BoardState()))
    assert report.before.temperature_c is None
    text = table.as_text(report)
    before = next(line for line in text.splitlines() if line.startswith("before:"))
    assert "temperature unknown, clock unknown of unknown, governor unknown" in before
    assert "slowed down unknown" in before
    assert "slowed down meanwhile: unknown" in text
    assert json.loads(report.model_dump_json())["before"]["temperature_c"] is None
    warm = BoardState(temperature_c=71.5, clock_mhz=1500, throttled=True, governor="ondemand")
    told = table.state(BoardReading.model_validate(warm))
    assert "temperature 71.5 °C, clock 1500 MHz of unknown, governor ondemand" in told
    assert "slowed down yes" in told


def test_the_paper_s_row_stands_beside_the_board_s(new_report: NewReport) -> None:
    text = table.as_text(new_report())
    (row,) = [line for line in text.splitlines() if "paper," in line]
    assert re.search(r"paper, Raspberry Pi 4 ¹.*35\.7.*28.*48", row)
    assert "the paper's memory is its classifier's alone" in text


@pytest.mark.parametrize(
    ("board", "same", "boards"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", True, ["Raspberry Pi 4"]),
        ("NVIDIA Jetson Nano Developer Kit", True, ["Jetson Nano"]),
        ("NVIDIA Jetson Orin Nano Developer Kit", False, ["Raspberry Pi 4", "Jetson Nano"]),
        ("Raspberry Pi 5 Model B Rev 1.0", False, ["Raspberry Pi 4", "Jetson Nano"]),
    ],
)
def test_another_board_s_row_is_marked(board: str, same: bool, boards: list[str]) -> None:
    rows = paper.rows(board, 25_000_000)
    assert [row.board for row in rows] == boards
    assert [row.same_board for row in rows] == [same] * len(rows)
    for row in rows:
        assert any("multiply-accumulates" in reason for reason in row.not_comparable)
        assert same != any(reason.startswith("this is no ") for reason in row.not_comparable)
        assert (row.board == "Jetson Nano") == any("JetPack 4" in why for why in row.not_comparable)
    assert {
        row.board: (row.fps, row.latency_ms, row.memory_mb) for row in paper.rows("x", None)
    } == {
        "Raspberry Pi 4": (28.0, 35.7, 48.0),
        "Jetson Nano": (122.0, 8.2, 62.0),
    }


def test_two_results_are_compared_figure_by_figure(new_report: NewReport) -> None:
    slow, fast = new_report(), new_report(speed=2.0)
    found = compare.compare(slow, fast, ("slow.json", "fast.json"))
    validate("comparison", json.loads(found.model_dump_json()))
    ratios = {one.what: one.ratio for one in found.figures}
    assert ratios["microexpnet-fer2013 fp32, onnx, 1 thread(s): p50 ms"] == 0.5
    assert ratios["pipeline, scene, 2 face(s): detect p50 ms"] == 0.5
    assert ratios["microexpnet-fer2013 fp32, onnx, 1 thread(s): private MB"] == 1.0
    assert found.differences == ()
    assert "ratio below 1: faster or smaller" in compare.as_table(found).as_text()


def test_what_makes_two_results_unlike_is_said(new_report: NewReport) -> None:
    first = new_report()
    other = first.machine.model_copy(
        update={"board": "Raspberry Pi 5", "cores": 2, "load_before": 3.0}
    )
    second = new_report(machine=other, interrupted=True, throttled_during=True, pipelines=[])
    found = compare.compare(first, second, ("a", "b"))
    said = "\n".join(found.differences)
    assert "another board: Raspberry Pi 4 Model B Rev 1.5 and Raspberry Pi 5" in said
    assert "another cores: 4 and 2" in said
    assert "b: the machine was busy with other work (load 3)" in said
    assert "b: the board slowed itself down meanwhile" in said
    assert "b: interrupted" in said
    assert found.only_first
    assert all(what.startswith("pipeline") for what in found.only_first)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "is not JSON"),
        ("[1]", "is no result of `fer-agent bench`"),
        ('{"kind": "fer-agent-bench", "schema_version": 2}', "this agent reads up to 1"),
        ('{"kind": "fer-agent-bench", "schema_version": 1}', "agent_version: Field required"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        compare.read(path)
    assert "result.json" in str(caught.value)
    with pytest.raises(UsageError, match=r"cannot read .*none\.json: No such file"):
        compare.read(tmp_path / "none.json")


def test_a_newer_agent_s_fields_are_read_over(new_report: NewReport, tmp_path: Path) -> None:
    content = json.loads(new_report().model_dump_json()) | {"voltage": 5.1}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    assert compare.read(path) == new_report()


def sustained() -> Sustained:
    samples = [
        SustainedSample(at_s=10.0 * n, fps=30.0 - n, temperature_c=50.0 + 3 * n)
        for n in range(1, 13)
    ]
    return Sustained(minutes=2.0, faces=1, samples=tuple(samples))


def test_a_page_has_every_table_and_its_pictures(new_report: NewReport, tmp_path: Path) -> None:
    written = markdown.write(new_report(sustained=sustained()), tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# fer-agent bench: Raspberry Pi 4 Model B Rev 1.5")
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures == ["page-latency.svg", "page-stages.svg", "page-sustained.svg"]
    assert written == [tmp_path / "page.md", *(tmp_path / name for name in pictures)]
    for name in pictures:
        svg = ET.parse(tmp_path / name).getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert "| microexpnet-fer2013 fp32 | onnx | 1 | 4.97 | 12.50 |" in text
    with pytest.raises(UsageError, match="cannot write"):
        markdown.write(new_report(), tmp_path / "no folder" / "page.md")


def test_bars_are_as_long_as_what_they_show() -> None:
    rows = [plots.PlotBar("a", (("x", 2.0), ("y", 1.0)), ""), plots.PlotBar("b", (("x", 4.0),), "")]
    svg = ET.fromstring(plots.bars("title & more", rows))
    space = "{http://www.w3.org/2000/svg}"
    wide = [
        float(each.attrib["width"]) for each in svg.iter(f"{space}rect") if len(each)
    ]  # the legend's have no title
    assert wide[0] == pytest.approx(2 * wide[1], rel=0.01)
    assert wide[2] == pytest.approx(2 * wide[0], rel=0.01)


def test_a_long_run_s_rate_is_drawn_over_time(new_report: NewReport) -> None:
    assert table.sparkline([0.0, 4.0, 8.0]) == "▁▅█"
    text = table.as_text(new_report(sustained=sustained()))
    assert "Sustained: 2 min asked for, 1 face(s)" in text
    assert re.search(r"slowest\s+18\.0", text)
    assert "sustained" not in plots.pictures(new_report())


def test_a_processor_is_named_by_its_kind(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("CPU implementer\t: 0x41\nCPU part\t: 0xd08\n" * 4)
    assert machine.processor(cpuinfo) == "Cortex-A72"
    cpuinfo.write_text("CPU part\t: 0xd42\nCPU part\t: 0xfff\n")
    assert machine.processor(cpuinfo) == "Cortex-A78AE, Arm part 0xfff"
    cpuinfo.write_text("model name\t: Some CPU\nmodel name\t: Some CPU\n")
    assert machine.processor(cpuinfo) == "Some CPU"
    assert machine.processor(tmp_path / "none") is None
