"""VDFD's losses and imagination in slow, plain NumPy, as algorithm and paper write them (see equations.py).

Parameters are those of the whole learner: "world_model.ac_encoder.first.0.weight", "rollout.gru.bias_ih_l0".

Shapes: N agents, A actions, O obs, D hidden of an agent, Z latent, W rollout.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from common.types import Episode
from learner.gaussians import LOG_VAR_RANGE
from learner.settings import WorldModelSettings
from tests.episodes import SPEC
from tests.learner.equations import A, Array, N, Parameters, best, gru, layers, linear, relu, sigmoid, stop

COMPLETE = (np.ones((N, N)) - np.eye(N)) / N
"""The graph: complete, with edge weight 1 / N."""
Noise = Callable[[str, int], Array]
"""Standard normal [N, Z] of one of the four samples, at one time of the episode."""


class Moment(NamedTuple):
    """One time of one episode: its losses, what imagination starts from, and samples for the next time."""

    losses: dict[str, Array]
    s_mean: Array
    v_mean: Array
    v_before: Array
    s: Array
    v: Array


class Fades(NamedTuple):
    """How what a decoder leaves out fades from one time to the next: of h, and of the static code's input."""

    hidden: Array
    static: Array


def moments(
    p: Parameters, settings: WorldModelSettings, episode: Episode, h: list[Array], noise: Noise
) -> list[Moment]:
    """Every time of an episode, the last included. s_{-1} = v_{-1} = 0, a_{-1} = 0; h is data."""
    zero = np.zeros((N, settings.latent_size))
    found: list[Moment] = []
    for t in range(episode.meta.length + 1):
        s, v = (found[-1].s, found[-1].v) if t else (zero, zero)
        a = np.eye(A)[episode.actions[t - 1]] if t else np.zeros((N, A))
        now = (episode.obs[t], h[t], episode.avail_actions[t])
        found.append(_moment(p, settings, *now, s, v, a, lambda name, t=t: noise(name, t)))
    return found


def _moment(
    p: Parameters,
    settings: WorldModelSettings,
    z: Array,
    h: Array,
    avail: Array,
    s_before: Array,
    v_before: Array,
    a_before: Array,
    noise: Callable[[str], Array],
) -> Moment:
    posterior, posterior_v = _encode(p, "ac_encoder", h), _encode(p, "af_encoder", v_before, z)
    s, v = _sample(posterior, noise("s")), _sample(posterior_v, noise("v"))
    rec_ac = _mse(h, _decode(p, "ac_decoder", s))
    rec_af = _mse(np.concatenate((v_before, z), axis=-1), _decode(p, "af_decoder", v))
    if settings.prior:
        prior, prior_v = _prior(p, "ac_prior", s_before, a_before), _prior(p, "af_prior", v_before)
        back = _prior_decoder(p, "ac_prior", _sample(prior, noise("s_prior")))
        s_back, a_back = np.split(back, [s.size])
        rec_ac = rec_ac + _mse(s_before, s_back) + _mse(a_before, a_back)
        v_back = _prior_decoder(p, "af_prior", _sample(prior_v, noise("v_prior")))
        rec_af = rec_af + _mse(v_before, v_back)
        kl_ac, kl_af = _branch_kl(posterior, prior, settings), _branch_kl(posterior_v, prior_v, settings)
    else:
        kl_ac, kl_af = (settings.prior_weight * _kl_to_standard(q) for q in (posterior, posterior_v))
    st = _mse(z, _decode(p, "st_decoder", _static(p, z)))
    likely = sigmoid(layers(p, "world_model.avail_head", s, count=2))
    avail_loss = np.mean(-np.where(avail, np.log(likely), np.log(1 - likely)))
    losses = {"kl_ac": kl_ac, "rec_ac": rec_ac, "kl_af": kl_af, "rec_af": rec_af, "st": st}
    return Moment({**losses, "avail": avail_loss}, posterior[0], posterior_v[0], v_before, s, v)


Played = tuple[Episode, list[Array], list[Moment]]
"""An episode, its hidden states, its moments."""


def fades(p: Parameters, settings: WorldModelSettings, played: list[Played]) -> Fades:
    """Least squares r_{t+1} ~ f r_t per feature, over all steps of all episodes; data, without a gradient."""
    pairs: list[list[tuple[Array, Array]]] = [[], []]
    for episode, h, found in played:
        left = [_remainders(p, settings, *now) for now in zip(found, h, episode.obs, strict=True)]
        for now, later in itertools.pairwise(left):
            for i in range(2):
                pairs[i].append((np.real(now[i]), np.real(later[i])))
    return Fades(*(_fade(of_both) for of_both in pairs))


def _remainders(
    p: Parameters, settings: WorldModelSettings, moment: Moment, h: Array, z: Array
) -> tuple[Array, Array]:
    decoded = _decode(p, "af_decoder", moment.v_mean)[:, settings.latent_size :]
    return h - _decode(p, "ac_decoder", moment.s_mean), _before_static(p, z) - _before_static(p, decoded)


def _fade(pairs: list[tuple[Array, Array]]) -> Array:
    now, later = (np.stack(side).reshape(-1, side[0].shape[-1]) for side in zip(*pairs, strict=True))
    slope: Array = np.clip((now * later).sum(axis=0) / (now * now).sum(axis=0), 0.0, 1.0)
    return slope


def rollout(
    p: Parameters, target: Parameters, settings: WorldModelSettings, played: Played, fading: Fades
) -> list[Array]:
    """O_t^Rollout [W] of every time: the fused future of each, read from its last moment to its first."""
    summaries, (episode, h, found) = [], played
    for t, moment in enumerate(found):
        kept = _remainders(p, settings, moment, h[t], episode.obs[t])
        carried = [settings.carry_remainders * x for x in kept]
        s = _imagine_s(p, target, settings, moment.s_mean, h[t], episode.avail_actions[t], carried[0], fading)
        v, z = _imagine_v(p, settings, moment, episode.obs[t])
        inputs = [_before_static(p, x) for x in z]
        if settings.af_rollout == "forward":
            inputs[1:] = [x + fading.static**k * carried[1] for k, x in enumerate(inputs[1:], start=1)]
        static = [_after_static(p, x) for x in inputs]
        fused = [_fuse(settings, *codes) for codes in zip(s, v, static, strict=True)]
        summary: Array = np.zeros(settings.rollout_size)
        for o in reversed(fused):
            summary = gru(p, "rollout.gru", o if settings.td_gradient else stop(o), summary)
        summaries.append(summary)
    return summaries


def _imagine_s(
    p: Parameters,
    target: Parameters,
    settings: WorldModelSettings,
    s: Array,
    h: Array,
    avail: Array,
    carried: Array,
    fading: Fades,
) -> list[Array]:
    """a' is greedy by the *target's* head on h', among what is really, then what is probably available."""
    path = [s]
    for k in range(1, settings.horizon + 1 if settings.prior else 1):
        action = best(linear(target, "agent.head", h), avail)
        s = _prior(p, "ac_prior", s, np.eye(A)[action])[0]
        h = _decode(p, "ac_decoder", s) + fading.hidden**k * carried
        avail = np.real(layers(p, "world_model.avail_head", s, count=2)) > 0
        avail[:, SPEC.fallback_action] |= ~avail.any(axis=-1)
        path.append(s)
    return path


def _imagine_v(
    p: Parameters, settings: WorldModelSettings, moment: Moment, z: Array
) -> tuple[list[Array], list[Array]]:
    """Forward: v' ~ p(. | v), z' decoded from v'. Literal: (v_{t-1}, z_t) -> (v', z'), v_t ~ p(. | v')."""
    v, v_in = moment.v_mean, moment.v_before
    path, observed = [v], [z]
    for _ in range(settings.horizon if settings.prior else 0):
        if settings.af_rollout == "forward":
            v = _prior(p, "af_prior", v)[0]
            z = _decode(p, "af_decoder", v)[:, settings.latent_size :]
        else:
            code = _encode(p, "af_encoder", v_in, z)[0]
            v_back, z = np.split(_decode(p, "af_decoder", code), [settings.latent_size], axis=-1)
            v = v_in = _prior(p, "af_prior", v_back)[0]
        path.append(v)
        observed.append(z)
    return path, observed


def _fuse(settings: WorldModelSettings, s: Array, v: Array, static: Array) -> Array:
    """O = M_ac s + M_af v + M_st z_static, each normalised over the team's code."""
    masks = settings.masks
    pairs = ((masks.ac, s), (masks.af, v), (masks.st, static))
    return sum(
        mask * (_normalise(x.ravel()) if settings.normalise_branches else x.ravel()) for mask, x in pairs
    )


def _normalise(x: Array) -> Array:
    centred = x - x.mean()
    return centred / np.sqrt(np.mean(centred * centred) + 1e-5)


def _smooth(x: Array) -> Array:
    looped = COMPLETE + np.eye(N)
    d = np.diag(looped.sum(1) ** -0.5)
    return d @ looped @ d @ x


def _sharpen(x: Array) -> Array:
    d = np.diag((COMPLETE.sum(1) + 2) ** -0.5)
    return d @ (2 * np.eye(N) - COMPLETE) @ d @ x


def _layer(p: Parameters, name: str, x: Array, operator: Callable[[Array], Array]) -> Array:
    """A layer of GALA, or where the weights say so one of the whole team (VDF-SV)."""
    of_the_team = p[f"world_model.{name}.weight"].shape[1] == x.size
    return linear(p, f"world_model.{name}", x.ravel() if of_the_team else operator(x))


def _features(p: Parameters, name: str, *parts: Array) -> Array:
    """The encoder: two smoothing layers."""
    hidden = sum(_layer(p, f"{name}.first.{i}", x, _smooth) for i, x in enumerate(parts))
    return _layer(p, f"{name}.last", relu(hidden), _smooth).reshape(N, -1)


def _encode(p: Parameters, name: str, *parts: Array) -> tuple[Array, Array]:
    """Mean and log-variance."""
    mean, log_var = np.split(_features(p, name, *parts), 2, axis=-1)
    return mean, _clamp(log_var)


def _static(p: Parameters, z: Array) -> Array:
    return _after_static(p, _before_static(p, z))


def _before_static(p: Parameters, z: Array) -> Array:
    return _layer(p, "st_encoder.first.0", z, _smooth)


def _after_static(p: Parameters, x: Array) -> Array:
    return _layer(p, "st_encoder.last", relu(x), _smooth).reshape(N, -1)


def _decode(p: Parameters, name: str, code: Array) -> Array:
    """The decoder: two sharpening layers, the last one linear."""
    hidden = relu(_layer(p, f"{name}.first", code, _sharpen))
    return _layer(p, f"{name}.last", hidden, _sharpen).reshape(N, -1)


def _prior(p: Parameters, name: str, latent: Array, actions: Array | None = None) -> tuple[Array, Array]:
    hidden = linear(p, f"world_model.{name}.embed_latent", latent.ravel())
    if actions is not None:
        hidden = hidden + linear(p, f"world_model.{name}.embed_actions", actions.ravel())
    statistics = linear(p, f"world_model.{name}.statistics", relu(hidden)).reshape(N, -1)
    change, log_var = np.split(statistics, 2, axis=-1)
    return latent + change, _clamp(log_var)


def _prior_decoder(p: Parameters, name: str, sample: Array) -> Array:
    hidden = relu(linear(p, f"world_model.{name}.decode_first", sample.ravel()))
    return linear(p, f"world_model.{name}.decode_last", hidden)


def _clamp(x: Array) -> Array:
    low, high = LOG_VAR_RANGE
    return np.where(np.real(x) < low, low, np.where(np.real(x) > high, high, x))


def _sample(gaussian: tuple[Array, Array], noise: Array) -> Array:
    return gaussian[0] + np.exp(gaussian[1] / 2) * noise


def _branch_kl(q: tuple[Array, Array], p: tuple[Array, Array], settings: WorldModelSettings) -> Array:
    """prior_weight KL(p || N(0, I)) + alpha KL(q || [p]) + (1 - alpha) KL([q] || p)."""
    to_standard = settings.prior_weight * _kl_to_standard(p)
    if settings.kl_balance is None:
        return to_standard + _kl(q, p)
    q_stop, p_stop = (stop(q[0]), stop(q[1])), (stop(p[0]), stop(p[1]))
    alpha = settings.kl_balance
    return to_standard + alpha * _kl(q, p_stop) + (1 - alpha) * _kl(q_stop, p)


def _kl_to_standard(q: tuple[Array, Array]) -> Array:
    return _kl(q, (np.zeros((1, 1)), np.zeros((1, 1))))


def _kl(q: tuple[Array, Array], p: tuple[Array, Array]) -> Array:
    """log s'/s + (s^2 + (m - m')^2) / 2 s'^2 - 1/2, mean over agents and dimensions."""
    (m, lv), (mp, lvp) = q, p
    return np.mean(0.5 * (lvp - lv) + (np.exp(lv) + (m - mp) ** 2) / (2 * np.exp(lvp)) - 0.5)


def _mse(a: Array, b: Array) -> Array:
    return np.mean((a.ravel() - b.ravel()) ** 2)
