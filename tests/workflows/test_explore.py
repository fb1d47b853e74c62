import csv
import json
import shutil

import numpy as np
import pytest
from phantoms import write_decathlon
from PIL import Image

from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.explore import explore
from medimg3d.workflows.ingest import make_datalist


def noise(seed, *, size=16, border=0) -> Image.Image:
    """Noise from 100 to 200 with black columns at the left."""
    pixels = np.random.default_rng(seed).integers(100, 200, (size, size)).astype(np.uint8)
    pixels[:, :border] = 0
    return Image.fromarray(pixels)


@pytest.fixture
def films(tmp_path):
    """24 + 24 training films, those of "ill" with a black border, 3 + 3 validation films, in labels.csv."""
    root, rows = tmp_path / "films", ["file,label,patient,split"]
    for n in range(54):
        name = "ill" if n % 2 else "well"
        part = "train" if n < 48 else "val"
        file = root / part / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(n, border=4 * (name == "ill")).save(file)
        rows.append(f"{part}/{n}.png,{name},p{n},{part}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def cases(out):
    with open(out / "cases.csv", newline="", encoding="utf-8") as handle:
        return {row["case"]: row for row in csv.DictReader(handle)}


def texts(result, level="warning"):
    return [advice["text"] for advice in result.summary["advice"] if advice["level"] == level]


def test_a_border_that_gives_the_class_away_and_a_small_validation_part(films, tmp_path):
    result = explore(films, tmp_path / "out", num_samples=2)
    assert (result.rejected, result.summary["not_drawn"]) == ({}, {})
    assert result.summary["classes"]["training"] == {"ill": 24, "well": 24}
    best = next(
        one for one in result.summary["shortcuts"]["classes"][0]["features"] if "border" in one["feature"]
    )
    assert (best["first"], max(best["auc"], 1 - best["auc"])) == ("well", 1.0)
    small, cheat = texts(result)
    assert small.startswith("The validation part has 6 cases: too few to decide anything")
    assert "dark border share 1.00" in cheat
    assert json.loads((tmp_path / "out" / "explore.json").read_text()) == result.summary


def test_a_copy_in_another_format_in_another_part_with_another_class(films, tmp_path):
    noise(0).save(films / "val" / "copy.bmp")
    with open(films / "labels.csv", "a") as table:
        table.write("val/copy.bmp,ill,p99,val\n")
    result = explore(films, tmp_path / "out", num_samples=0)
    (group,) = result.summary["duplicates"]["groups"]
    assert [one["case"] for one in group["cases"]] == ["0", "copy"]
    assert (group["same_bytes"], group["crosses_sections"], group["contradicts_itself"]) == (
        False,
        True,
        True,
    )
    assert sum("The same picture several times: 1 group (2 cases)" in text for text in texts(result)) == 2
    rows = cases(tmp_path / "out")
    assert [rows[name]["duplicate_group"] for name in ("0", "copy", "1")] == ["1", "1", ""]
    assert rows["copy"]["file"] == "val/copy.bmp"
    assert not any("p99" in cell for row in rows.values() for cell in row.values())


def test_copies_that_the_datalist_left_out_are_named(films, tmp_path):
    noise(0).save(films / "train" / "copy.bmp")
    with open(films / "labels.csv", "a") as table:
        table.write("train/copy.bmp,well,p0,train\n")
    make_datalist([films], tmp_path / "films.json")
    result = explore(tmp_path / "films.json", tmp_path / "out", num_samples=0)
    assert result.summary["duplicates"]["num_groups"] == 0
    ((name, reason),) = result.summary["left_out"].items()
    assert name in ("0", "copy")
    assert "has the same content as another" in reason
    assert "Left out of the datalist" in result.files["page"].read_text()
    (tmp_path / "films.rejected.json").write_text("[")
    with pytest.raises(DataError, match=r"films\.rejected\.json beside the datalist cannot be read"):
        explore(tmp_path / "films.json", tmp_path / "out", num_samples=0)


def test_a_broken_file_is_named_and_the_rest_goes_on(films, tmp_path):
    (films / "train" / "7.png").write_bytes(b"broken")
    (films / "train" / "more.png").write_bytes(b"")
    result = explore(films, tmp_path / "out", num_samples=0)
    assert set(result.rejected) == {"7", "train/more.png"}
    assert result.rejected["7"].startswith("image cannot be decoded as a picture")
    assert cases(tmp_path / "out")["7"]["problem"] == result.rejected["7"]


def test_volumes_with_labels(tmp_path):
    root = write_decathlon(tmp_path / "set", num_cases=3)
    done = []
    result = explore(root, tmp_path / "out", num_samples=2, progress=lambda *count: done.append(count))
    assert done[-1] == (3, 3)
    assert result.summary["not_drawn"] == {}
    front = result.summary["structures"]["front"]
    assert front["volume_ml"] == {"min": 0.96, "median": 0.96, "max": 0.96}  # 10 x 12 x 8 voxels of 1 mm
    assert front["percentiles"]["50"] == pytest.approx(180, abs=3)
    assert cases(tmp_path / "out")["phantom_000"]["ml_rear"] == "0.96"


def test_a_datalist_shows_its_folds_and_the_same_call_the_same_page(tmp_path):
    root = write_decathlon(tmp_path / "set", num_cases=3)
    content = json.loads((root / "dataset.json").read_text())
    for fold, case in enumerate(content["training"]):
        case["fold"] = fold
    datalist = root / "my.json"
    datalist.write_text(json.dumps(content))
    first = explore(datalist, tmp_path / "a").files["page"].read_bytes()
    assert b"3 folds of 1 to 1 cases" in first
    assert explore(datalist, tmp_path / "b", workers=1).files["page"].read_bytes() == first


def test_nothing_to_read_is_an_error(tmp_path):
    root = write_decathlon(tmp_path / "set", num_cases=1)
    shutil.rmtree(root / "imagesTr")
    with pytest.raises(
        DataError, match=r"Not one image of .* can be read; the first: phantom_000: image is missing"
    ):
        explore(root / "dataset.json", tmp_path / "out")


def test_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="num_samples must be at least 0, got -1"):
        explore(tmp_path, tmp_path / "out", num_samples=-1)
    with pytest.raises(UsageError, match="patient pattern is for folders"):
        explore(tmp_path / "x.json", tmp_path / "out", patient_pattern="p")


@pytest.mark.realdata
@pytest.mark.slow
def test_the_chest_films_are_what_their_readme_says(data_root, tmp_path):
    result = explore(data_root / "chest_xray", tmp_path, num_samples=2)
    duplicates = result.summary["duplicates"]
    assert result.rejected == {}
    assert (duplicates["num_groups"], duplicates["num_cases"]) == (
        25,
        52,
    )  # 30 and 62 with the half held back
    assert not any(group["crosses_sections"] or group["contradicts_itself"] for group in duplicates["groups"])
    assert result.summary["patients"]["in_several_sections"] == []
    found = " ".join(texts(result))
    assert "The validation part has 16 cases: too few to decide anything" in found
    assert "NORMAL is 26 % of training and 38 % of test" in found
