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
        ({"batch_size": 0}, "batch_size is 0; expected a number above 0"),
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
