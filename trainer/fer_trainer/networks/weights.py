"""Loading of weights from VGGFace2's published pickle, without running it, and from other runs."""

from __future__ import annotations

import collections
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fer_trainer import checkpoint
from fer_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

VGGFACE2_MEAN = (91.4953 / 255.0, 103.8827 / 255.0, 131.0912 / 255.0)
VGGFACE2_STD = (1.0 / 255.0, 1.0 / 255.0, 1.0 / 255.0)
"""Blue, green, red; the published networks take pixels of 0 to 255 less their mean.

Source: Cao et al., VGGFace2, arXiv:1710.08092, and the weights' own demo.
"""

_LATIN = "latin1"
"""The pickle was written by Python 2."""


def load_vggface2(network: nn.Module, path: Path) -> None:
    """Put `resnet50_ft_weight.pkl` into a ResNet-50, besides its last layer.

    Raises:
        CheckpointError: the file is missing, broken, holds anything but arrays, or is of another
            network.
    """
    arrays = _arrays(path)
    own = network.state_dict()
    loaded = {
        name: torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if not name.startswith("fc.") and name in own
    }
    missing = [
        name
        for name in own
        if name not in loaded and not name.startswith("fc.") and "num_batches" not in name
    ]
    wrong = [name for name, tensor in loaded.items() if tensor.shape != own[name].shape]
    if missing or wrong:
        raise CheckpointError(
            f"{path} does not fit ResNet-50 at {(missing + wrong)[0]}",
            remedy="give resnet50_ft_weight.pkl as published for PyTorch",
        )
    network.load_state_dict(loaded, strict=False)


def load_run(network: nn.Module, path: Path, name: str) -> None:
    """Put another run's averaged weights into a network; other classes leave its last layer out.

    Args:
        network: as `build_network` makes it.
        path: a run folder or a checkpoint.
        name: the network's name in recipes.

    Raises:
        CheckpointError: the file is no checkpoint, or of another network.
    """
    state = checkpoint.load(checkpoint.best_of(path))
    if state.parsed_recipe.network.name != name:
        raise CheckpointError(
            f"{path} holds a {state.parsed_recipe.network.name}, not a {name}",
            remedy="give a run of the same network",
        )
    average = {
        key.removeprefix("module."): value
        for key, value in state.ema.items()
        if key != "n_averaged"
    }
    own = network.state_dict()
    for key in list(own)[-2:]:  # weight and bias of the last layer
        if key in average and len(average[key]) != len(own[key]):
            average[key] = own[key]
    try:
        network.load_state_dict(average)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the recipe's network: {error}",
            remedy="use the same network settings",
        ) from error


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that makes arrays and dictionaries only, so that no code in the file runs."""

    _ALLOWED = {  # noqa: RUF012  # a constant table, never written
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED:
            return self._ALLOWED[module, name]
        if name == "_reconstruct" and module.endswith("multiarray"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")


def _encode(text: str, encoding: str = _LATIN) -> bytes:
    return text.encode(encoding)


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            tree = _ArraysOnly(file, encoding=_LATIN).load()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no {path}", remedy="give resnet50_ft_weight.pkl as --weights"
        ) from error
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not read: {error}",
            remedy="give resnet50_ft_weight.pkl as published for PyTorch",
        ) from error
    if not isinstance(tree, dict) or not all(isinstance(v, np.ndarray) for v in tree.values()):
        raise CheckpointError(f"{path} is no table of arrays", remedy="give resnet50_ft_weight.pkl")
    return tree
