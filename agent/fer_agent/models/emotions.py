"""The emotion words in models and on the wire."""

from __future__ import annotations

from typing import Final, Literal, get_args

Label = Literal["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", "contempt"]
"""A class of a model. A manifest's labels are a selection of these, in its own output order."""

Word = Literal[Label, "uncertain"]
"""The published emotion of a face."""

DominantWord = Literal[Word, "nobody"]
"""The published emotion of all faces in view."""

EMOTIONS: Final[tuple[Label, ...]] = get_args(Label)

UNCERTAIN: Final = "uncertain"
"""Published when the classifier abstains; `unknown` and `None` have other meanings elsewhere."""

NOBODY: Final = "nobody"
"""Published when there is no face."""
