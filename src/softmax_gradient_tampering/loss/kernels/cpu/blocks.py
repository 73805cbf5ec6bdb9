"""The contract of `reference` on a CPU, in plain torch operations of every dtype.

Logits are taken in blocks that stay in the cache, so that beside the gradient nothing of
their size is made: touching fresh memory is what a large loss spends most of its time on.
Of the logits of one block every call counts, and the fewest are made.
"""

import math

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.cpu import plain
from softmax_gradient_tampering.loss.kernels.options import (
    DEFAULTS,
    Options,
    along_classes,
    compute_dtype,
    is_index,
)

aten = torch.ops.aten

# Elements of a block: larger blocks leave the cache, smaller ones pay more calls.
BLOCK_SIZE = 2**19
# Labels that a float32 counts exactly.
COUNTABLE = 2**24
# Classes below which rows are slow in torch: they are taken as the positions of one image.
FEW_CLASSES = 16
# Classes from which on the log_softmax of half types takes longer than the steps it is made of.
MANY_CLASSES = 256
LOG2_E = math.log2(math.e)
_REDUCTION = {"none": 0, "mean": 1, "sum": 2}


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    if z.dim() > 3:
        loss, stats = forward(*_images(z, target), alpha, options)
        return loss.reshape(z.shape[:1] + z.shape[2:]) if loss.dim() else loss, stats
    dtype, reduction = compute_dtype(z.dtype), options.reduction
    options = _in_dtype(options, dtype)
    if z.numel() <= BLOCK_SIZE and _is_nll(target, options):
        blocks = _Blocks(z)
        (z_block,), (target_block,) = blocks.split(z), blocks.split(target)
        loss, divisor = _nll(torch.log_softmax(z_block, 1, dtype), target_block, options)
        loss = loss.reshape(target.shape) if loss.dim() else loss
    else:
        losses, divisors = _block_losses(z, target, options)
        if reduction == "none":
            loss, divisor = losses, divisors[0]
        else:
            loss, divisor = losses.sum(), torch.stack(divisors).sum()
        if reduction == "mean":
            loss = loss / divisor
    return loss.to(options.loss_dtype), divisor if reduction == "mean" else divisor.new_ones(())


def _block_losses(z: Tensor, target: Tensor, options: Options) -> tuple[Tensor, list[Tensor]]:
    """All losses, or the sums of those of every block; and the weight of what counts in each."""
    dtype = compute_dtype(z.dtype)
    is_each = options.reduction == "none"
    losses = z.new_empty(z.shape[:1] + z.shape[2:] if is_each else (), dtype=dtype)
    if options.reduction == "mean":
        options = options._replace(reduction="sum")
    blocks = _Blocks(z)
    results = blocks.split(losses) if is_each else []
    sums, divisors = [], []
    for i, (z_block, target_block) in enumerate(
        zip(blocks.split(z), blocks.split(target), strict=True)
    ):
        log_p, is_half = blocks.buffer(z_block), z_block.dtype != dtype
        if is_half and z.shape[1] >= MANY_CLASSES and _is_nll(target, options):
            _log_p_of_labels(z_block, target_block, out=log_p)
        else:
            if is_half:
                z_block = blocks.buffer(z_block, 1).copy_(z_block)
            torch.log_softmax(z_block, 1, out=log_p)
        loss, divisor = _block_loss(log_p, target_block, options)
        divisors.append(divisor)
        if is_each:
            results[i].copy_(loss)
        else:
            sums.append(loss)
    return losses if is_each else torch.stack(sums), divisors


def _block_loss(log_p: Tensor, target: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """See `_block_losses`; `log_p` is written to."""
    smoothing, is_sum = options.label_smoothing, options.reduction == "sum"
    if not is_index(target):
        log_p.mul_(reference.target_distribution(target, log_p, options))
        num_lanes = log_p.new_full((), log_p.shape[0] * log_p.shape[2:].numel())
        return -(log_p.sum() if is_sum else log_p.sum(1)), num_lanes
    loss, divisor = _nll(log_p, target, options)
    if smoothing > 0:
        weight = options.weight
        weighted = log_p if weight is None else log_p.mul_(along_classes(weight, log_p))
        even = -weighted.sum(1).masked_fill_(target == options.ignore_index, 0)
        loss = loss * (1 - smoothing) + (even.sum() if is_sum else even) * (
            smoothing / log_p.shape[1]
        )
    return loss, divisor


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    if z.dim() > 3:
        incoming = grad_loss.flatten(1) if grad_loss.dim() else grad_loss
        return backward(incoming, *_images(z, target), alpha, stats, options).reshape(z.shape)
    dtype = compute_dtype(z.dtype)
    options, grad_loss = _in_dtype(options, dtype), grad_loss.to(dtype)
    if z.numel() == 0:
        return torch.empty_like(z, memory_format=torch.contiguous_format)
    blocks = _Blocks(z)
    has_ignored = _has_ignored(target, stats, options)
    scale = grad_loss if options.reduction == "none" else grad_loss / stats
    grad = torch.empty_like(z, memory_format=torch.contiguous_format)
    z_blocks = blocks.split(z)
    scales = blocks.split(scale) if scale.dim() else [scale] * len(z_blocks)
    for result, z_block, target_block, scale in zip(
        blocks.split(grad), z_blocks, blocks.split(target), scales, strict=True
    ):
        if has_ignored:  # its index may lie outside of the classes
            # Not a product with the mask: where every row is ignored that is 0 * inf.
            scale = torch.where(target_block != options.ignore_index, scale, 0)
            target_block = target_block.clamp(0, z_block.shape[1] - 1)
        is_in_place = result.dtype == dtype and result.stride(-1) == 1
        out = result if is_in_place else blocks.buffer(result)
        _make_gradient(_exponentials(z_block, alpha, out), target_block, scale, options)
        if not is_in_place:
            result.copy_(out)
    return grad


def _has_ignored(target: Tensor, divisor: Tensor, options: Options) -> bool:
    """Whether some label is the ignored index; the mean of unweighted losses has counted it."""
    if not is_index(target):
        return False
    is_counted = options.reduction == "mean" and options.weight is None
    if is_counted and target.numel() <= COUNTABLE:
        return float(divisor) != target.numel()
    return bool((target == options.ignore_index).any())


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """See `reference.stats_shape`."""
    return ()


class PlainLogits(plain.PlainLogits):
    """`forward` and `backward` of what it takes, with no options to look at before."""

    __slots__ = ("_stats",)

    @property
    def stats(self) -> Tensor:
        return self._stats

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        loss, self._stats = forward(z, target, 1.0, DEFAULTS)
        return loss

    def backward(self, grad_loss: Tensor, z: Tensor, target: Tensor, alpha: float) -> Tensor:
        return backward(grad_loss, z, target, alpha, self._stats, DEFAULTS)


def _images(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C, d1, ...) and their target, with one dimension of P = d1 ... positions."""
    return z.flatten(2), target.flatten(1 if is_index(target) else 2)


class _Blocks:
    """How the logits z are cut: into rows, or into images and their positions.

    Rows of few classes are taken as the positions of one image.
    """

    def __init__(self, z: Tensor) -> None:
        self.is_turned = z.dim() == 2 and z.shape[1] < FEW_CLASSES
        self.has_positions = self.is_turned or z.dim() == 3
        self.memory: dict[int, Tensor] = {}
        self.size, self.dtype = z.numel(), compute_dtype(z.dtype)
        self.is_one = self.size <= BLOCK_SIZE
        if self.is_one:
            return
        z = self._turn(z)
        num_lanes = max(1, BLOCK_SIZE // z.shape[1])
        self.positions = min(num_lanes, z.shape[2:].numel())
        self.images = min(num_lanes // self.positions, z.shape[0])
        self.size = self.images * z.shape[1] * self.positions

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The blocks of a tensor of the shape of z, of its labels, or of z's with one class."""
        tensor = self._turn(tensor)
        if self.is_one:
            return [tensor]
        blocks = list(tensor.split(self.images))
        if not self.has_positions:
            return blocks
        return [part for block in blocks for part in block.split(self.positions, -1)]

    def buffer(self, block: Tensor, number: int = 0) -> Tensor:
        """Room for a block of z in the dtype of the computation; another of every number."""
        if number not in self.memory:
            self.memory[number] = torch.empty(self.size, dtype=self.dtype, device="cpu")
        return self.memory[number][: block.numel()].view(block.shape)

    def _turn(self, tensor: Tensor) -> Tensor:
        if not self.is_turned:
            return tensor
        return (tensor.t() if tensor.dim() == 2 else tensor).unsqueeze(0)


def _make_gradient(p: Tensor, target: Tensor, scale: Tensor, options: Options) -> None:
    """scale * (sum(q) p' - q) in the place of p, with p' = p / sum(p).

    Args:
        p: the exponentials.
        target: probabilities, or class indices, none of them outside of the classes.
        scale: 0-d, or of every row, 0 in ignored ones.
        options: the loss's options.
    """
    smoothing, weight = options.label_smoothing, options.weight
    scale = scale.unsqueeze(1) if scale.dim() else scale
    total = p.sum(1, keepdim=True)
    if not is_index(target):
        q = reference.target_distribution(target, p, options)
        factor = scale * q.sum(1, keepdim=True)
        p.mul_(factor / total).addcmul_(q, scale, value=-1)
        return
    label = target.unsqueeze(1)
    at_label = scale
    if weight is not None:  # index_select takes a sixth of the time of an index
        at_label = scale * weight.index_select(0, target.flatten()).view(label.shape)
    factor = at_label = at_label * (1 - smoothing) if smoothing > 0 else at_label
    if smoothing > 0:
        even = scale * (smoothing / p.shape[1])
        factor = at_label + even * (p.shape[1] if weight is None else weight.sum())
    p.mul_(factor / total)
    if smoothing > 0:
        p.sub_(even if weight is None else even * along_classes(weight, p))
    p.scatter_add_(1, label, (-at_label).expand(label.shape))


def _log_p_of_labels(z: Tensor, target: Tensor, out: Tensor) -> None:
    """Write log_softmax(z, 1) of every label that is a class into `out`, and anything elsewhere."""
    label = target.clamp(0, z.shape[1] - 1).unsqueeze(1)
    difference = _minus_largest(z, out)
    of_label = difference.gather(1, label)
    total = difference.mul_(LOG2_E).exp2_().sum(1, keepdim=True)
    out.scatter_(1, label, of_label.sub_(total.log_()))


def _exponentials(z: Tensor, alpha: Alpha, out: Tensor) -> Tensor:
    """exp(alpha (z - m)), with m the largest of the logits of a row or position.

    Torch's exp2 takes a third of its exp, and that leaves its softmax behind.
    """
    if isinstance(alpha, Tensor) or alpha == 0:
        z, alpha = out.copy_(reference.multiply(z.to(out.dtype), alpha)), 1.0
    return _minus_largest(z, out).mul_(alpha * LOG2_E).exp2_()


def _minus_largest(z: Tensor, out: Tensor) -> Tensor:
    """z - m in `out`; numbers that do not lie side by side are copied first."""
    if z.dtype != out.dtype or z.stride(-1) != 1:
        z = out.copy_(z)
    return torch.sub(z, z.amax(1, keepdim=True), out=out)


def _is_nll(target: Tensor, options: Options) -> bool:
    """Whether torch's nll_loss computes the loss."""
    return is_index(target) and options.label_smoothing == 0


def _nll(log_p: Tensor, target: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The loss without smoothing, and the weight of what counts."""
    function = aten.nll_loss_forward.default
    if log_p.dim() == 3:  # torch takes images of two dimensions
        function = aten.nll_loss2d_forward.default
        log_p, target = log_p.unsqueeze(2), target.unsqueeze(1)
    reduction = _REDUCTION[options.reduction]
    loss, divisor = function(log_p, target, options.weight, reduction, options.ignore_index)
    return loss.squeeze(1) if loss.dim() == 3 else loss, divisor


def _in_dtype(options: Options, dtype: torch.dtype) -> Options:
    """The options with the weights in the dtype of the computation."""
    if options.weight is None or options.weight.dtype == dtype:
        return options
    return options._replace(weight=options.weight.to(dtype))
