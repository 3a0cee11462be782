"""Settings of the learner: training, mixing, world model. (ours) marks what the paper leaves open."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Fraction, PositiveFloat, PositiveInt, Settings

NonNegativeFloat = Annotated[float, Field(ge=0)]


class OptimiserSettings(Settings):
    """How a group of parameters is optimised; the defaults are PyMARL's."""

    name: Literal["rmsprop", "adam"] = "rmsprop"
    """How gradients become steps: rmsprop (PyMARL's) or adam."""
    learning_rate: PositiveFloat = 5e-4
    """Step size."""
    rmsprop_alpha: Fraction = 0.99
    """Of rmsprop: the share of its mean of squared gradients that each step keeps."""
    rmsprop_eps: PositiveFloat = 1e-5
    """Of rmsprop: added to the root of that mean, by which gradients are divided."""
    max_grad_norm: PositiveFloat = 10.0
    """A gradient whose Euclidean norm, over all its parameters, is larger is scaled down to it."""


class WorldModelOptimiserSettings(OptimiserSettings):
    """The same, with the world model's defaults (ours)."""

    name: Literal["rmsprop", "adam"] = "adam"
    """How gradients become steps: rmsprop or adam (ours)."""
    learning_rate: PositiveFloat = 1e-3
    """Step size (ours)."""


class MixerSettings(Settings):
    """QMIX's mixing network."""

    embed_size: PositiveInt = 32
    """Width of the mixing network's hidden layer, and of the hypernetwork that makes the last bias V(s)."""
    hypernet_size: PositiveInt = 64
    """Width of the hidden layer of the hypernetworks that make the mixing network's weights."""


class QtranSettings(Settings):
    """QTRAN's joint networks and constraints; PyMARL's values."""

    embed_size: PositiveInt = 64
    """Width of the hidden layers of the joint value Q_jt and of V_jt."""
    opt_weight: NonNegativeFloat = 1.0
    """lambda_opt: weight of L_opt, that the agents' best actions together are worth Q_jt."""
    nopt_weight: NonNegativeFloat = 0.1
    """lambda_nopt: weight of L_nopt, that no actions together are worth less than Q_jt."""


class ComaSettings(Settings):
    """COMA's critic; PyMARL's values."""

    critic_hidden_size: PositiveInt = 128
    """Width of the critic's hidden layers."""
    critic_learning_rate: PositiveFloat = 5e-4
    """The critic's step size; all else is learner.optimiser's."""
    target_update_critic_steps: PositiveInt = 200
    """Steps of the critic (one for every time of a batch) between copies of it to its target."""


class LossWeights(Settings):
    """The betas of the overall loss (paper, "Components of the Learning Objective"; values ours)."""

    kl_ac: NonNegativeFloat = 0.3
    """beta_1, of L^KL of the action-conditioned branch: its prior and its posterior."""
    rec_ac: NonNegativeFloat = 1.0
    """beta_2, of L^REC of the action-conditioned branch: h_t, and s_{t-1} and a_{t-1} of its prior."""
    kl_af: NonNegativeFloat = 0.3
    """beta_3, of L^KL of the action-free branch."""
    rec_af: NonNegativeFloat = 1.0
    """beta_4, of L^REC of the action-free branch: v_{t-1} and z_t, and v_{t-1} of its prior."""
    st: NonNegativeFloat = 1.0
    """beta_5, of L_st: the static branch's reconstruction of z_t."""
    avail: NonNegativeFloat = 1.0
    """Cross-entropy of the predicted available actions (ours)."""


class BranchMasks(Settings):
    """M_ac, M_af, M_st of the fusion: 0 keeps a branch from the mixer."""

    ac: float = 1.0
    """M_ac, the factor of the action-conditioned branch in the fusion; 0: without it (vdfd-no-ac)."""
    af: float = 1.0
    """M_af, the factor of the action-free branch in the fusion; 0: without it (vdfd-no-af)."""
    st: float = 1.0
    """M_st, the factor of the static branch in the fusion; 0: without it (vdfd-no-st)."""


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
    """Discount of the reward, per environment step."""
    td_lambda: Fraction = 0.0
    """0: one-step targets (PyMARL); otherwise TD(lambda) as PyMARL2 has it."""
    double_q: bool = True
    """Double Q-learning: the online network chooses the next actions that the target network values."""
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
    """Steps between two checkpoints; there is one at the end too."""
    keep_checkpoints: PositiveInt = 3
    """How many of the newest checkpoints stay on the disk."""
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
