import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import EnsembleEvaluator
from monai.inferers import SlidingWindowInferer
from monai.transforms import Activationsd, Compose, MeanEnsembled
from tiny_networks import tiny_unet

from medimg3d.inference.label_map_inferer import LabelMapInferer
from medimg3d.inference.network_mean import AveragedNetworks, NetworkMean
from medimg3d.inference.streaming_inferer import StreamingInferer

WINDOW = {"roi_size": (8, 8, 8), "sw_batch_size": 2, "overlap": 0.5, "mode": "gaussian"}
SEEDS = (0, 1, 2)


@pytest.fixture
def mean(tmp_path):
    for seed in SEEDS[1:]:
        torch.save({"model": tiny_unet(seed=seed).state_dict()}, tmp_path / f"{seed}.pt")
    return NetworkMean(tiny_unet(seed=0), [tmp_path / f"{seed}.pt" for seed in SEEDS[1:]]).eval()


def image():
    return torch.randn((1, 1, 13, 10, 9), generator=torch.Generator().manual_seed(0))


def stock_mean():
    """The mean probabilities by MONAI's own engine."""
    keys = [f"pred{seed}" for seed in SEEDS]
    steps = [Activationsd(keys, softmax=True), MeanEnsembled(keys, output_key="pred")]
    evaluator = EnsembleEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": image()[0]}])),
        networks=[tiny_unet(seed=seed) for seed in SEEDS],
        pred_keys=keys,
        inferer=SlidingWindowInferer(**WINDOW),
        postprocessing=Compose(steps),
        decollate=True,
    )
    evaluator.run()
    return evaluator.state.output[0]["pred"]


def test_the_streamed_mean_is_that_of_monais_ensemble_evaluator(mean):
    ours = StreamingInferer(**WINDOW)(image(), mean)
    torch.testing.assert_close(ours[0], stock_mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"softmax": True}, {"average_probabilities": True}])
def test_the_label_map_is_the_mean_probabilitys_highest_class(mean, options):
    ours = LabelMapInferer(**WINDOW, **options)(
        MetaTensor(
            image(),
            affine=torch.eye(4)[None],
            meta={"original_affine": torch.eye(4)[None], "spatial_shape": torch.tensor([[13, 10, 9]])},
        ),
        mean,
    )
    assert torch.equal(ours[0, 0].as_tensor().long(), stock_mean().argmax(0))


def test_raw_outputs_are_averaged_where_softmax_is_off(mean):
    mean.softmax = False
    ours = StreamingInferer(**WINDOW)(image(), mean)
    stitched = [SlidingWindowInferer(**WINDOW)(image(), tiny_unet(seed=seed)) for seed in SEEDS]
    torch.testing.assert_close(ours, torch.stack(stitched).mean(0), rtol=1e-5, atol=1e-5)


def test_alone_it_gives_the_mean_of_a_batch(mean):
    with torch.no_grad():
        expected = torch.stack([tiny_unet(seed=seed)(image()[..., :8, :8, :8]).softmax(1) for seed in SEEDS])
        torch.testing.assert_close(mean(image()[..., :8, :8, :8]), expected.mean(0))


def test_a_state_dict_of_one_network_goes_into_the_first(mean):
    before = {name: value.clone() for name, value in mean.members[1].state_dict().items()}
    mean.load_state_dict(tiny_unet(seed=7).state_dict())
    for (name, first), expected in zip(
        mean.members[0].state_dict().items(), tiny_unet(seed=7).state_dict().values(), strict=True
    ):
        assert torch.equal(first, expected)
        assert torch.equal(mean.members[1].state_dict()[name], before[name])


def test_its_own_state_dict_goes_into_all(mean):
    mean.load_state_dict({name: value * 0 for name, value in mean.state_dict().items()})
    assert all(not value.any() for value in mean.state_dict().values())


def test_a_config_that_names_it_gives_it(mean, tmp_path):
    config = ConfigParser(
        {
            "network_def": {
                "_target_": "UNet",
                "spatial_dims": 3,
                "in_channels": 1,
                "out_channels": 3,
                "channels": [4, 8],
                "strides": [2],
            },
            "network_mean": {
                "_target_": "medimg3d.inference.network_mean.NetworkMean",
                "network": "@network_def",
                "checkpoints": [str(tmp_path / "1.pt"), str(tmp_path / "2.pt")],
            },
        }
    )
    built = config.get_parsed_content("network_mean")
    assert built.further_sha256 == mean.further_sha256
    assert len(set(built.further_sha256)) == 2
    for one, other in zip(built.members[1:].parameters(), mean.members[1:].parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not fit the network"):
        NetworkMean(tiny_unet(), [tmp_path / "other.pt"])


@pytest.mark.parametrize("checkpoints", [[], "model.pt"])
def test_checkpoints_that_are_no_list_of_files_are_refused(checkpoints):
    with pytest.raises(ValueError, match="checkpoints must list at least one file"):
        NetworkMean(tiny_unet(), checkpoints)


def test_thresholds_of_softmax_probabilities_are_refused(mean):
    with pytest.raises(ValueError, match="thresholds need raw outputs"):
        LabelMapInferer(**WINDOW, thresholds=0.5)(MetaTensor(image()), mean)


def test_every_network_counts_in_the_memory(mean):
    averaging = StreamingInferer(**WINDOW, flips=(0,)).averaging_of(mean)
    assert (averaging.networks, averaging.passes) == (3, 6)


def test_an_average_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one network"):
        AveragedNetworks(())
