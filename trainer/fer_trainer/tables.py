"""The rows of the paper's tables, with their changes of a recipe and the printed numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fer_trainer.data.faceset import SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        key: in the results file.
        title: as printed.
        paper: accuracy in percent that the paper prints; None where it prints none.
        changes: switches of the recipe, by dotted name.
        classical: features of a support vector machine, for the rows without a network.
        distilled: whether a teacher is needed.
    """

    key: str
    title: str
    paper: float | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    classical: str | None = None
    distilled: bool = False

    def key_at(self, input_px: int) -> str:
        """Give the key for crops enlarged to a size, e.g. `resnet50@224`."""
        return self.key if input_px == SIZE_PX else f"{self.key}@{input_px}"


def _zoo(name: str) -> dict[str, Any]:
    return {"network.name": name, "network.weights": "scratch"}


_STUDENT = {"network.name": "student", "network.weights": "scratch"}

_TANG = {
    **_zoo("vgg-48"), "network.width": 32, "loss.name": "squared-hinge", "optim.lr": 0.01,
}  # fmt: skip
"""Tang's network was a plain CNN; the linear SVM is its last layer under the squared hinge loss,
whose gradients are several times those of cross-entropy: at a rate of 0.05 it left 197 in 3 steps.
"""

BASELINES = (
    TableRow("lbp-svm", "LBP + SVM", 48.0, classical="lbp"),
    TableRow("hog-svm", "HOG + SVM", classical="hog"),
    TableRow("cnn-l2svm", "CNN + L2-SVM (Tang 2013)", 71.2, _TANG),
    TableRow("vgg13", "VGG13", 72.4, _zoo("vgg13")),
    TableRow("resnet50", "ResNet-50 (teacher)", 74.8, _zoo("resnet50")),
    TableRow("efficientnet-b0", "EfficientNet-B0", 72.1, _zoo("efficientnet-b0")),
    TableRow("mobilenet-v2", "MobileNetV2", 69.8, _zoo("mobilenet-v2")),
    TableRow("shufflenet-v2", "ShuffleNetV2", 67.5, _zoo("shufflenet-v2")),
    TableRow("mobilenet-v3-small", "MobileNetV3-Small", 67.0, _zoo("mobilenet-v3-small")),
    TableRow("vgg-48", "VGG type made for 48x48", None, _zoo("vgg-48")),
    TableRow("resnet-48", "ResNet type made for 48x48", None, _zoo("resnet-48")),
    TableRow("student", "MobileNetV3-Small + SE", None, _STUDENT),
    TableRow("student-distilled", "The paper's network, distilled", 71.2, _STUDENT, distilled=True),
)
"""Table 1, on FER2013."""

_PLAIN = {**_STUDENT, "network.reduction": 0, "augment.mixup": 0.0}

ABLATION = (
    TableRow("plain", "MobileNetV3-Small, 256-unit head", 67.0, _PLAIN),
    TableRow("se", "+ SE block", None, {**_PLAIN, "network.reduction": 4}),
    TableRow("distilled", "+ distillation", None, _PLAIN, distilled=True),
    TableRow("mixup", "+ mixup", None, {**_PLAIN, "augment.mixup": 0.2}),
    TableRow(
        "full",
        "all of them",
        71.2,
        {**_PLAIN, "network.reduction": 4, "augment.mixup": 0.2},
        distilled=True,
    ),
)
"""Table 2: each part alone, and all."""

GPU_ROW = {"mean_ms": 1.1, "fps": 909.0, "peak_mb": 210.0}
"""Table 3's row of a GPU."""

BOARD_ROWS = {
    "Raspberry Pi 4": {"mean_ms": 35.7, "fps": 28.0, "peak_mb": 48.0},
    "Jetson Nano": {"mean_ms": 8.2, "fps": 122.0, "peak_mb": 62.0},
}
"""Table 3's rows of boards, which `fer-agent bench` measures."""

NOT_MEASURED = "not measured"

AFFECTNET = (TableRow("student", "AffectNet", 58.4, _STUDENT),)
"""Table 1, on AffectNet: `fer-train baselines --kind affectnet-8` measures it."""

AFFECTNET_NOTE = "not measured: data not redistributable"
"""AffectNet, until a user runs it. The paper says 3,500 validation images for 8 classes; the set
has 4,000 for 8 and 3,500 for 7."""
