"""Settings of the learner: training, mixing, world model. (ours) marks what the paper leaves open."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Fraction, PositiveFloat, PositiveInt, Settings

NonNegativeFloat = Annotated[float, Field(ge=0)]


class OptimiserSettings(Settings):
    """How a group of parameters is optimised; the defaults are PyMARL's."""

    name: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: PositiveFloat = 5e-4
    rmsprop_alpha: Fraction = 0.99
    rmsprop_eps: PositiveFloat = 1e-5
    max_grad_norm: PositiveFloat = 10.0


class WorldModelOptimiserSettings(OptimiserSettings):
    """The same, with the world model's defaults (ours)."""

    name: Literal["rmsprop", "adam"] = "adam"
    learning_rate: PositiveFloat = 1e-3


class MixerSettings(Settings):
    """QMIX's mixing network."""

    embed_size: PositiveInt = 32
    hypernet_size: PositiveInt = 64


class QtranSettings(Settings):
    """QTRAN's joint networks and constraints; PyMARL's values."""

    embed_size: PositiveInt = 64
    opt_weight: NonNegativeFloat = 1.0
    nopt_weight: NonNegativeFloat = 0.1


class ComaSettings(Settings):
    """COMA's critic; PyMARL's values."""

    critic_hidden_size: PositiveInt = 128
    critic_learning_rate: PositiveFloat = 5e-4
    target_update_critic_steps: PositiveInt = 200
    """Steps of the critic (one for every time of a batch) between copies of it to its target."""


class LossWeights(Settings):
    """The betas of the overall loss (paper, "Components of the Learning Objective"; values ours)."""

    kl_ac: NonNegativeFloat = 0.3
    rec_ac: NonNegativeFloat = 1.0
    kl_af: NonNegativeFloat = 0.3
    rec_af: NonNegativeFloat = 1.0
    st: NonNegativeFloat = 1.0
    avail: NonNegativeFloat = 1.0
    """Cross-entropy of the predicted available actions (ours)."""


class BranchMasks(Settings):
    """M_ac, M_af, M_st of the fusion: 0 keeps a branch from the mixer."""

    ac: float = 1.0
    af: float = 1.0
    st: float = 1.0


class WorldModelSettings(Settings):
    """The disentangled world model."""

    latent_size: PositiveInt = 16
    """d: latent size per agent and branch (ours)."""
    hidden_size: PositiveInt = 64
    """Width of the hidden layers of GALA and the VAEs (ours)."""
    rollout_size: PositiveInt = 64
    """Width of the GRU that summarises the imagined future (ours)."""
    horizon: PositiveInt = 3
    """j: imagined steps (paper: 3)."""
    posterior: Literal["gala", "vae"] = "gala"
    """vae replaces every GALA by a fully connected VAE (the paper's VDF-SV)."""
    prior: bool = True
    """False: no prior VAE and no transition, the rollout is the posterior at t (the paper's VDF-POST)."""
    masks: BranchMasks = BranchMasks()
    loss_weights: LossWeights = LossWeights()
    prior_weight: NonNegativeFloat = 0.1
    """Weight of KL(prior || N(0, I)) within its branch's KL (paper: 1)."""
    kl_balance: Fraction | None = 0.2
    """alpha, the posterior's share of the KL gradient; null turns balancing off."""
    af_rollout: Literal["forward", "literal"] = "forward"
    """How the action-free branch imagines: z' decoded from the advanced v (ours), or as the paper writes."""
    carry_remainders: bool = True
    """Carry what a decoder leaves out of the present into what it imagines, fading (ours)."""
    normalise_branches: bool = True
    """Normalise each branch's code before the fusion (ours)."""
    predict_avail_actions: bool = True
    """Predict which actions are available in imagined states (ours); off: all of them."""
    optimiser: WorldModelOptimiserSettings = WorldModelOptimiserSettings()
    """The world model's own (ours)."""
    td_gradient: bool = False
    """Let the TD loss flow into the world model through the rollout."""


class LearnerSettings(Settings):
    """The learner process."""

    algorithm: str = "vdfd"
    """Registered name: vdfd, qmix, vdn, iql, qtran, coma."""
    batch_size: PositiveInt = 32
    """Episodes per step."""
    table: str = "default"
    """Table of the replay service from which batches come."""
    gamma: Fraction = 0.99
    td_lambda: Fraction = 0.0
    """0: one-step targets (PyMARL); otherwise TD(lambda) as PyMARL2 has it."""
    double_q: bool = True
    target_update_episodes: PositiveInt = 200
    """Steps between copies of the online network to the target network; one step per episode."""
    optimiser: OptimiserSettings = OptimiserSettings()
    """Of agents and mixer, and what else is not the world model."""
    mixer: MixerSettings = MixerSettings()
    qtran: QtranSettings = QtranSettings()
    coma: ComaSettings = ComaSettings()
    world_model: WorldModelSettings = WorldModelSettings()
    device: str = "auto"
    """auto: CUDA if there is a GPU, else the CPU; or cpu, cuda, cuda:1."""
    threads: PositiveInt = 1
    """CPU threads of a training step."""
    prefetch_batches: PositiveInt = 2
    """Batches that are fetched and decoded ahead of training."""
    publish_every_steps: PositiveInt = 10
    """Steps between two publications of weights."""
    log_every_steps: PositiveInt = 50
    """Steps between two records of losses and rates."""
    health_every_steps: PositiveInt = 500
    """Steps between two measurements of the world model's imagination."""
    checkpoint_every_steps: PositiveInt = 500
    keep_checkpoints: PositiveInt = 3
    deterministic: bool = False
    """Bit-identical steps on the same machine; slower on a GPU."""


FIXED = (
    "algorithm",
    "batch_size",
    "table",
    "mixer",
    "qtran.embed_size",
    "coma.critic_hidden_size",
    *(f"world_model.{name}" for name in WorldModelSettings.model_fields if name != "optimiser"),
    "world_model.optimiser.name",
    "optimiser.name",
)
"""Keys of LearnerSettings that a run cannot change: they decide its networks, what the world model is trained
to do, what an optimiser's state is, and what a batch number means. How far an optimiser steps is not among
them: that is what has to change when a loss was not finite."""
