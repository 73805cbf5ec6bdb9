"""Ten float64 steps of the published program, followed by ours; its optimizer groups, its logits.

The golden files hold the published program's numbers at the one loss scale where its gradient
is right.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.models import create_model
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.setup.loss import create_loss
from softmax_gradient_tampering.training.step.optimizer import create_optimizer
from softmax_gradient_tampering.training.step.precision import Precision
from softmax_gradient_tampering.training.step.trainer import Trainer
from tests.training.deterministic_fill import fill_state, images, labels
from tests.training.step.epoch import train_epoch

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")
# The published step and ours differ in the order of float64 operations alone; they were measured
# to agree to 2.3e-14 over these ten steps, on another machine.
RTOL = 1e-11


class SameBatch:
    """One batch, ten times an epoch."""

    def __init__(self) -> None:
        self.batch = Batch(
            images("traj_images", (16, 3, 64, 64)), *[labels("traj_labels", 16, 10)] * 2
        )
        self.batch_sizes = [16] * 10
        self.num_samples = 160

    def __len__(self) -> int:
        return 10

    def epoch(self, epoch: int, start: int = 0):
        return iter([self.batch] * (10 - start))


@pytest.mark.parametrize("alpha", ["0.25", "1.0"])
def test_ten_steps_are_those_of_the_published_program(alpha: str) -> None:
    golden = np.load(GOLDEN / f"trajectory_alpha_{alpha}.npz")
    config = parse_arguments(
        ["--modify-softmax", alpha, "--lr", "0.001", "--weight-decay", "5e-4", "--momentum", "0.9"]
    )
    model = create_model("resnet18", num_classes=10).double()
    fill_state(model)
    optimizer = create_optimizer(config, model)
    trainer = Trainer(model, optimizer, create_loss(config), Precision(CPU, None))
    loader = SameBatch()
    names = golden["param_names"].tolist()
    losses, norms = [], [[p.norm().item() for p in model.parameters()]]
    assert [name for name, _ in model.named_parameters()] == names
    for outcome in train_epoch(trainer, loader):
        losses.append(outcome.loss.item())
        norms.append([p.norm().item() for p in model.parameters()])
    np.testing.assert_allclose(losses, golden["loss"], rtol=RTOL)
    np.testing.assert_allclose(norms, golden["param_norm"], rtol=RTOL)
    model.eval()
    logits = model(loader.batch.images).detach().numpy()
    np.testing.assert_allclose(logits, golden["final_eval_logits"], rtol=RTOL, atol=1e-12)
    weight = model.get_classifier().weight[:, :64].detach().numpy()  # type: ignore[operator]
    np.testing.assert_allclose(weight, golden["final_fc_weight"], rtol=RTOL, atol=1e-14)


# Parameters without and with weight decay, as the published optimizer had them.
@pytest.mark.parametrize(
    ("name", "groups"),
    [("resnet18", [41, 21]), ("resnet18_wobn", [1, 21]), ("resnet50", [107, 54])],
)
def test_the_optimizers_groups_are_the_published_ones(name: str, groups: list[int]) -> None:
    config = parse_arguments(["--weight-decay", "5e-4"])
    optimizer = create_optimizer(config, create_model(name))
    assert isinstance(optimizer, torch.optim.SGD)
    assert [len(group["params"]) for group in optimizer.param_groups] == groups
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 5e-4]
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, True, 0)


def test_a_published_checkpoint_gives_the_published_logits(tmp_path: Path) -> None:
    path = tmp_path / "published.pth.tar"
    packed = GOLDEN / "published-format-resnet18-c10.pth.tar.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    model = create_model("resnet18", num_classes=10).eval()
    model.load_state_dict(load_checkpoint(path)["state_dict"])
    logits = model(images("ckpt_eval", (2, 3, 64, 64)).float())
    expected = json.loads((GOLDEN / "published-eval-logits.json").read_text())
    # float32 through 18 layers, on another machine.
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-4, atol=1e-4)
