"""Compare mIoU, mAcc and aAcc with torchmetrics and with the definition written out in float64."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from hamgan.segmentation.metrics import ConfusionMatrix, Scores

IGNORED = 255


def random_maps(classes: int, present: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and labels [6, 40, 52] of the first ``present`` classes, a fifth of the labels ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(present, (6, 40, 52), generator=generator)
    wrong = torch.randint(present, labels.shape, generator=generator)
    predictions = torch.where(torch.rand(labels.shape, generator=generator) < 0.6, labels, wrong)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORED
    labels[0] = IGNORED
    return predictions, labels


def scores_of(predictions: torch.Tensor, labels: torch.Tensor, classes: int) -> Scores:
    matrix = ConfusionMatrix(classes)
    matrix.add(predictions, labels)
    return matrix.scores()


def definition(predictions: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    """Write MMSegmentation's definition out: areas per class over everything, means over classes that have one."""
    valid = labels != IGNORED
    predictions, labels = predictions[valid], labels[valid]
    ious, accuracies, hits = [], [], 0
    for label in range(classes):
        predicted, true = predictions == label, labels == label
        both = int((predicted & true).sum())
        hits += both
        if union := int((predicted | true).sum()):
            ious.append(both / union)
        if true.any():
            accuracies.append(both / int(true.sum()))
    return {"miou": float(np.mean(ious)), "macc": float(np.mean(accuracies)), "aacc": hits / len(labels)}


@pytest.mark.parametrize(("classes", "present"), [(1, 1), (2, 2), (8, 5), (150, 131)])
def test_scores_equal_torchmetrics_and_the_definition(classes: int, present: int) -> None:
    predictions, labels = random_maps(classes, present, seed=classes)
    found = scores_of(predictions, labels, classes)
    assert found.numbers() == pytest.approx(definition(predictions.numpy(), labels.numpy(), classes), abs=1e-12)
    assert found.pixels == int((labels != IGNORED).sum())
    if classes == 1:  # torchmetrics begins at two
        return
    ious = MulticlassJaccardIndex(classes, average="none", ignore_index=IGNORED)(predictions, labels).numpy()
    accuracies = MulticlassAccuracy(classes, average="none", ignore_index=IGNORED)(predictions, labels).numpy()
    np.testing.assert_allclose(found.iou[:present], ious[:present], atol=1e-6)
    np.testing.assert_allclose(found.accuracy[:present], accuracies[:present], atol=1e-6)
    assert np.isnan(found.iou[present:]).all()  # torchmetrics says 0 and its mean leaves them out
    mean = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED)(predictions, labels)
    assert found.miou == pytest.approx(float(mean), abs=1e-6)


def test_predictions_inside_an_ignored_area_count_nowhere() -> None:
    labels = torch.tensor([[0, 0, IGNORED, IGNORED]])
    assert scores_of(torch.tensor([[0, 0, 1, 1]]), labels, 2).counts.tolist() == [[2, 0], [0, 0]]


def test_a_class_that_is_only_predicted_has_an_iou_of_zero_and_no_accuracy() -> None:
    found = scores_of(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), 2)
    assert found.iou.tolist() == [0.5, 0.0]
    assert found.accuracy[0] == 0.5
    assert np.isnan(found.accuracy[1])
    rows = found.by_class(["sea", "land"])
    assert rows[1] == {"class": "land", "iou": 0.0, "accuracy": None, "share": 0.0}


def test_images_that_are_ignored_whole_leave_no_score() -> None:
    found = scores_of(torch.zeros(1, 4, dtype=torch.long), torch.full((1, 4), IGNORED), 3)
    assert all(np.isnan(value) for value in found.numbers().values())


def test_any_division_into_batches_gives_the_same_counts() -> None:
    predictions, labels = random_maps(8, 8, seed=3)
    whole, parts = ConfusionMatrix(8), ConfusionMatrix(8)
    whole.add(predictions, labels)
    for image in range(len(labels)):
        parts.add(predictions[image].to(torch.uint8), labels[image].to(torch.uint8))
    assert torch.equal(whole.counts, parts.counts)
