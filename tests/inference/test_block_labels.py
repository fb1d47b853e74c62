import pytest
import torch

from medimg3d.inference.block_labels import label_map
from medimg3d.inference.sliding_window import SlidingWindow
from medimg3d.inference.streaming import Block, stream_windows


def block_at(start, values):
    return Block(start, tuple(a + b for a, b in zip(start, values.shape[1:], strict=True)), values)


def test_labels_of_blocks_are_the_argmax_of_the_whole():
    values = torch.randn((4, 7, 5, 3), generator=torch.Generator().manual_seed(0))
    blocks = [block_at((0, 0, 0), values[:, :3]), block_at((3, 0, 0), values[:, 3:])]
    labels = label_map(blocks, (7, 5, 3))
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), values.argmax(0))


def test_a_tiled_stream_gives_the_argmax_of_the_image():
    image = torch.randn((3, 11, 13), generator=torch.Generator().manual_seed(0))
    blocks = stream_windows(image, lambda x: x, SlidingWindow((4, 5), overlap=0.5), axis=1, tile=(4,))
    assert torch.equal(label_map(blocks, (11, 13)).long(), image.argmax(0))


def test_of_equal_values_the_first_class_wins():
    assert label_map([block_at((0, 0), torch.ones(3, 2, 2))], (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_class_255_fits_and_class_256_is_refused():
    values = torch.zeros(256, 1, 1)
    values[255] = 1
    assert label_map([block_at((0, 0), values)], (1, 1)).item() == 255
    with pytest.raises(ValueError, match="has 257 classes; a label map by highest value needs 2 to 256"):
        label_map([block_at((0, 0), torch.zeros(257, 1, 1))], (1, 1))


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"has 1 classes.*Threshold a single class"):
        label_map([block_at((0, 0), torch.zeros(1, 2, 2))], (2, 2))


def test_voxels_left_out_are_refused():
    with pytest.raises(ValueError, match="hold 4 voxels; expected the 6 of the image, each once"):
        label_map([block_at((0, 0), torch.zeros(2, 2, 2))], (3, 2))


def test_a_block_over_the_border_is_refused():
    with pytest.raises(ValueError, match=r"at \(2, 0\) does not fit its place in an image of \(3, 2\)"):
        label_map([block_at((2, 0), torch.zeros(2, 2, 2))], (3, 2))
