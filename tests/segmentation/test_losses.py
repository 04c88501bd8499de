"""Check both averages over ignored pixels, against torch and over two processes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.segmenters import miniature_config
from support.two_processes import in_two_processes, valid_loss_gradients
from torch import Tensor

from hamgan.segmentation.data.source import IGNORED
from hamgan.segmentation.losses import cross_entropy, pixel_accuracy, segmentation_loss
from hamgan.segmentation.segmenter import Logits


def sample(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 7, 8, 8, generator=generator)
    labels = torch.randint(0, 7, (2, 8, 8), generator=generator, dtype=torch.uint8)
    labels[0, :, :5] = IGNORED
    return logits, labels


def test_valid_is_torchs_mean_and_all_divides_by_every_pixel() -> None:
    logits, labels = sample()
    expected = F.cross_entropy(logits, labels.long(), ignore_index=IGNORED)
    torch.testing.assert_close(cross_entropy(logits, labels, "valid"), expected)
    share = (labels != IGNORED).float().mean()
    torch.testing.assert_close(cross_entropy(logits, labels, "all"), expected * share)


def test_weights_of_classes_are_torchs() -> None:
    logits, labels = sample()
    weights = [0.25, 1.0, 3.0, 0.0, 1.5, 2.0, 0.5]
    expected = F.cross_entropy(logits, labels.long(), torch.tensor(weights), ignore_index=IGNORED)
    torch.testing.assert_close(cross_entropy(logits, labels, "valid", weights), expected)
    losses = F.cross_entropy(logits, labels.long(), torch.tensor(weights), ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels, "all", weights), losses.mean())


@pytest.mark.parametrize("average", ["all", "valid"])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(average: str) -> None:
    logits, labels = sample()
    logits.requires_grad_()
    loss = cross_entropy(logits, torch.full_like(labels, IGNORED), average)  # type: ignore[arg-type]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()
    assert float(pixel_accuracy(logits, torch.full_like(labels, IGNORED))) == 0.0


def test_accuracy_is_over_labelled_pixels() -> None:
    labels = torch.tensor([[[0, 1], [IGNORED, 1]]], dtype=torch.uint8)
    logits = F.one_hot(torch.tensor([[[0, 1], [0, 0]]]), 2).permute(0, 3, 1, 2).float()
    assert float(pixel_accuracy(logits, labels)) == pytest.approx(2 / 3)


def test_the_auxiliary_head_has_its_weight_and_logits_take_the_labels_size() -> None:
    config = miniature_config()
    config.auxiliary.weight = 0.4
    logits, labels = sample()
    small = F.avg_pool2d(logits, 2)
    losses = segmentation_loss(Logits(small, logits), labels, config)
    assert losses.auxiliary is not None
    torch.testing.assert_close(losses.total, losses.main + 0.4 * losses.auxiliary)
    full = F.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(losses.main, cross_entropy(full, labels))
    config.train.class_weights = weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    weighted = segmentation_loss(Logits(small, logits), labels, config)
    assert weighted.auxiliary is not None
    torch.testing.assert_close(weighted.main, cross_entropy(full, labels, "all", weights))
    torch.testing.assert_close(weighted.auxiliary, cross_entropy(logits, labels, "all", weights))
    half = segmentation_loss(Logits(small.bfloat16(), None), labels, config)
    assert half.total.dtype == torch.float32


def test_two_processes_with_unequal_numbers_of_labels_have_the_gradient_of_one(tmp_path: Path) -> None:
    logits, labels = sample()
    logits.requires_grad_()
    cross_entropy(logits, labels, "valid").backward()
    assert logits.grad is not None
    parts = in_two_processes(valid_loss_gradients)(tmp_path)
    # Each process sees one of the two images; gradients are averaged over the processes.
    torch.testing.assert_close(torch.cat(parts) / 2, logits.grad)
