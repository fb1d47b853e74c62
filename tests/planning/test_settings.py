"""Settings from a file and from flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from medimg3d.errors import UsageError
from medimg3d.planning.settings import PlanSettings, read_settings, with_values

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_file_in_configs_holds_every_setting_with_its_default():
    import yaml

    content = yaml.safe_load((CONFIGS / "plan.yaml").read_text())
    default = PlanSettings()
    assert set(content) == set(vars(default))
    assert content.pop("device") is None  # the machine's
    for name, value in content.items():
        assert (
            value == pytest.approx(getattr(default, name), abs=1e-3)
            if isinstance(value, float)
            else (value == getattr(default, name))
        )


def test_null_leaves_a_setting_open(tmp_path):
    (tmp_path / "plan.yaml").write_text("network: unet\nbatch_size: null\n")
    assert read_settings(tmp_path / "plan.yaml") == {"network": "unet"}


def test_a_misspelt_setting_is_told_what_was_meant(tmp_path):
    (tmp_path / "plan.yaml").write_text("batchsize: 2\n")
    with pytest.raises(UsageError, match=r"Unknown setting batchsize. Did you mean batch_size\?"):
        read_settings(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "vnet"}, "network is 'vnet'; expected one of auto, dynunet"),
        ({"spacing_mm": (1, 0, 1)}, r"spacing_mm is \[1, 0, 1\]; expected two or three numbers above 0"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
        ({"batch_size": True}, "batch_size is True; expected a whole number"),
        ({"epochs": "many"}, "epochs is 'many'; expected a whole number"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; expected a number"),
        ({"weight_decay": -1}, "weight_decay is -1; expected a number from 0"),
        ({"trial": "perhaps"}, "trial is 'perhaps'; expected yes or no"),
        ({"deep_supervision": 1}, "deep_supervision is 1; expected yes or no"),
        ({"mirror_axes": -1}, r"mirror_axes is \[-1\]; expected different axes, each 0, 1 or 2"),
        ({"mirror_axes": (0, 3)}, r"mirror_axes is \[0, 3\]; expected different axes"),
        ({"mirror_axes": [1, 1]}, r"mirror_axes is \[1, 1\]; expected different axes"),
        ({"mirror_axes": "x"}, "mirror_axes is 'x'; expected different axes"),
        ({"patch_size": 64}, r"patch_size is \[64\]; expected two or three whole numbers"),
        ({"patch_size": (64, 64.5)}, r"patch_size is \[64, 64.5\]; expected two or three whole numbers"),
        ({"modality": 5}, "modality is 5; expected one of ct, mri"),
        ({"num_workers": -1}, "num_workers is -1; expected a whole number from 0"),
        ({"num_folds": 1}, "num_folds is 1; expected a whole number from 2"),
        ({"fold_seed": "a"}, "fold_seed is 'a'; expected a whole number"),
        ({"max_poolings": 1}, "max_poolings is 1; expected a whole number from 2"),
        (
            {"network": "segresnet", "max_poolings": 3},
            "segresnet has a depth of its own; expected dynunet or unet",
        ),
        ({"network": "swinunetr", "width": 16}, "width is 16; expected a multiple of 12 for swinunetr"),
        ({"network": "segresnet", "width": 12}, "width is 12; expected a multiple of 8 for segresnet"),
        ({"window_overlap": 1.0}, "window_overlap is 1.0"),
        ({"window": [400, -100]}, r"window is \[400, -100\]; expected two numbers, the lower before"),
        ({"window": [5, 5]}, r"window is \[5, 5\]; expected two numbers"),
        ({"window": [1, 2, 3]}, r"window is \[1, 2, 3\]; expected two numbers"),
        ({"window": [float("-inf"), 3]}, r"window is \[-inf, 3\]; expected two numbers"),
        ({"window": ["a", "b"]}, r"window is \['a', 'b'\]; expected two numbers"),
        ({"window": 400}, "window is 400; expected two numbers"),
    ],
)
def test_values_that_cannot_be_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        with_values(PlanSettings(), values)


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("trial", "no", False),
        ("deep_supervision", "False", False),
        ("deep_supervision", "on", True),
        ("mirror_axes", 0, (0,)),
        ("mirror_axes", [], ()),
        ("weight_decay", 0, 0),
        ("learning_rate", "1e-3", 0.001),
        ("epochs", 100.0, 100),
        ("patch_size", [64, 64, 32], (64, 64, 32)),
        ("num_workers", None, 2),
        ("network", None, "auto"),
    ],
)
def test_values_of_a_file_or_a_flag_become_what_the_setting_is(name, value, taken):
    found = getattr(with_values(PlanSettings(), {name: value}), name)
    assert (found, type(found)) == (taken, type(taken))


def test_a_window_of_a_file_or_a_flag_is_a_pair():
    assert with_values(PlanSettings(), {"window": [-100, 400]}).window == (-100, 400)
    assert with_values(PlanSettings(), {"window": (-100.0, 400.0)}).given() == {"window": [-100.0, 400.0]}


def test_the_flag_of_the_window_takes_a_negative_bound(monkeypatch):
    from medimg3d.cli.main import run
    from medimg3d.workflows import plan

    asked = {}

    def stop(_datalist, _out, settings, **_):
        asked.update(settings)
        raise UsageError("Stopped here.")

    monkeypatch.setattr(plan, "plan_bundle", stop)
    with pytest.raises(SystemExit):
        run(["plan", "list.json", "--out", "planned", "--window", "-100,400"])
    assert asked == {"window": (-100.0, 400.0)}
