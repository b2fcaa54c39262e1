"""Recipes: those that ship, refused switches, and the nearest switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_trainer.errors import RecipeError
from fer_trainer.recipe import load_recipe, packaged, parse_setting

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", packaged())
def test_packaged_recipes_are_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.for_teacher().name == f"{name}-teacher"


def test_paper_recipe_is_as_printed() -> None:
    recipe = load_recipe("paper")
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.final_lr) == ("adam", 1e-3, 1e-5)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.patience) == (80, 64, 15)
    printed = {
        "flip": 0.5, "rotation_deg": 15.0, "brightness": 0.2, "contrast": 0.2, "erasing": 0.15,
        "mixup": 0.2,
    }  # fmt: skip
    switched_on = {name: value for name, value in recipe.augment.model_dump().items() if value}
    assert switched_on == printed
    assert recipe.optim.schedule == "cosine"
    assert (recipe.optim.weight_decay, recipe.optim.ema_decay) == (0.0, 0.0)
    assert (recipe.loss.name, recipe.loss.label_smoothing) == ("cross-entropy", 0.0)
    network = recipe.network
    assert (network.name, network.reduction, network.hidden, network.dropout) == (
        "student", 4, 256, 0.4,
    )  # fmt: skip
    assert (recipe.distill.temperature, recipe.distill.alpha) == (4.0, 0.7)
    teacher = recipe.for_teacher()
    assert (teacher.network.name, teacher.train.epochs) == ("resnet50", 50)


def test_unknown_switch_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[optim]\nlearning_rate = 0.1\nmomentun = 0.9\n")
    with pytest.raises(RecipeError, match=r"unknown switch optim\.") as caught:
        load_recipe(str(path))
    assert "optim." in caught.value.remedy
    with pytest.raises(RecipeError) as caught:
        load_recipe("best").with_({"augment.cutmixx": 1.0})
    assert caught.value.remedy == "the nearest is augment.cutmix"


def test_unknown_switch_of_the_teacher_is_found_at_loading(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[teacher]\ntrain = { epoch = 3 }\n")
    with pytest.raises(RecipeError, match=r"teacher has the unknown switch train\.epoch"):
        load_recipe(str(path))
    path.write_text("[teacher]\ntrian = { epochs = 3 }\n")
    with pytest.raises(RecipeError, match="trian is no section"):
        load_recipe(str(path))


def test_impossible_values_and_broken_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"optim\.lr is -1"):
        load_recipe("best").with_({"optim.lr": -1})
    path = tmp_path / "own.toml"
    path.write_text("[optim\n")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(str(path))
    with pytest.raises(RecipeError, match="no recipe 'bset'"):
        load_recipe("bset")


def test_settings_are_json_or_words() -> None:
    assert parse_setting("optim.lr=0.5") == ("optim.lr", 0.5)
    assert parse_setting("network.name=vgg13") == ("network.name", "vgg13")
    assert parse_setting("network.strides=[1,2,2,2,2]") == ("network.strides", [1, 2, 2, 2, 2])
    with pytest.raises(RecipeError, match="is no setting"):
        parse_setting("optim.lr")
    with pytest.raises(RecipeError, match="unknown switch"):
        load_recipe("best").with_({"optim.lr.first": 1})
