import hashlib

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import EnsembleEvaluator
from monai.handlers import CheckpointLoader
from monai.inferers import SlidingWindowInferer
from monai.transforms import Activationsd, Compose, MeanEnsembled
from tiny_networks import tiny_unet

from medimg3d.inference.ensemble_inferer import EnsembleInferer, MemberNetworks
from medimg3d.inference.mirroring import MirroringInferer

WINDOW = {"roi_size": (8, 8, 8), "sw_batch_size": 2, "overlap": 0.5, "mode": "gaussian"}
SEEDS = (0, 1, 2)


@pytest.fixture
def files(tmp_path):
    for seed in SEEDS:
        torch.save({"model": tiny_unet(seed=seed).state_dict()}, tmp_path / f"{seed}.pt")
    return [str(tmp_path / f"{seed}.pt") for seed in SEEDS]


def image():
    return torch.randn((1, 1, 13, 10, 9), generator=torch.Generator().manual_seed(0))


def test_the_mean_is_that_of_monais_ensemble_evaluator(files):
    keys = [f"pred{seed}" for seed in SEEDS]
    evaluator = EnsembleEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": image()[0]}])),
        networks=[tiny_unet(seed=seed) for seed in SEEDS],
        pred_keys=keys,
        inferer=SlidingWindowInferer(**WINDOW),
        postprocessing=Compose([Activationsd(keys, softmax=True), MeanEnsembled(keys, output_key="pred")]),
        decollate=True,
    )
    evaluator.run()
    members = MemberNetworks([tiny_unet(seed=0)], [files[1:]]).eval()
    with torch.no_grad():
        ours = EnsembleInferer([SlidingWindowInferer(**WINDOW)], [True])(image(), members)
    torch.testing.assert_close(ours[0], evaluator.state.output[0]["pred"], rtol=1e-5, atol=1e-6)


def test_every_configuration_has_its_own_inferer(files):
    members = MemberNetworks([tiny_unet(seed=0), tiny_unet(seed=5)], [[], files[1:2]]).eval()
    whole = SlidingWindowInferer((14, 10, 10))
    flipped = MirroringInferer(SlidingWindowInferer(**WINDOW), axes=(0,))
    with torch.no_grad():
        ours = EnsembleInferer([whole, flipped], [True, False])(image(), members)
        expected = (whole(image(), tiny_unet(seed=0)).softmax(1) + flipped(image(), tiny_unet(seed=1))) / 2
    torch.testing.assert_close(ours, expected)


def test_a_single_network_is_run_alone():
    inferer = EnsembleInferer([SlidingWindowInferer(**WINDOW)], [True])
    with torch.no_grad():
        ours = inferer(image(), tiny_unet(seed=0))
        expected = SlidingWindowInferer(**WINDOW)(image(), tiny_unet(seed=0)).softmax(1)
    torch.testing.assert_close(ours, expected)


def test_the_checkpoint_loader_fills_the_first_member_only(files):
    members = MemberNetworks([tiny_unet(seed=7)], [files[1:]])
    loader = CheckpointLoader(load_path=files[0], load_dict={"model": members})

    loader(Engine(lambda engine, batch: None))
    for member, seed in zip(members.members, SEEDS, strict=True):
        for name, value in tiny_unet(seed=seed).state_dict().items():
            assert torch.equal(member.state_dict()[name], value)


def test_alone_it_gives_the_mean_softmax_of_a_window(files):
    members = MemberNetworks([tiny_unet(seed=0)], [files[1:]]).eval()
    window = image()[..., :8, :8, :8]
    with torch.no_grad():
        expected = torch.stack([tiny_unet(seed=seed)(window).softmax(1) for seed in SEEDS]).mean(0)
        torch.testing.assert_close(members(window), expected)


def test_weights_with_another_hash_are_refused(files):
    with open(files[1], "rb") as file:
        right = hashlib.sha256(file.read()).hexdigest()
    MemberNetworks([tiny_unet()], [files[1:2]], [[right]])
    with pytest.raises(ValueError, match=r"2\.pt has the sha256"):
        MemberNetworks([tiny_unet()], [files[2:]], [[right]])


def test_weights_of_another_network_are_refused(files):
    with pytest.raises(ValueError, match=r"1\.pt does not fit the network"):
        MemberNetworks([tiny_unet(classes=4)], [files[1:2]])


def test_lists_that_do_not_fit_are_refused(files):
    with pytest.raises(ValueError, match="1 networks and 2 lists"):
        MemberNetworks([tiny_unet()], [files, files])
    with pytest.raises(ValueError, match="1 inferers and 2 values"):
        EnsembleInferer([SlidingWindowInferer(**WINDOW)], [True, False])


def test_a_config_builds_it(files):
    network = {"_target_": "tiny_networks.tiny_unet", "seed": 0}
    config = ConfigParser(
        {
            "network_def": network,
            "member_networks": {
                "_target_": "medimg3d.inference.ensemble_inferer.MemberNetworks",
                "networks": ["@network_def"],
                "checkpoints": [files[1:]],
            },
            "network": "$@member_networks.to(torch.device('cpu'))",
            "imports": ["$import torch"],
        }
    )
    assert len(config.get_parsed_content("network").members) == 3
