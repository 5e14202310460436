"""One frozen training recipe, read strictly from YAML; it travels inside the bundle that it made as `training.yaml`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from foveate.card import check_contract
from foveate.errors import BundleInvalid, OptionInvalid
from foveate.faults import faults_of
from foveate.schema import BundleCard, Wire
from model.datasets.config import Augmentation, Data, PairsData
from model.datasets.layouts import labelling_of

__all__ = [
    "LEARNING",
    "QUARTERED",
    "Joint",
    "Loss",
    "Optimiser",
    "ScoresOfOthers",
    "Staged",
    "TrainConfig",
    "parse_config",
    "read_yaml",
]

LEARNING = ("mean", "mode", "gumbel", "categorical")
"""Policies of joint training that train F_theta."""

QUARTERED = ("hrnet_w18", "hrnet_w48", "upernet_resnet50")
"""Networks of ours whose output is a quarter of the patch's side in training."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Optimiser(Wire):
    """Foveation-method.md, section 8.3; the rates fall as (1 - t / T)^`poly_power`."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam with betas 0.9 and 0.999; SGD with momentum 0.9. adamw decouples `weight_decay`, which else is L2."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """Of the decoder, or of a network without parts."""
    encoder_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Null: `learning_rate`."""
    foveation_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Null: `learning_rate`."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_on: Literal["convolutions", "all"] = "convolutions"
    """"convolutions": their weights alone, no biases and no norms."""
    poly_power: Annotated[float, Field(gt=0)] = 0.9
    warm_up: Annotated[int, Field(ge=0)] = 0
    """Updates over which the rates rise from nearly 0."""


class Loss(Wire):
    """Negative log-likelihood, mean over the pixels that are not ignored; weights and a Dice term on request."""

    class_weights: list[Annotated[float, Field(ge=0)]] | None = None
    class_weight_power: Share | None = None
    """A class weighs (1 / its share of the training pixels) to this power; null: all alike."""
    dice: Annotated[float, Field(ge=0)] = 0.0
    """Weight of 1 - mean soft Dice over the classes that a batch shows."""

    @model_validator(mode="after")
    def _one_weighting(self) -> Self:
        if self.class_weights is not None and self.class_weight_power is not None:
            raise ValueError("give class_weights or class_weight_power, not both")
        return self


class Joint(Wire):
    """Algorithm 1: F_theta and the network together, on the segmentation loss (paper, section 3.3)."""

    method: Literal["joint"]
    policy: Annotated[str, Field(pattern=r"^(mean|mode|gumbel|categorical|average|random|fixed:[1-9]\d*)$")] = "mean"
    """`categorical` is REINFORCE; `average`, `random` and `fixed:K` are baselines that leave F_theta out."""
    gradient: Literal["st", "st_inv"] = "st"
    """Of `mode` (equation 3): plain straight-through, or divided by f as in the authors' code."""
    hard: bool = False
    """`gumbel`: straight-through (one field of view each) instead of soft (mixed)."""
    tau: Literal["annealed"] | Annotated[float, Field(gt=0)] = "annealed"
    """`gumbel`: max(0.1, exp(-`tau_rate` t / T)), or a constant."""
    tau_rate: Annotated[float, Field(gt=0)] = 1.0
    geometry: Literal["lattice", "center", "parity"] = "lattice"
    location_step: Count | None = None
    """Working pixels from one location to the next where there is no F_theta; null: an eighth of the patch. With an
    F_theta the locations are the pixels of its thumbnail."""
    update: Literal["paper", "parity"] = "paper"
    """"paper": one step on the mean loss over all P = L * B patches; "parity": the authors' loop (section 8.2)."""
    zero_step_gradient: bool = False
    """"parity": F_theta's gradient is zero but in the last location batch."""
    images: Count = 1
    """L images in a minibatch, over all devices."""
    locations: Count = 8
    """B locations per image."""
    location_batches: Count = 1
    """"parity": K = S / B location batches per image batch, an optimiser step each."""
    chunk: Count | None = None
    """Patches that the network takes at once; the gradient is the joint one for any number (section 8.1); null: all."""
    steps: Count
    """T: updates, whatever the number of images and devices."""
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    encoder_weights: str | None = None
    """imagenet-lite0, -lite1, -lite2, or a safetensors or pth file with timm's names; null: random."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the running mean of all weights that is kept in the end; null: the last weights."""
    class_centred: Share = 0.0
    """Share of the locations near a pixel of a class drawn uniformly; the others are uniform, as in the paper."""
    map_every: Annotated[int, Field(ge=0)] = 0
    """Updates from one picture of the foveation maps to the next (Fig. B.4.4); 0: none."""

    @model_validator(mode="after")
    def _one_reward(self) -> Self:
        if self.policy == "categorical" and self.loss.dice:
            raise ValueError(
                "loss.dice is of a whole batch, which no single choice of categorical answers for: leave it 0"
            )
        return self


class NetworkSchedule(Wire):
    steps: Count
    batch: Count
    fov_shares: list[Share]
    """Share of the patches of each field of view."""
    class_centred: Share
    """Share of the patches that contain a pixel of a class drawn uniformly; the others lie anywhere."""
    optimiser: Optimiser
    loss: Loss = Loss()
    encoder_weights: str | None = None
    average: Annotated[float, Field(gt=0, lt=1)] | None = None


class FoveationSchedule(Wire):
    steps: Count
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    every: Count
    """Every how many thumbnail pixels, along both axes, a location is measured."""
    variants: Annotated[int, Field(ge=1, le=8)]
    """Into how many turned and mirrored versions each image is measured."""
    objective: Literal["cross_entropy", "mean_iou"] = "cross_entropy"
    """What a field of view costs at a place: the network's weighted loss there, or what the mean IoU over all places
    loses by it. The loss prefers fields of view that are less sure of their errors, and those are often wide ones."""
    margin: Annotated[float, Field(ge=0)] | Literal["cross_validated"] = 0.0
    """Added to the logit of the field of view that is best by itself: how much surer F_theta has to be to choose
    another. "cross_validated": what serves best on images that F_theta was trained without, each in its turn."""


class Staged(Wire):
    """For explicit mapping: the network on every field of view, labels over all that it sees; then F_theta on the
    losses that each field of view really has on held-out places."""

    method: Literal["staged"]
    network: NetworkSchedule
    foveation: FoveationSchedule | None = None


class ScoresOfOthers(Wire):
    """Where the card's scores come from if the shipped net has learned from all images: nets of the same recipe that
    never saw the images that they were scored on."""

    evaluation: Path
    """`scores.json` of `foveate evaluate` on the experiment that trained them."""
    model: str | None = None
    """Which model of the experiment is this recipe; null: it has one only."""
    coverage: Literal["dense", "planned", "refined"] = "dense"
    """The card's default, where the evaluation measured a curve that supports it."""


class TrainConfig(Wire):
    bundle: BundleCard
    """The card to be; training completes `provenance`."""
    data: Data
    augmentation: Augmentation = Augmentation()
    training: Annotated[Joint | Staged, Field(discriminator="method")]
    seed: Annotated[int, Field(ge=0)] = 304
    threads: Count | None = None
    """Of torch, on the CPU; null: torch's own choice."""
    loaders: Annotated[int, Field(ge=0)] = 1
    """Processes that decode ahead of the network; 0: in the training process."""
    checkpoint_minutes: Annotated[float, Field(gt=0, le=10)] = 4
    run: Path
    """Checkpoints, TensorBoard logs and the bundle so far; the same command goes on where it stopped."""
    output: Path | None = None
    """Where the finished bundle goes; null: it stays in the run, see `foveate models export`."""
    scores: ScoresOfOthers | None = None
    """Null: the finished net is scored on `data.test`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        match self.training:
            case Staged() as staged:
                self._check_staged(staged)
            case Joint() as joint:
                self._check_joint(joint)
        try:
            check_contract(self.bundle, Path("bundle"))
        except BundleInvalid as error:
            raise ValueError(f"{error.message}: {error.hint}") from error
        self._check_classes()
        self._check_quarter()
        if self.output and not self.scores and isinstance(self.data, PairsData) and not self.data.test:
            raise ValueError("data.test is empty: there is nothing to score the published bundle on; or give scores")
        return self

    def _check_classes(self) -> None:
        known = [entry.value for entry in self.bundle.classes]
        glass = self.augmentation.glass
        if glass is not None and glass.value not in known:
            raise ValueError(f"augmentation.glass.value {glass.value} is none of the values in bundle.classes: {known}")
        for value in sorted(labelling_of(self.data).values.difference(known)):
            raise ValueError(f"data: labels mean class {value}, which is none of the values in bundle.classes: {known}")

    def _check_quarter(self) -> None:
        network, side = self.bundle.network, self.bundle.patch_size
        if network.library == "foveate" and network.architecture in QUARTERED and side % 4:
            raise ValueError(
                f"bundle.patch_size {side}: {network.architecture} learns on a quarter of a patch's side, which this "
                f"has not; choose {side // 4 * 4 or 4} or {side // 4 * 4 + 4}"
            )

    def _check_staged(self, staged: Staged) -> None:
        shares = staged.network.fov_shares
        if len(shares) != len(self.bundle.fovs):
            raise ValueError(f"fov_shares needs one share for each of the fovs {self.bundle.fovs}")
        if abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"fov_shares add up to {sum(shares):g}, not 1")
        if any(f % self.bundle.patch_size for f in self.bundle.fovs) or self.bundle.mapping != "explicit":
            raise ValueError("staged training needs explicit mapping and whole multiples of patch_size; use joint")
        if (self.bundle.foveation is None) != (staged.foveation is None):
            raise ValueError("give both bundle.foveation and training.foveation, or neither")
        norm = self.bundle.foveation.norm if self.bundle.foveation else None
        if staged.foveation and staged.foveation.margin and norm not in ("bn", "instance"):
            raise ValueError("training.foveation.margin goes into F_theta's last norm: set bundle.foveation.norm to bn")

    def _check_joint(self, joint: Joint) -> None:
        if joint.policy.startswith("fixed:") and int(joint.policy[6:]) > len(self.bundle.fovs):
            raise ValueError(f"training.policy {joint.policy}: there are {len(self.bundle.fovs)} fields of view")
        learns = joint.policy in LEARNING
        if learns and self.bundle.foveation is None:
            raise ValueError(f"bundle.foveation is null: there is no F_theta for the policy {joint.policy}")
        if not learns and self.bundle.foveation is not None:
            raise ValueError(f"policy {joint.policy} leaves F_theta out: set bundle.foveation to null")
        if joint.update == "parity" and joint.class_centred:
            raise ValueError("training.class_centred: update parity draws the same locations in all images")
        if learns and joint.location_step is not None:
            raise ValueError("training.location_step: the locations are those of bundle.foveation.downsample")
        mixes = joint.policy in ("mean", "average") or (joint.policy == "gumbel" and not joint.hard)
        if mixes and self.bundle.mapping == "explicit":
            raise ValueError(f"policy {joint.policy} mixes fields of view, which explicit mapping cannot read back")


def parse_config(entries: Any, origin: str) -> TrainConfig:
    """The recipe in `entries`; OptionInvalid names `origin` and the field that is wrong."""
    try:
        return TrainConfig.model_validate(entries)
    except ValidationError as error:
        raise OptionInvalid(
            f"{origin}: {faults_of(error)}", hint="Mend the file; see bundles/*/training.yaml for a whole one."
        ) from error


def read_yaml(path: Path) -> Any:
    """What the YAML file holds; OptionInvalid where it cannot be read or is no YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise OptionInvalid(f"{path} cannot be read: {error.strerror}", hint="Give the path of a recipe.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionInvalid(
            f"{path} is no YAML: {error}", hint="Mend the file; see bundles/*/training.yaml."
        ) from error
