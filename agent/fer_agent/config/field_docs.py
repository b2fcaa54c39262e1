"""The descriptions of configuration keys and payload fields, from the docstrings below them.

pydantic can read these itself while it makes the classes (`use_attribute_docstrings`), but that
takes a tenth of the time from start to open cameras, and only a schema, a template and an error
message need the descriptions.
"""

from __future__ import annotations

import ast
import functools
import inspect
from types import ModuleType

from pydantic import BaseModel


@functools.cache
def describe(module: ModuleType) -> None:
    """Set the descriptions of the fields of a module's models and their schemas, once.

    Without the source nothing is set.

    Args:
        module: its models come in the order in which they use each other.
    """
    try:
        source = inspect.getsource(module)
    except OSError:
        return
    docs: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        model = getattr(module, node.name)
        if not issubclass(model, BaseModel):
            continue
        docs[node.name] = _docstrings(node)
        for parent in model.__mro__:
            for name, text in docs.get(parent.__name__, {}).items():
                field = model.model_fields[name]
                field.description = field.description or text
        model.model_rebuild(force=True)


def _docstrings(node: ast.ClassDef) -> dict[str, str]:
    """Return the text below each annotated name that has one."""
    found = {}
    for above, below in zip(node.body, node.body[1:], strict=False):
        match above, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found
