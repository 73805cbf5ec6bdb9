"""The target distribution q (N, C), by blocks of classes.

    q_c = weight_c * ((1 - e) * [c is the label] + e / C)        class indices
    q_c = weight_c * ((1 - e) * target_c + e / C)                class probabilities

Of class indices, q is a label's part, of one class a row, and an even rest, the same in every
row; of probabilities it is all rest. Neither is made for more than a block.
"""

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.kernels.options import Options, is_index


class TargetBlocks:
    """q of one target; it sums up, as blocks pass in their order.

    Args:
        target: (N,) class indices as int64, or (N, C) probabilities.
        options: the loss's options; their `weight` is that of the classes.
        num_classes: C.
        dtype: of the arithmetic.
    """

    def __init__(
        self, target: Tensor, options: Options, num_classes: int, dtype: torch.dtype
    ) -> None:
        self.target, self.num_classes, self.dtype = target, num_classes, dtype
        self.smoothing = options.label_smoothing
        self.class_weight = None if options.weight is None else options.weight.to(dtype)
        self.has_labels = is_index(target)
        # Sum of the rest of q over the classes that have passed.
        self.rest_mass = torch.zeros(target.shape[0], dtype=dtype, device=target.device)
        if self.has_labels:
            self.label_mass = self._label_mass(options.ignore_index)
            # A label that no block holds leaves nan, on devices that check no labels.
            self.label_logit = torch.full_like(self.rest_mass, torch.nan)

    def mass(self) -> Tensor:
        """sum_c(q), (N,), after the last block."""
        return self.rest_mass + self.label_mass if self.has_labels else self.rest_mass

    def take_labels(self, z: Tensor, classes: slice) -> None:
        """Keep the labels' logits that are in this block (N, block)."""
        if self.has_labels:
            is_here, place = self._places(classes)
            logit = z.gather(1, place).squeeze(1)
            self.label_logit = torch.where(is_here, logit, self.label_logit)

    def add_rest(self, sum_so_far: Tensor, shift: Tensor, z: Tensor, classes: slice) -> Tensor:
        """sum_c rest_c (z_c - m), this block included.

        Args:
            sum_so_far: (N,) without this block, relative to the m before it.
            shift: (N,) m before this block less m now.
            z: (N, block) logits less m.
            classes: the block.
        """
        rest = self._rest(classes)
        if rest is None:
            return sum_so_far
        sum_so_far = sum_so_far + self.rest_mass * shift
        self.rest_mass = self.rest_mass + rest.sum(-1)
        return sum_so_far + (z @ rest if self.has_labels else (z * rest).sum(1))

    def label_part(self, largest: Tensor) -> Tensor | float:
        """The labels' part of sum_c q_c (z_c - m), after the last block."""
        return self.label_mass * (self.label_logit - largest) if self.has_labels else 0.0

    def subtract_from_(self, p: Tensor, mass: Tensor, classes: slice) -> None:
        """Probabilities p (N, block) become sum_c(q) p - q, with mass = sum_c(q)."""
        if self.class_weight is not None or not self.has_labels:  # else it is 1
            p.mul_(mass.unsqueeze(1))
        rest = self._rest(classes)
        if rest is not None:
            p.sub_(rest)
        if self.has_labels:
            is_here, place = self._places(classes)
            label_mass = torch.where(is_here, self.label_mass, 0).unsqueeze(1)
            # A row writes one place, its own, so this is deterministic.
            p.scatter_(1, place, p.gather(1, place) - label_mass)

    def _label_mass(self, ignore_index: int) -> Tensor:
        mass = torch.full_like(self.rest_mass, 1 - self.smoothing)
        if self.class_weight is None:
            return mass
        label = self.target.clamp(0, self.num_classes - 1)
        return mass * torch.where(self.target == ignore_index, 0, self.class_weight[label])

    def _rest(self, classes: slice) -> Tensor | None:
        """q without the label's part: (block,) of class indices, (N, block) of probabilities."""
        even = self.smoothing / self.num_classes
        if self.has_labels:
            if self.smoothing == 0:
                return None
            if self.class_weight is not None:
                return self.class_weight[classes] * even
            return self.rest_mass.new_full((classes.stop - classes.start,), even)
        rest = self.target[:, classes].to(self.dtype)
        if self.smoothing > 0:
            rest = rest * (1 - self.smoothing) + even
        return rest if self.class_weight is None else rest * self.class_weight[classes]

    def _places(self, classes: slice) -> tuple[Tensor, Tensor]:
        """Whether a row's label is in the block, (N,), and where in it, (N, 1); 0 if not."""
        is_here = (self.target >= classes.start) & (self.target < classes.stop)
        return is_here, torch.where(is_here, self.target - classes.start, 0).unsqueeze(1)
