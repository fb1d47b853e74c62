"""Small images made by hand for the tests, with known answers; the one place where tests make images."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np


def affine(spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0)) -> np.ndarray:
    """RAS affine, axis aligned."""
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[:3, 3] = origin_mm
    return matrix


def write_nifti(path: Path, array: np.ndarray, matrix: np.ndarray | None = None) -> Path:
    """Write an array as NIfTI with its affine as both sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine() if matrix is None else matrix)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_nifti_of_unknown_size(path: Path, array: np.ndarray) -> Path:
    """Write an array as NIfTI with neither sform nor qform and no unit: nothing says how big a voxel is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, None)
    image.header.set_xyzt_units("unknown")
    nibabel.save(image, path)
    return path


def two_part_phantom(seed: int, shape=(30, 42, 28)) -> tuple[np.ndarray, np.ndarray]:
    """A bright bar along J on noise, its front half label 1 and rear half label 2, somewhere in the box.

    Returns:
        Image, float32, and label, uint8, both of ``shape``.
    """
    rng = np.random.default_rng(seed)
    i0, j0, k0 = rng.integers(6, 10), rng.integers(6, 10), rng.integers(6, 10)
    label = np.zeros(shape, np.uint8)
    label[i0 : i0 + 10, j0 : j0 + 12, k0 : k0 + 8] = 1
    label[i0 : i0 + 10, j0 + 12 : j0 + 24, k0 : k0 + 8] = 2
    image = rng.normal(100, 10, shape) + 80 * (label == 1) + 120 * (label == 2)
    return image.astype(np.float32), label


def write_decathlon(folder: Path, num_cases: int = 8, first_seed: int = 0) -> Path:
    """A Decathlon root (imagesTr, labelsTr, dataset.json) of :func:`two_part_phantom` cases."""
    import json

    training = []
    for n in range(num_cases):
        image, label = two_part_phantom(first_seed + n)
        name = f"phantom_{n:03d}.nii.gz"
        write_nifti(folder / "imagesTr" / name, image)
        write_nifti(folder / "labelsTr" / name, label)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "name": "phantoms",
                "modality": {"0": "MRI"},
                "labels": {"0": "background", "1": "front", "2": "rear"},
                "numTraining": num_cases,
                "numTest": 0,
                "training": training,
                "test": [],
            },
            indent=2,
        )
    )
    return folder


def small_ball_phantom(seed: int, shape=(72, 60, 56), radius=6) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball somewhere in a large noisy volume.

    Returns:
        Image, float32, and label, uint8 (1 in the ball), both of ``shape``.
    """
    rng = np.random.default_rng(seed)
    centre = [rng.integers(radius + 2, size - radius - 2) for size in shape]
    places = np.indices(shape) - np.array(centre).reshape(3, 1, 1, 1)
    label = ((places**2).sum(axis=0) <= radius**2).astype(np.uint8)
    image = rng.normal(100, 10, shape) + 150 * label
    return image.astype(np.float32), label


def write_large_study(folder: Path, num_cases: int = 6, matrix: np.ndarray | None = None) -> Path:
    """A Decathlon root of :func:`small_ball_phantom` cases; ``matrix`` is the affine of all."""
    import json

    training = []
    for number in range(num_cases):
        image, label = small_ball_phantom(number)
        name = f"ball_{number}.nii.gz"
        write_nifti(folder / "imagesTr" / name, image, matrix)
        write_nifti(folder / "labelsTr" / name, label, matrix)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "ball"}
    content = {"name": "balls", "modality": {"0": "MRI"}, "labels": labels, "training": training, "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def write_picture(path: Path, grey: int = 0, size=(12, 8)) -> Path:
    """A PNG, JPEG or the like of one grey value with one brighter pixel, ``size`` as columns and rows."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", size, grey)
    picture.putpixel((1, 2), 255)
    picture.save(path)
    return path


def write_dicom_series(
    folder: Path, positions_mm=(0.0, 2.0, 4.0), shape_ij=(6, 5), volume: np.ndarray | None = None
) -> Path:
    """A CT series of single-frame files, 0.5 mm pixels, one slice at each z (LPS) in ``positions_mm``.

    Slice n has the value n, or, of ``volume`` (I, J, K), what that has at K = n.
    """
    import SimpleITK

    folder.mkdir(parents=True, exist_ok=True)
    root = "2.25." + "".join(str(ord(letter)) for letter in folder.name)[:30]
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for n, z in enumerate(positions_mm):
        values = np.full(shape_ij, n) if volume is None else volume[:, :, n]
        slice_ = SimpleITK.GetImageFromArray(values.T[None].astype(np.uint16))
        slice_.SetSpacing((0.5, 0.5, 2.0))
        slice_.SetOrigin((0.0, 0.0, z))
        slice_.SetMetaData("0008|0060", "CT")
        slice_.SetMetaData("0008|0018", f"{root}.{n + 1}")  # SOPInstanceUID
        slice_.SetMetaData("0020|000d", f"{root}.100")  # StudyInstanceUID
        slice_.SetMetaData("0020|000e", f"{root}.200")  # SeriesInstanceUID
        slice_.SetMetaData("0020|0013", str(n + 1))
        writer.SetFileName(str(folder / f"{n:03d}.dcm"))
        writer.Execute(slice_)
    return folder


def oblique_affine(spacing_mm=(1.0, 1.0, 1.0), origin_mm=(-20.0, 15.0, 30.0), degrees=20.0) -> np.ndarray:
    """RAS affine, rotated about the axis to the head, then by half the angle about that to the right."""
    turn, tilt = np.deg2rad([degrees, degrees / 2])
    about_k = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_i = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_i @ about_k @ np.diag(spacing_mm)
    matrix[:3, 3] = origin_mm
    return matrix


def two_boxes(shape=(16, 18, 14)) -> np.ndarray:
    """Zeros with a box of 100 (4 x 5 x 6 = 120 voxels) and a box of 200 (3 x 3 x 3 = 27 voxels), float32."""
    image = np.zeros(shape, np.float32)
    image[2:6, 3:8, 4:10] = 100
    image[9:12, 10:13, 5:8] = 200
    return image


def write_threshold_bundle(folder: Path) -> Path:
    """A bundle of stock MONAI parts whose answer is known: 1 ("grey") above 50, 2 ("white") above 150.

    The network is one 1 x 1 x 1 convolution with the outputs 0, x - 50 and 2 x - 200; images go through RAS
    order and 1 mm spacing and back.
    """
    import json

    import torch

    path = "$os.path.join(@bundle_root, "
    on_image = {"keys": "image"}
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "separate_folder": False,
        "resample": False,
        "output_dtype": "$'uint8'",
    }
    config = {
        "imports": ["$import os", "$import torch"],
        "bundle_root": ".",
        "output_dir": path + "'predictions')",
        "checkpoint": path + "'models', 'model.pt')",
        "device": "$torch.device('cpu')",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **on_image},
                {"_target_": "EnsureChannelFirstd", **on_image},
                {"_target_": "Orientationd", **on_image, "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", **on_image, "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                save,
            ],
        },
    }
    names = {"0": "background", "1": "grey", "2": "white"}
    data_format = {
        "inputs": {"image": {"num_channels": 1}},
        "outputs": {"pred": {"num_channels": 3, "channel_def": names}},
    }
    metadata = {"version": "1.2.3", "name": "Thresholds", "network_data_format": data_format}
    for name, content in (("inference", config), ("metadata", metadata)):
        file = folder / "configs" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    weight = torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1, 1)
    (folder / "models").mkdir(exist_ok=True)
    torch.save({"weight": weight, "bias": torch.tensor([0.0, -50.0, -200.0])}, folder / "models" / "model.pt")
    return folder


def write_films(folder: Path, num_films: int = 12, size: int = 64) -> Path:
    """A datalist of PNG films: noise (normal), or noise with a bright disc (pneumonia); two films a patient.

    Returns:
        ``folder``, with ``dataset.json``.
    """
    import json

    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    training = []
    for n in range(num_films):
        pixels = rng.normal(90, 12, (size, size))
        ill = n % 2 == 1
        if ill:
            center = size * rng.uniform(0.35, 0.65, 2)
            pixels += 90 * (np.hypot(rows - center[0], columns - center[1]) < size / 5)
        name = f"film_{n:03d}.png"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        training.append(
            {
                "image": name,
                "class_label": "pneumonia" if ill else "normal",
                "patient": f"patient_{n // 4}_{n % 2}",
                "values": {"subtype": ("virus" if n % 4 == 1 else "bacteria") if ill else "normal"},
            }
        )
    content = {"name": "film phantoms", "classes": ["normal", "pneumonia"], "training": training}
    (folder / "dataset.json").write_text(json.dumps(content, indent=2))
    return folder


def write_dicom_film(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    window: tuple[float, float] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    padding: int | None = None,
) -> Path:
    """A digital X-ray of unsigned 16-bit pixels, shape (rows, columns), uncompressed."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PhotometricInterpretation, ds.SamplesPerPixel = "DX", photometric, 1
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    if window is not None:
        ds.WindowCenter, ds.WindowWidth = window
    if spacing_mm is not None:
        ds.PixelSpacing = list(spacing_mm)
    if padding is not None:
        ds.PixelPaddingValue = padding
    ds.PixelData = np.ascontiguousarray(pixels.astype("<u2")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_film_study(
    folder: Path, *, num_normal: int = 6, num_bacterial: int = 4, num_viral: int = 2
) -> Path:
    """Small films in ``test/normal`` and ``test/pneumonia``, each of its own grey, and ``chest.json``.

    Two films share a patient. The datalist's test part has them all, with ``subtype`` in the values.
    """
    import json

    kinds = ["normal"] * num_normal + ["bacterial"] * num_bacterial + ["viral"] * num_viral
    cases = []
    for number, kind in enumerate(kinds):
        truth = "normal" if kind == "normal" else "pneumonia"
        path = write_picture(folder / "test" / truth / f"film_{number:02d}.png", grey=10 * number)
        case = {
            "image": path.relative_to(folder).as_posix(),
            "class_label": truth,
            "patient": f"p{number // 2}",
        }
        cases.append(case | {"values": {"subtype": kind}})
    content = {"name": "chest", "classes": ["normal", "pneumonia"], "training": [], "test": cases}
    (folder / "chest.json").write_text(json.dumps(content))
    return folder


def write_class_predictions(
    folder: Path,
    chances: dict[str, float],
    *,
    threshold: float = 0.5,
    unsure: tuple[float, float] = (2.0, 2.0),
    classes: tuple[str, str] = ("normal", "pneumonia"),
) -> Path:
    """A ``predictions.csv`` as ``medimg3d predict`` writes it: file to the chance of the second class."""
    lines = [f"file,probability,decision,unsure,probability_{classes[0]},probability_{classes[1]},case"]
    for file, chance in chances.items():
        decision = classes[chance >= threshold]
        flag = "yes" if unsure[0] <= chance <= unsure[1] else "no"
        lines.append(f"{file},{chance:.6f},{decision},{flag},{1 - chance:.6f},{chance:.6f},{Path(file).stem}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_flat_bundle(folder: Path) -> Path:
    """A bundle of 2D images: an untrained UNet of three classes, its plain configuration and the fast one."""
    import json

    import torch
    from tiny_networks import tiny_unet

    path = "$os.path.join(@bundle_root, "
    on_image = {"keys": "image"}
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "resample": False}
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    window = {"roi_size": [16, 16], "sw_batch_size": 4, "overlap": 0.5, "mode": "gaussian"}
    config = {
        "imports": ["$import os", "$import torch"],
        "bundle_root": ".",
        "output_dir": path + "'predictions')",
        "checkpoint": path + "'models', 'model.pt')",
        "device": "$torch.device('cpu')",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **on_image},
                {"_target_": "EnsureChannelFirstd", **on_image},
                {"_target_": "Orientationd", **on_image, "axcodes": "RA", "labels": None},
                {"_target_": "Spacingd", **on_image, "pixdim": [1.0, 1.0], "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", **on_image},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", **window},
        "network_def": {"_target_": "tiny_networks.tiny_unet", "dims": 2},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {**invert, "nearest_interp": False, "to_tensor": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                save,
            ],
        },
    }
    inferer = "medimg3d.inference.label_map_inferer.LabelMapInferer"
    fast = {
        "preprocessing#transforms#0#reader": "medimg3d.data.fast_nifti_reader.FastNiftiReader",
        "preprocessing#transforms#3#_target_": "medimg3d.transforms.separable_spacing.SeparableSpacingd",
        "inferer": {"_target_": inferer, **window, "softmax": True},
        "postprocessing": save,
    }
    names = {"0": "background", "1": "grey", "2": "white"}
    image = {"num_channels": 1, "spatial_shape": ["2*n", "2*n"]}
    data_format = {
        "inputs": {"image": image},
        "outputs": {"pred": {"num_channels": 3, "channel_def": names}},
    }
    metadata = {"version": "0.1.0", "name": "Flat", "network_data_format": data_format}
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, content in (("inference", config), ("inference_fast", fast), ("metadata", metadata)):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    (folder / "models").mkdir(exist_ok=True)
    torch.save(tiny_unet(2).state_dict(), folder / "models" / "model.pt")
    return folder


def write_defects(folder: Path) -> Path:
    """A Decathlon root of five good cases (``good_0`` to ``good_4``) and one or two of each of ten defects.

    Returns:
        The datalist; the images of the defects are called after them.
    """
    import json

    training = []

    def add(name, image, label, *, image_matrix=None, label_matrix=None, ending=".nii.gz", **entry):
        file = f"imagesTr/{name}{ending}"
        write_nifti(folder / file, image, image_matrix)
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", label, label_matrix)
        training.append({"image": file, "label": f"labelsTr/{name}.nii.gz", "patient": name, **entry})

    def phantom():
        return two_part_phantom(100 + len(training))

    for n in range(5):
        add(f"good_{n}", *phantom(), fold=n)
    image, label = phantom()
    channels = np.stack([image, image], axis=-1)[..., None, :]  # I, J, K, one time, two channels
    add("channels", channels, label)
    add("shifted", *phantom(), label_matrix=affine(origin_mm=(0, 3, 0)))
    image, label = phantom()
    label[1, 1, 1] = 7
    add("label_7", image, label)
    image, label = phantom()
    image[2, 3, 4] = np.nan
    add("nan", image, label)
    image, label = phantom()
    add("empty", image, np.zeros_like(label))
    add("duplicate", *two_part_phantom(100), ending=".nii")  # good_0 without compression
    image, label = phantom()
    add("four_d", np.stack([image, image + 1, image + 2], axis=-1), label)
    coarse = affine(spacing_mm=(1, 1, 3))
    add("spacing", *phantom(), image_matrix=coarse, label_matrix=coarse)
    add("unreadable", *phantom())
    path = folder / "imagesTr" / "unreadable.nii.gz"
    path.write_bytes(path.read_bytes()[:3000])
    add("two_folds_a", *phantom(), patient="one", fold=0)
    add("two_folds_b", *phantom(), patient="one", fold=1)
    content = {
        "name": "defects",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "front", "2": "rear"},
        "split": {"by": "patient", "num_folds": 5, "seed": 0},
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def write_specked_study(folder: Path, num_cases: int = 8, num_folds: int = 2) -> Path:
    """A datalist of :func:`two_boxes` images moved about, each with five bright specks that belong to no structure.

    A bundle of :func:`write_threshold_bundle` finds both boxes and takes the specks (one voxel each) for "white".
    Case n is of fold n modulo ``num_folds``.
    """
    import json

    training = []
    for n in range(num_cases):
        rng = np.random.default_rng(n)
        clean = np.roll(two_boxes(), rng.integers(-1, 2, 3), axis=(0, 1, 2))
        image = clean.copy()
        for _ in range(5):
            i, j, k = rng.integers(0, (16, 18, 2))  # the upper slices are empty
            image[i, j, 12 + k] = 200
        name = f"case_{n}.nii.gz"
        write_nifti(folder / "images" / name, image)
        write_nifti(folder / "labels" / name, (clean / 100).astype(np.uint8))
        training.append({"image": f"images/{name}", "label": f"labels/{name}", "fold": n % num_folds})
    labels = {"0": "background", "1": "grey", "2": "white"}
    file = folder / "datalist.json"
    file.write_text(json.dumps({"labels": labels, "training": training}))
    return file


def write_two_channel_bundle(folder: Path) -> Path:
    """As :func:`write_threshold_bundle`, but of the channels ``ct`` and ``pet``: their sum counts."""
    import json

    import torch

    write_threshold_bundle(folder)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["in_channels"] = 2
    path.write_text(json.dumps(config))
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    channels = {"0": "ct", "1": "pet"}
    metadata["network_data_format"]["inputs"]["image"] = {"num_channels": 2, "channel_def": channels}
    path.write_text(json.dumps(metadata))
    weight = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]).reshape(3, 2, 1, 1, 1)
    torch.save({"weight": weight, "bias": torch.tensor([0.0, -50.0, -200.0])}, folder / "models" / "model.pt")
    return folder


def write_region_bundle(folder: Path, regions: dict[str, list[int]]) -> Path:
    """As :func:`write_two_channel_bundle`, of two regions: the first where either channel is above 50, then ``ct``."""
    import json

    import torch

    write_two_channel_bundle(folder)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["out_channels"] = 2
    invert, _, save = config["postprocessing"]["transforms"]
    sigmoid = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    to_labels = {"_target_": "medimg3d.transforms.regions.RegionsToLabelsd", "keys": "pred"}
    config["postprocessing"]["transforms"] = [sigmoid, invert, to_labels, save]
    path.write_text(json.dumps(config))
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text()) | {"regions": regions}
    names = {"0": "background"} | {str(n): name for n, name in enumerate(regions, start=1)}
    metadata["network_data_format"]["outputs"]["pred"] = {"num_channels": 2, "channel_def": names}
    path.write_text(json.dumps(metadata))
    weight = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).reshape(2, 2, 1, 1, 1)
    torch.save({"weight": weight, "bias": torch.tensor([-50.0, -50.0])}, folder / "models" / "model.pt")
    return folder


def write_region_study(folder: Path, regions: dict[str, list[int]], num_cases: int = 2) -> Path:
    """Cases for :func:`write_region_bundle`: ``ct`` shows label 1, ``pet`` label 2; fold 0 and 1 in turn.

    Returns:
        The datalist.
    """
    import json

    training = []
    for number in range(num_cases):
        label = np.zeros((8, 9, 10), np.uint8)
        label[2:6, 2:7, 1:4], label[2:6, 2:7, 4 : 6 + number] = 1, 2
        case = folder / f"p{number}"
        for name, value in (("ct", 1), ("pet", 2)):
            write_nifti(case / f"{name}.nii.gz", (100 * (label == value)).astype(np.float32))
        write_nifti(case / "label.nii.gz", label)
        images = {name: f"p{number}/{name}.nii.gz" for name in ("ct", "pet")}
        training.append(
            {"id": f"p{number}", "fold": number % 2, "images": images, "label": f"p{number}/label.nii.gz"}
        )
    content = {
        "labels": {"0": "background", "1": "one", "2": "two"},
        "regions": regions,
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"
