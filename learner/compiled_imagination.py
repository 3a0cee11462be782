"""Imagination on the CPU, compiled (learner/kernels/imagining.py): the default one, without gradients.

Shapes: R rows, N agents, Z latent, K moments.
"""

from typing import Any

from torch import Tensor, nn

from common.agent import AgentNetwork
from common.labels import labelled
from learner.gala import GalaDecoder, GalaEncoder, compose
from learner.graph import sharpening_smoothing_weights, sharpening_weights, smoothing_weights
from learner.kernels import imagining
from learner.kernels.blas import Numbers, product_routine
from learner.kernels.gru import Several
from learner.kernels.layout import flat, flat_output
from learner.present import Present
from learner.shares import Share, in_parallel
from learner.vae import PriorVae
from learner.world_model import WorldModel

BLOCK_NODES = 1024
"""Rows times agents of a block: 0.25 MB for 64 features."""


def compiles(model: WorldModel) -> bool:
    """Whether this is a world model that is compiled."""
    settings = model.settings
    return settings.posterior == "gala" and settings.prior and settings.af_rollout == "forward"


@labelled("imagination")
def imagine_compiled(model: WorldModel, policy: AgentNetwork, present: Present) -> Tensor:
    """What `Rollout.fuse` makes of what is imagined, [K, R, N * Z], the last moment first."""
    settings, (rows, agents, _) = model.settings, present.obs_RNO.shape
    beliefs, fades = present.beliefs, present.fades
    beginning = (
        beliefs.s_RNZ,
        present.hidden_RND,
        beliefs.v_RNZ,
        beliefs.static_projected_RNH,
        beliefs.static_RNZ,
    )
    fused_KRF = present.hidden_RND.new_zeros(settings.horizon + 1, rows, agents * settings.latent_size)
    fallback = model.spec.fallback_action if settings.predict_avail_actions else -1
    arguments: tuple[Any, ...] = (
        (rows, agents, settings.horizon, fallback),
        *_weights(model, policy),
        (flat(fades.hidden_D), flat(fades.static_H)),
        tuple(map(flat, beginning)),
        present.avail_RNA.contiguous().view(-1).numpy(),
        (settings.masks.ac, settings.masks.af, settings.masks.st),
        int(settings.normalise_branches),
        flat_output(fused_KRF),
    )
    blas = product_routine(arguments[-1].dtype)
    size = max(1, BLOCK_NODES // agents)

    def work(share: Share) -> None:
        imagining.imagine(blas, share, *arguments)

    in_parallel(work, [(start, min(start + size, rows)) for start in range(0, rows, size)])
    return fused_KRF


def _weights(model: WorldModel, policy: AgentNetwork) -> tuple[Several | tuple[float, ...], ...]:
    """The operators' `shared`, and the layers of all parts, as the compiled function takes them."""
    agents = model.spec.n_agents
    sharpening, smoothing = sharpening_weights(agents), smoothing_weights(agents)
    both = sharpening_smoothing_weights(agents)
    ac_decoder, af_decoder, encoder = model.ac_decoder, model.af_decoder, model.st_encoder
    assert isinstance(ac_decoder, GalaDecoder) and isinstance(af_decoder, GalaDecoder)
    ac_prior, af_prior = model.ac_prior, model.af_prior
    assert isinstance(encoder, GalaEncoder) and ac_prior is not None and af_prior is not None
    assert ac_prior.embed_actions is not None
    embed, embed_bias, *change = _prior(ac_prior)
    projecting = compose(encoder.first[0], *af_decoder.last_layer(slice(model.settings.latent_size, None)))
    first, last = model.avail_head[0], model.avail_head[2]
    return (
        tuple(shared / own for own, shared in (sharpening, both, smoothing)),
        _layer(policy.head),
        (embed, embed_bias, flat(ac_prior.embed_actions.weight.t()), *change),
        (*_layer(ac_decoder.first, sharpening[0]), *_layer(ac_decoder.last, sharpening[0])),
        (*_layer(first), *_layer(last)),
        _prior(af_prior),
        (
            *_layer(af_decoder.first, sharpening[0]),
            *(flat(both[0] * projecting[0].t()), flat(projecting[1])),
        ),
        # This operator comes after its layer, so the bias takes part in it.
        (flat(smoothing[0] * encoder.last.weight.t()), flat(smoothing[0] * encoder.last.bias)),
    )


def _layer(layer: nn.Module, own: float = 1.0) -> tuple[Numbers, Numbers]:
    """A layer's transposed weight and its bias; `own` is of the operator before it."""
    assert isinstance(layer, nn.Linear)
    return flat(own * layer.weight.t()), flat(layer.bias)


def _prior(prior: PriorVae) -> tuple[Numbers, ...]:
    """The embedding of the codes, and the layer that gives their mean change."""
    weight, bias = (_of_means(x, prior) for x in (prior.statistics.weight, prior.statistics.bias))
    return *_layer(prior.embed_latent), flat(weight.t()), flat(bias)


def _of_means(statistics: Tensor, prior: PriorVae) -> Tensor:
    """Every agent's mean, of means and log-variances side by side."""
    both = statistics.view(prior.agents, 2, prior.latent_size, *statistics.shape[1:])
    return both[:, 0].flatten(0, 1)
