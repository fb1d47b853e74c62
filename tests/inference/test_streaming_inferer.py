import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SliceInferer, SlidingWindowInferer

from medimg3d.inference.mirroring import MirroringInferer
from medimg3d.inference.streaming_inferer import StreamingInferer

ARGUMENTS = {"roi_size": [6, 5, 4], "sw_batch_size": 3, "overlap": 0.5, "mode": "gaussian"}


def network(windows, factor=1.0):
    """Two classes that differ with the place in the window."""
    field = torch.arange(windows[0, 0].numel()).reshape(windows.shape[2:]) / 100
    return torch.cat([windows * field, windows.roll(1, 2) * factor], 1)


def images(cases=1):
    return torch.randn((cases, 1, 13, 4, 9), generator=torch.Generator().manual_seed(0))


def test_a_config_that_names_it_gives_what_monais_inferer_gives():
    config = ConfigParser(
        {"inferer": {"_target_": f"{StreamingInferer.__module__}.StreamingInferer", **ARGUMENTS}}
    )
    ours = config.get_parsed_content("inferer")(images(), network)
    torch.testing.assert_close(
        ours, SlidingWindowInferer(**ARGUMENTS)(images(), network), rtol=1e-5, atol=1e-5
    )


def test_two_cases_and_arguments_of_the_network_go_through():
    ours = StreamingInferer(**ARGUMENTS)(images(2), network, factor=3.0)
    theirs = SlidingWindowInferer(**ARGUMENTS)(images(2), network, factor=3.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_it_replaces_the_mirroring_inferer_and_stands_inside_it():
    theirs = MirroringInferer(SlidingWindowInferer(**ARGUMENTS), axes=(0, 2))(images(), network)
    alone = StreamingInferer(**ARGUMENTS, flips=(0, 2), softmax=True)(images(), network)
    inside = MirroringInferer(StreamingInferer(**ARGUMENTS), axes=(0, 2))(images(), network)
    torch.testing.assert_close(alone, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inside, theirs, rtol=1e-5, atol=1e-5)


def test_meta_data_of_the_image_stay():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    ours = StreamingInferer(**ARGUMENTS)(MetaTensor(images(), affine=affine, meta={"case": "a"}), network)
    assert isinstance(ours, MetaTensor)
    assert torch.equal(ours.affine, affine.to(ours.affine.dtype))
    assert ours.meta["case"] == "a"


def test_air_is_skipped_where_a_level_is_given():
    inferer = StreamingInferer(**ARGUMENTS, air_level=0.0, air_fill=[1.0, 0.0])
    assert torch.equal(inferer(images() * 0, network)[0, 0], torch.ones(13, 4, 9))


def test_blocks_cover_the_case_without_the_full_tensor():
    blocks = list(StreamingInferer(**ARGUMENTS, axis=0).blocks(images()[0], network))
    assert [block.start[0] for block in blocks] == [0, *[block.stop[0] for block in blocks[:-1]]]
    assert blocks[-1].stop == (13, 4, 9)


def test_a_condition_is_refused():
    with pytest.raises(ValueError, match="condition is not cut into windows here"):
        StreamingInferer(**ARGUMENTS)(images(), network, condition=images())


def plane_network(windows, factor=1.0):
    """As ``network``, for slices."""
    field = torch.arange(windows[0, 0].numel()).reshape(windows.shape[2:]) / 10
    return torch.cat([windows * field, windows.roll(1, 2) * factor], 1)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_2d_network_goes_through_a_volume_as_monais_slice_inferer(mode, slice_axis, axis):
    arguments = {"roi_size": (5, 4), "sw_batch_size": 3, "overlap": 0.4, "mode": mode}
    theirs = SliceInferer(spatial_dim=slice_axis, **arguments)(images(), plane_network)
    ours = StreamingInferer(**arguments, slice_axis=slice_axis, axis=axis)(images(), plane_network)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_slices_take_one_overlap_and_sigma_an_axis_of_the_plane_and_the_first_head():
    pairs = {"overlap": (0.5, 0.25), "sigma_scale": (0.2, 0.1), "mode": "gaussian"}
    triples = {"overlap": (0.5, 0.0, 0.25), "sigma_scale": (0.2, 0.125, 0.1), "mode": "gaussian"}
    theirs = SliceInferer(spatial_dim=1, roi_size=(5, 4), **triples)(images(), plane_network)
    ours = StreamingInferer((5, 4), **pairs, slice_axis=1)(images(), lambda w: [plane_network(w), w])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_window_of_three_axes_is_refused_for_slices():
    with pytest.raises(ValueError, match="a window of two axes"):
        StreamingInferer((5, 4, 1), slice_axis=2)
