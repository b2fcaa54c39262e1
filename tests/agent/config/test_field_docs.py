from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from fer_agent.config.field_docs import describe
from fer_agent.mqtt import payloads

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

SOURCE = '''
from pydantic import BaseModel, Field

WORD = 1
"""No field."""

class Inner(BaseModel):
    """A model, not a field."""
    first: int = 1
    """What it is,

        on two lines."""
    bare: int = 2
    named: int = Field(default=3, description="Its own.")
    """Left alone."""

class Outer(Inner):
    first: int = 4
    """Another meaning."""
    inner: Inner = Inner()
    """One inside."""

class Plain:
    number: int = 5
    """No model's."""
'''


def make(folder: Path) -> ModuleType:
    path = folder / "described.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("described", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fields_get_the_text_below_them_their_own_before_a_parents(tmp_path: Path) -> None:
    module = make(tmp_path)
    describe(module)
    told = {
        model: {
            name: field.description for name, field in getattr(module, model).model_fields.items()
        }
        for model in ("Inner", "Outer")
    }
    inner = {"first": "What it is,\n\non two lines.", "bare": None, "named": "Its own."}
    assert told == {
        "Inner": inner,
        "Outer": inner | {"first": "Another meaning.", "inner": "One inside."},
    }


def test_schemas_have_them_too_those_of_models_inside_as_well(tmp_path: Path) -> None:
    module = make(tmp_path)
    describe(module)
    schema = module.Outer.model_json_schema()
    assert schema["properties"]["first"]["description"] == "Another meaning."
    inside = schema["$defs"]["Inner"]["properties"]["first"]
    assert inside["description"].startswith("What it is")
    assert module.Outer(first=7).inner.bare == 2


def test_without_its_source_a_module_stays_as_it_is(tmp_path: Path) -> None:
    module = make(tmp_path)
    (tmp_path / "described.py").unlink()
    describe(module)
    assert module.Inner.model_fields["first"].description is None


def test_every_payload_field_is_described() -> None:
    describe(payloads)
    for name in ("EventData", "HealthPayload", "InfoPayload"):
        fields = getattr(payloads, name).model_fields
        assert all(field.description for field in fields.values()), name
