"""Normalisation: the same numbers in every memory format."""

import pytest
import torch

from softmax_gradient_tampering.data.model_input import ModelInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("arrives_last", [False, True])
def test_pixels_are_normalised_bitwise_alike(
    channels: int, channels_last: bool, arrives_last: bool
) -> None:
    images = torch.arange(256).repeat(15)[: 4 * channels * 13 * 17].to(torch.uint8)
    images = images.repeat(5)[: 4 * channels * 13 * 17].view(4, channels, 13, 17)
    if arrives_last:
        images = images.to(memory_format=torch.channels_last)
    before = images.clone()
    mean, std = MEAN[:channels], STD[:channels]
    model_input = ModelInput(mean, std, torch.device("cpu"), channels_last)
    made = model_input(images, torch.zeros(4, dtype=torch.int64), 0, torch.arange(4)).images
    shape = (1, -1, 1, 1)
    scaled_mean, scaled_std = (torch.tensor(v).mul(255).view(shape) for v in (mean, std))
    assert torch.equal(made, (images.float() - scaled_mean) / scaled_std)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert made.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)
