"""Recipes, TOML files with everything that a run depends on besides the data."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_trainer.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGED = Path(__file__).parent / "recipes"


class _RecipeSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(_RecipeSection):
    """The labels of the training images, and their sampling."""

    targets: Literal["label", "majority", "plurality", "distribution", "agreed"] = "label"
    votes_share: float = Field(default=0.0, ge=0.0, le=1.0, description="of FER+ in the labels")
    exclude_duplicates: bool = False
    balanced: bool = Field(default=False, description="draw all classes equally often")


NetworkName = Literal[
    "student",
    "vgg13",
    "resnet50",
    "efficientnet-b0",
    "mobilenet-v2",
    "shufflenet-v2",
    "mobilenet-v3-small",
    "mobileface",
    "vgg-48",
    "resnet-48",
]


class NetworkSection(_RecipeSection):
    """The network and its settings; those below `width` are the student's.

    Weights: `scratch`; `imagenet`, which torchvision fetches; `vggface2`, the published
    resnet50_ft_weight.pkl; `mobileface`, the published MobileFace_Identification_V2-0000.params;
    `run`, of another run of the same network, whose last layer stays behind when it has other
    classes. The last three are files that the command line names.
    """

    name: NetworkName = "student"
    weights: Literal["scratch", "imagenet", "vggface2", "mobileface", "run"] = "scratch"
    dropout: float = Field(default=0.4, ge=0.0, lt=1.0)
    input_px: int = Field(default=48, ge=32, le=512, description="crops are enlarged to it")
    width: int = Field(default=64, ge=8, description="channels of vgg-48's and resnet-48's stem")
    strides: tuple[int, int, int, int, int] = (2, 2, 2, 2, 2)
    reduction: int = Field(default=4, ge=0, description="0: no SE block")
    hidden: int = Field(default=256, ge=1)
    multiplier: float = Field(default=1.0, gt=0.0, le=2.0, description="of the student's channels")
    norm_momentum: float = Field(default=0.1, gt=0.0, le=1.0)


class TrainSection(_RecipeSection):
    """Length, batches and determinism."""

    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=128, ge=2)
    seed: int = Field(default=1, ge=0)
    patience: int = Field(default=0, ge=0, description="epochs without a better figure; 0 is off")
    precision: Literal["32-true", "bf16-mixed", "auto"] = Field(
        default="32-true", description="auto: bf16-mixed on a GPU that has it"
    )
    compile: bool = False
    deterministic: bool = False
    select_on: Literal["valid", "test"] = "valid"


class OptimSection(_RecipeSection):
    """Optimiser and learning rate."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0)
    final_lr: float = Field(default=0.0, ge=0.0)
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of a one-cycle run")
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    ema_decay: float = Field(default=0.999, ge=0.0, lt=1.0, description="0 is off")


class AugmentSection(_RecipeSection):
    """Strength of the views' augmentation: shares of the side, degrees, probabilities."""

    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    rotation_deg: float = Field(default=15.0, ge=0.0, le=180.0)
    shift: float = Field(default=0.1, ge=0.0, le=0.5)
    scale: float = Field(default=0.15, ge=0.0, lt=1.0)
    shear_deg: float = Field(default=5.0, ge=0.0, le=45.0)
    brightness: float = Field(default=0.2, ge=0.0, lt=1.0)
    contrast: float = Field(default=0.2, ge=0.0, lt=1.0)
    erasing: float = Field(default=0.15, ge=0.0, le=1.0)
    light: float = Field(default=0.0, ge=0.0, le=1.0, description="dim; a camera's fault, as below")
    blur: float = Field(default=0.0, ge=0.0, le=1.0)
    noise: float = Field(default=0.0, ge=0.0, le=1.0)
    resample: float = Field(default=0.0, ge=0.0, le=1.0, description="few pixels, enlarged")
    jpeg: float = Field(default=0.0, ge=0.0, le=1.0)
    mixup: float = Field(default=0.0, ge=0.0)
    cutmix: float = Field(default=0.0, ge=0.0)


class LossSection(_RecipeSection):
    """The loss on labels."""

    name: Literal["cross-entropy", "focal", "squared-hinge"] = "cross-entropy"
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    focal_gamma: float = Field(default=2.0, ge=0.0)


class DistillSection(_RecipeSection):
    """Weights of distillation: `alpha` of the teacher's loss, the rest of the labels'."""

    temperature: float = Field(default=4.0, gt=0.0)
    alpha: float = Field(default=0.7, ge=0.0, le=1.0)
    views: int = Field(default=8, ge=1, description="views of each image in a targets file")


class Recipe(_RecipeSection):
    """All switches of a run.

    `teacher` holds those that differ for `fer-train teacher`, in the same sections.
    """

    name: str
    data: DataSection = DataSection()
    network: NetworkSection = NetworkSection()
    train: TrainSection = TrainSection()
    optim: OptimSection = OptimSection()
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    distill: DistillSection = DistillSection()
    teacher: dict[str, Any] = Field(default_factory=dict)

    def for_teacher(self) -> Recipe:
        """Make the teacher's recipe: this one with the switches under `teacher` changed.

        Raises:
            RecipeError: one of those is unknown or impossible.
        """
        tree = self.model_dump(mode="json", exclude={"teacher"})
        for section, changes in self.teacher.items():
            if not isinstance(tree.get(section), dict) or not isinstance(changes, dict):
                raise RecipeError(
                    f"{self.name}: teacher.{section} is no section",
                    remedy=f"use one of {', '.join(k for k, v in tree.items() if v != self.name)}",
                )
            tree[section] = {**tree[section], **changes}
        return _checked({**tree, "name": f"{self.name}-teacher"}, f"{self.name}, teacher")

    def with_(self, changes: Mapping[str, Any]) -> Recipe:
        """Change switches by dotted name, e.g. `with_({"train.epochs": 3})`.

        Raises:
            RecipeError: a name is unknown or a value impossible.
        """
        tree = self.model_dump(mode="json")
        for dotted, value in changes.items():
            node = tree
            *path, last = dotted.split(".")
            for part in path:
                inner = node.setdefault(part, {})
                if not isinstance(inner, dict):
                    raise RecipeError(
                        f"the recipe has the unknown switch {dotted}",
                        remedy=f"{part} is a value, not a section",
                    )
                node = inner
            node[last] = value
        return _checked(tree, self.name)


def load_recipe(name_or_path: str) -> Recipe:
    """Read a packaged recipe by name, or any TOML file.

    Raises:
        RecipeError: there is none, or it has unknown switches or impossible values.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _PACKAGED / f"{name_or_path}.toml"
    if not path.is_file():
        raise RecipeError(
            f"there is no recipe {name_or_path!r}",
            remedy=f"use one of {', '.join(packaged())}, or the path of a .toml file",
        )
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}", remedy="repair that line") from error
    recipe = _checked({"name": path.stem, **tree}, path.name)
    recipe.for_teacher()
    return recipe


def packaged() -> list[str]:
    """Return the names of the recipes that ship with the trainer."""
    return sorted(path.stem for path in _PACKAGED.glob("*.toml"))


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `section.switch=value` from the command line; the value is JSON or a plain word.

    Raises:
        RecipeError: there is no equals sign.
    """
    dotted, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"{text!r} is no setting", remedy="write --set section.switch=value")
    try:
        return dotted, json.loads(value)
    except json.JSONDecodeError:
        return dotted, value


def _checked(tree: dict[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        _explain(error, source)


def _explain(error: ValidationError, source: str) -> NoReturn:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(dotted, _switches(Recipe), n=1, cutoff=0.4)
        hint = f"the nearest is {near[0]}" if near else "see the recipes that ship with fer-train"
        raise RecipeError(f"{source} has the unknown switch {dotted}", remedy=hint) from error
    raise RecipeError(
        f"{source}: {dotted} is {first['input']!r}, but {first['msg'].lower()}",
        remedy="correct the value",
    ) from error


def _switches(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [prefix + name, *_switches(inner, f"{prefix}{name}.")]
        else:
            names.append(prefix + name)
    return names
