"""What a plan says of its values: those of the rules, and those that were asked for."""

from __future__ import annotations

import pytest
import torch
from facts import channel, facts, of_classes
from monai.losses import DiceFocalLoss

from medimg3d.data.datalist import Datalist
from medimg3d.engines.scheme_loss import SchemeLoss
from medimg3d.errors import UsageError
from medimg3d.planning.estimate import count_numbers
from medimg3d.planning.fit import network_of
from medimg3d.planning.planner import draft_plan, finish_plan
from medimg3d.planning.segmentation_configs import segmentation_configs
from medimg3d.planning.settings import PlanSettings

HEART = facts(shapes=((100, 100, 10),) * 10, spacings_mm=((1.5, 1.5, 8.0),) * 10)
"""Ten slices: 3D, but for networks that divide all axes by 32."""


def planned(*, data=None, extra=None, **settings):
    return finish_plan(draft_plan(data or facts(), Datalist(extra=extra or {}), PlanSettings(**settings)))


def row(name, **settings):
    return next(one for one in planned(**settings).decisions if one.name == name)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("dimension", {"dimension": "2d"}, "As asked for; by the rule 3D: Volumes have 40 slices"),
        ("network", {"network": "unet"}, "As asked for; by the rule dynunet: A plain U-Net"),
        ("modality", {"modality": "ct"}, "As asked for; by the rule mri: image: no name is known"),
        ("voxel size", {"spacing_mm": (2, 2, 2)}, "As asked for; by the rule 1 x 1 x 1: All cases have it"),
        ("mirroring", {"mirror_axes": (0, 1)}, "As asked for; by the rule axis 0: Left to right only"),
        ("folds", {"num_folds": 3}, "As asked for; by the rule 5 folds, seed 0: Dealt out by patient"),
        ("patch", {"patch_size": (32, 32, 32)}, "As asked for; by the rule at most 40 x 40 x 40: The median"),
        ("batch", {"batch_size": 5}, "As asked for; by the rule 2: A step sees 2 patches"),
        (
            "steps of an epoch",
            {"iterations_per_epoch": 7},
            "As asked for; by the rule 10: An epoch sees 1 patch",
        ),
        ("epochs", {"epochs": 3}, "As asked for; by the rule 400: 4000 steps in all"),
        ("optimizer", {"weight_decay": 0}, "As asked for; by the rule AdamW, 0.002, weight decay 0.01: "),
        ("patch centres", {"foreground_share": 0.5}, "As asked for; by the rule 33% on a structure: "),
        ("loss", {"loss": "dice_focal"}, "As asked for; by the rule Dice + cross-entropy: Dice over the"),
        ("augmentation", {"augmentation": "none"}, "As asked for; by the rule full: nnU-Net's list"),
    ],
)
def test_what_is_asked_for_stands_beside_what_the_rule_says(name, settings, reason):
    assert row(name, **settings).reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dimension", {"dimension": "3d"}),
        ("task", {"task": "segmentation"}),
        ("network", {"network": "dynunet"}),
        ("voxel size", {"spacing_mm": (1, 1, 1)}),
        ("mirroring", {"mirror_axes": 0}),
        ("folds", {"num_folds": 5, "fold_seed": 0}),
        ("optimizer", {"learning_rate": 0.002, "weight_decay": 0.01}),
        ("depth and width", {"width": 16}),
        ("batch", {"batch_size": 2}),
        ("epochs", {"epochs": 400}),
        ("patch centres", {"foreground_share": 0.3333}),
    ],
)
def test_where_what_is_asked_for_is_the_rule_its_reason_stands(name, settings):
    assert row(name, **settings) == row(name)


def test_a_width_that_is_asked_for_is_told_from_the_rule():
    assert "has 24 filters as asked for; by the rule 16." in row("depth and width", width=24).reason
    assert "has 16 filters." in row("depth and width").reason


def test_swinunetr_tells_why_thin_volumes_go_slice_by_slice_even_when_asked():
    for asked in ({}, {"dimension": "2d"}):
        assert "multiples of 32" in row("dimension", data=HEART, network="swinunetr", **asked).reason
    asked = row("dimension", data=HEART, network="swinunetr", dimension="3d").reason
    assert asked.startswith("As asked for; by the rule 2D, slices across axis 2: Volumes have 10 slices")


@pytest.mark.parametrize("network", ["segresnet", "mednext", "swinunetr"])
def test_halvings_are_offered_to_networks_that_have_a_choice(network):
    assert row("depth and width", network=network).change == "--set width=N"
    assert "max_poolings" in row("depth and width", network="unet").change


def test_no_weight_decay_is_none():
    plan = planned(weight_decay=0)
    assert plan.weight_decay == 0
    assert segmentation_configs(plan)["train"]["train"]["optimizer"]["weight_decay"] == 0


def test_an_axis_that_the_images_do_not_have_is_refused():
    with pytest.raises(UsageError, match="--mirror names axis 2; expected 0 to 1"):
        planned(data=of_classes(), mirror_axes=(2,))


VOLUMES = {"num_axes": 3, "channels": (channel(),), "spacings_mm": ((1.0, 1.0, 1.0),) * 12}


@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 64, 8), (64, 64, 32)), ((10, 10, 10), (32, 32, 32)), ((128, 100, 30), (64, 48, 32))],
)
def test_a_classifier_of_volumes_sees_at_least_32_voxels_along_each_axis(shape, size):
    plan = planned(data=of_classes(**VOLUMES, shapes=(shape,) * 12))
    assert plan.topology.patch == size
    assert count_numbers(network_of(plan), (2, 1, *size), num_classes=2)


def test_an_image_size_that_the_classifier_cannot_halve_five_times_is_refused():
    data = of_classes(**VOLUMES, shapes=((64, 64, 8),) * 12)
    assert planned(data=data, image_size=(64, 64, 32)).topology.patch == (64, 64, 32)
    with pytest.raises(
        UsageError, match="--image-size is 64 x 64 x 16; expected at least 32 along each axis"
    ):
        planned(data=data, image_size=(64, 64, 16))
    with pytest.raises(UsageError, match="--image-size has 2 numbers; expected 3"):
        planned(data=data, image_size=(64, 64))


def test_a_patch_that_is_too_small_is_named_and_not_the_images():
    with pytest.raises(UsageError, match="A patch of 8 x 8 x 8 voxels is too small") as caught:
        planned(patch_size=(8, 8, 8))
    assert "Give a larger --patch" in str(caught.value)


def test_the_label_of_a_flat_image_is_flattened_in_evaluation_too():
    flat = facts(num_axes=2, shapes=((100, 80),) * 10, spacings_mm=((1.0, 1.0),) * 10)
    drop = {"_target_": "PACKAGE.flat_axis.DropFlatAxisd", "keys": "label"}
    steps = segmentation_configs(planned(data=flat))["evaluate"]["transforms"]["transforms"]
    assert steps[-1] == drop
    assert drop not in segmentation_configs(planned())["evaluate"]["transforms"]["transforms"]


def test_an_epoch_tells_how_many_patches_of_a_case_count():
    large = facts(shapes=((160, 160, 160),) * 10)  # 125 patches of 32³
    reason = row("steps of an epoch", data=large, patch_size=(32, 32, 32)).reason
    assert "sees 8 patches of each of 8 cases (an image is 125 times the patch, of which 8 count)" in reason
    assert "sees 1 patch of each of 8 cases," in row("steps of an epoch").reason


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"regions": {"liver": [1]}}, "Dice + binary focal"),
        ({"ignore_label": 255}, "Dice + focal"),
    ],
)
def test_the_focal_loss_is_that_of_regions_and_ignored_voxels_too(extra, name):
    plan = planned(extra=extra, loss="dice_focal")
    assert next(one for one in plan.decisions if one.name == "loss").value == name
    assert segmentation_configs(plan)["train"]["train"]["head_loss"]["focal"] is True
    plain = segmentation_configs(planned(extra=extra))["train"]["train"]["head_loss"]
    assert "focal" not in plain


def test_the_focal_loss_is_monais():
    scores = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    expected = DiceFocalLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert float(SchemeLoss(focal=True)(scores, label)) == pytest.approx(
        float(expected(scores, label)), abs=1e-6
    )
    regions = [[1, 2], [2]]
    members = torch.cat([torch.isin(label, torch.tensor(values)) for values in regions], dim=1).float()
    expected = DiceFocalLoss(sigmoid=True, batch=True)
    assert float(SchemeLoss(regions, focal=True)(scores[:, :2], label)) == pytest.approx(
        float(expected(scores[:, :2], members)), abs=1e-6
    )


def test_the_focal_loss_leaves_ignored_voxels_out():
    scores = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(1))
    label[:, :, :2] = 255
    whole = SchemeLoss(ignore_label=255, focal=True)(scores, label)
    cut = SchemeLoss(focal=True)(scores[:, :, 2:], label[:, :, 2:])
    assert float(whole) == pytest.approx(float(cut), abs=1e-5)
