"""Joint training: one update of F_theta and the segmentation network (foveation-method.md, section 8).

Letters: L images, B locations an image, N = L B patches, D fields of view that are read, C bands, K classes, Y X cells.
"""

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foveate.schema import BundleCard
from model.datasets.classes import IGNORE
from model.foveation import FoveationModule
from model.inputs import Normalise, log_scales, with_scale
from model.mapping import map_exact
from model.mixing import categorical_weights, gumbel_weights, mean_weights, mix, mode_weights
from model.training.config import LEARNING, Joint
from model.training.descent import Descent
from model.training.devices import Place, wrapped
from model.training.losses import at_stride, dice_loss, patch_losses
from model.training.optimise import falling, set_rates, temperature
from model.training.samples import Sample
from raster.geometry import Region

__all__ = ["JointLearner", "Minibatch", "output_stride"]

_BASELINE = 0.9
"""How much of REINFORCE's baseline, a running mean of the loss, an update keeps."""


class Minibatch(NamedTuple):
    """One update's data on the device; patches and thumbnails are not yet normalised.

    `thumbnails` (L, Y, X, C); `at` (N, 3) int64: image, row and column of each location; `patches` (N, D, P, P, C);
    `labels` (N, H, W) int64 at the stride of the network's output; `insets` (N, D, 2) as in `Sample`; `noise`
    (N, bank).
    """

    thumbnails: Tensor
    at: Tensor
    patches: Tensor
    labels: Tensor
    insets: Tensor
    noise: Tensor

    def part(self, patches: slice) -> "Minibatch":
        """The same thumbnails with some of the patches."""
        return Minibatch(self.thumbnails, *(values[patches] for values in self[1:]))


class JointLearner(Descent):
    """The nets, their optimiser, and what an update does to them.

    `nets` has the network, and F_theta as "foveation" if the policy trains one. `stride` is that of the network's
    output in training.
    """

    def __init__(
        self, nets: nn.ModuleDict, card: BundleCard, joint: Joint, weights_K: Tensor, place: Place, stride: int = 1
    ) -> None:
        super().__init__(nets, joint.optimiser, joint.average, place)
        self._joint, self._card, self._place, self._stride = joint, card, place, stride
        self._network = wrapped(nets["network"], place)
        self._learns = joint.policy in LEARNING
        if self._learns:
            # In the authors' loop F_theta's gradients meet at its output: log-probabilities for Gumbel, else not.
            foveation = nets["foveation"]
            assert isinstance(foveation, FoveationModule)
            foveation.log_probabilities = joint.update == "paper" or joint.policy == "gumbel"
            self._logarithmic = foveation.log_probabilities
            self._foveation = wrapped(foveation, place)
        self._weights_K = weights_K.to(place.device)
        self._normalise = Normalise(card, place.device)
        single = joint.policy.startswith("fixed:")
        self._fovs = [card.fovs[int(joint.policy[6:]) - 1]] if single else list(card.fovs)
        self._log_scales = log_scales(self._fovs, card.patch_size, place.device)
        self._baseline: float | None = None

    # --- what the loop needs --------------------------------------------------------------------------------------

    def minibatch(self, sample: Sample) -> Minibatch:
        """The gathered samples of L images, moved to the device; patches image by image."""
        L, B = sample.cells.shape[:2]
        images = torch.arange(L)[:, None, None].expand(L, B, 1)
        labels = at_stride(sample.labels.flatten(0, 1), self._stride).long()
        parts = [torch.cat([images, sample.cells], dim=2), sample.patches, sample.insets, sample.noise]
        at, patches, insets, noise = (part.flatten(0, 1) for part in parts)
        tensors = (sample.thumbnail, at, patches, labels, insets, noise)
        return Minibatch(*(tensor.to(self._place.device, non_blocking=True) for tensor in tensors))

    def update(self, sample: Sample, step: int) -> dict[str, float]:
        """Update number `step` (from 0): the loss, and how F_theta is doing."""
        return self.learn(self.minibatch(sample), step)

    def learn(self, batch: Minibatch, step: int) -> dict[str, float]:
        self.nets.train()
        report = self._parity_update(batch, step) if self._joint.update == "parity" else self._update(batch, step)
        self._average()
        return report

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"baseline": self._baseline}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._baseline = state["baseline"]

    # --- one update -----------------------------------------------------------------------------------------------

    def _update(self, batch: Minibatch, step: int) -> dict[str, float]:
        """Algorithm 1: one step on the mean loss over all N patches (section 8.1)."""
        joint = self._joint
        warm = min(1.0, (step + 1) / (joint.optimiser.warm_up + 1))
        set_rates(self.optimiser, warm * falling(step, joint.steps, joint.optimiser.poly_power))
        tau = self._tau(step, joint.steps)
        self.optimiser.zero_grad()
        output = self._foveation(self._normalise(batch.thumbnails)) if self._learns else None
        leaf = None if output is None else output.detach().requires_grad_()
        loss = self.accumulate(batch, leaf, tau)
        if output is not None and leaf is not None:
            torch.autograd.backward(output, leaf.grad)
        self._step()
        self._remember(loss)
        return self._report(loss, tau, leaf)

    def _parity_update(self, batch: Minibatch, step: int) -> dict[str, float]:
        """The authors' loop over one image batch: an optimiser step for every location batch (section 8.2)."""
        joint = self._joint
        K, B = joint.location_batches, joint.locations
        L = len(batch.thumbnails)
        # Patches lie image by image; a location batch takes the same B locations of every image.
        number = torch.arange(L * K * B).reshape(L, K, B)
        summed, losses, leaf, tau = None, [], None, 1.0
        for k in range(K):
            t, T = authors_iteration(step, k, B, K, joint.steps)
            set_rates(self.optimiser, falling(t, T, joint.optimiser.poly_power))
            tau = self._tau(t, T)
            self.optimiser.zero_grad()
            output = self._foveation(self._normalise(batch.thumbnails)) if self._learns else None
            leaf = None if output is None else output.detach().requires_grad_()
            chosen = number[:, k].flatten()
            losses.append(self.accumulate(Minibatch(batch.thumbnails, *(v[chosen] for v in batch[1:])), leaf, tau))
            if output is not None and leaf is not None and leaf.grad is not None:
                # The scale may change with every step, so what is added up has none.
                scale = self._scaler.get_scale()
                gradient = leaf.grad / scale
                summed = _finite_sum(gradient) if summed is None else summed + _finite_sum(gradient)
                torch.autograd.backward(output, scale * self._authors_gradient(gradient, summed, last=k == K - 1))
            self._step()
        loss = math.fsum(losses) / K
        self._remember(loss)
        return self._report(loss, tau, leaf)

    def _authors_gradient(self, gradient_LDYX: Tensor, summed_DYX: Tensor, *, last: bool) -> Tensor:
        """What theta gets at F_theta's output: in the end also all that was before, added up over the images."""
        if last:
            return gradient_LDYX + summed_DYX
        return torch.zeros_like(gradient_LDYX) if self._joint.zero_step_gradient else gradient_LDYX

    def accumulate(self, batch: Minibatch, leaf_LDYX: Tensor | None, tau: float) -> float:
        """Add the gradients of the mean loss to the network's weights and to `leaf_LDYX`; the loss, over all processes.

        `leaf_LDYX` is F_theta's output, cut off from it. The patches are taken `chunk` at a time: all gradients are
        those of the whole mean, whatever the chunk, but batch norm sees a chunk at once.
        """
        N = len(batch.patches)
        labelled = self._place.summed((batch.labels != IGNORE).sum()).clamp_min(1)
        loss = torch.zeros((), device=self._place.device)
        chunk = self._joint.chunk or N
        for start in range(0, N, chunk):
            part = batch.part(slice(start, start + chunk))
            with self._alone(last=start + chunk >= N):
                # DDP takes the mean over the processes, the loss is the sum.
                share, surrogate = self._chunk_loss(part, leaf_LDYX, tau, labelled / self._place.world, N)
                torch.autograd.backward(self._scaler.scale(share + surrogate))
            loss += share.detach()
        return float(self._place.summed(loss)) / self._place.world

    def _chunk_loss(
        self, part: Minibatch, leaf_LDYX: Tensor | None, tau: float, labelled: Tensor, N: int
    ) -> tuple[Tensor, Tensor]:
        """A chunk's share of the mean loss, and what carries REINFORCE's gradient beside it (else 0)."""
        weights_ND, log_p_N = self._weigh(part, leaf_LDYX, tau)
        normalised = self._normalise(part.patches.flatten(0, 1))
        patches = normalised.view(*part.patches.shape[:2], *normalised.shape[1:])
        with self._place.autocast():
            logits = self._network(self._input(patches, weights_ND))
        logits = self._mapped(logits.float(), part, weights_ND)
        sums_N, counts_N = patch_losses(logits.log_softmax(dim=1), part.labels, self._weights_K)
        share = sums_N.sum() / labelled
        if self._joint.loss.dice:
            share = share + self._joint.loss.dice * dice_loss(logits, part.labels) * len(part.patches) / N
        surrogate = torch.zeros_like(share)
        if log_p_N is not None:
            baseline = 0.0 if self._baseline is None else self._baseline
            surrogate = ((sums_N.detach() - baseline * counts_N) * log_p_N).sum() / labelled
        return share, surrogate

    def _weigh(self, part: Minibatch, leaf_LDYX: Tensor | None, tau: float) -> tuple[Tensor, Tensor | None]:
        """Weights (N, D) of the patches, and the log-probability (N,) of each draw if the policy is REINFORCE."""
        joint, shape = self._joint, (len(part.patches), part.patches.shape[1])
        if leaf_LDYX is None:
            if joint.policy == "random":
                # The largest of D alike Gumbel variates is each with the same probability.
                return nn.functional.one_hot(part.noise.argmax(dim=1), shape[1]).float(), None
            return torch.full(shape, 1 / shape[1], device=self._place.device), None
        image, row, column = part.at.unbind(dim=1)
        values_ND = leaf_LDYX[image, :, row, column]
        logs = self._logarithmic
        if joint.policy == "mean":
            return mean_weights(values_ND, logs=logs), None
        if joint.policy == "mode":
            return mode_weights(values_ND, joint.gradient, logs=logs), None
        if joint.policy == "gumbel":
            return gumbel_weights(values_ND, tau=tau, noise_ND=part.noise, hard=joint.hard), None
        log_f_ND = values_ND.detach() if logs else values_ND.detach().log()
        return categorical_weights(values_ND, (log_f_ND + part.noise).argmax(dim=1), logs=logs)

    def _input(self, patches_NDCPP: Tensor, weights_ND: Tensor) -> Tensor:
        """What the network sees: the mixed patches, and their mixed scale where the card asks for it."""
        mixed = mix(patches_NDCPP, weights_ND)
        return with_scale(mixed, weights_ND @ self._log_scales, self._card.network.scale_channel)

    def _mapped(self, logits_NKHW: Tensor, part: Minibatch, weights_ND: Tensor) -> Tensor:
        """Under explicit mapping, the part of each output that shows the smallest window, enlarged."""
        if self._card.mapping == "implicit":
            return logits_NKHW
        index_N = weights_ND.detach().argmax(dim=1)
        inset_N2 = part.insets[torch.arange(len(index_N), device=index_N.device), index_N]
        P = self._card.patch_size
        outputs = []
        for n, (d, (y, x)) in enumerate(zip(index_N.tolist(), inset_N2.tolist(), strict=True)):
            seen, one = Region(0, 0, self._fovs[d], self._fovs[d]), logits_NKHW[n : n + 1]
            outputs.append(one if self._fovs[d] == P else map_exact(one, seen, Region(x, y, P, P)))
        return torch.cat(outputs)

    def _alone(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange the network's gradients after the last chunk alone."""
        if last or not isinstance(self._network, DistributedDataParallel):
            return nullcontext()
        return self._network.no_sync()

    def _tau(self, t: float, T: float) -> float:
        tau = self._joint.tau
        return temperature(t, T, self._joint.tau_rate) if tau == "annealed" else tau

    def _remember(self, loss: float) -> None:
        self._baseline = loss if self._baseline is None else _BASELINE * self._baseline + (1 - _BASELINE) * loss

    def _report(self, loss: float, tau: float, leaf_LDYX: Tensor | None) -> dict[str, float]:
        """What stands in losses.csv and TensorBoard of an update."""
        report = {"loss": loss, **self._rates()}
        if leaf_LDYX is None:
            return report
        if self._joint.policy == "gumbel":
            report["tau"] = tau
        f_LDYX = leaf_LDYX.detach().exp() if self._logarithmic else leaf_LDYX.detach()
        report["entropy"] = float(torch.special.entr(f_LDYX).sum(dim=1).mean())
        D = f_LDYX.shape[1]
        chosen = torch.bincount(f_LDYX.argmax(dim=1).flatten(), minlength=D) / f_LDYX[:, 0].numel()
        report |= {f"chosen_{d + 1}": float(chosen[d]) for d in range(D)}
        return report | {f"mean_{d + 1}": float(f_LDYX[:, d].mean()) for d in range(D)}


def _finite_sum(gradient_LDYX: Tensor) -> Tensor:
    """(D, Y, X) over the images; 0 where float16 overflowed, whose step is not taken: it would spoil the last one."""
    return torch.where(gradient_LDYX.isfinite().all(), gradient_LDYX, 0).sum(0)


def authors_iteration(update: int, k: int, B: int, K: int, updates: int) -> tuple[int, int]:
    """t and T of the authors' loop in location batch `k` of image batch `update`, both from 0 (section 8.2).

    Their iterations count locations, S = K B an image batch; the first t is -S.
    """
    S = K * B
    return (update - 1) * S + k * B, updates * S


def output_stride(network: nn.Module, channels: int, side: int) -> int:
    """Patch pixels per pixel of the network's output in training; 1 in evaluation, always."""
    # A copy: a forward in training moves the running statistics.
    probe = copy.deepcopy(network).train()
    with torch.no_grad():
        output: Tensor = probe(torch.zeros(2, channels, side, side))
    stride, left_over = divmod(side, output.shape[-1])
    assert not left_over, "the recipe was checked"
    return stride
