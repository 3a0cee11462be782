"""The papers' equations of value learning in slow, plain NumPy: one episode and one step at a time.

Parameters come by name, in float64, as torch's state_dict has them. Every function also works on complex
numbers, because gradients are taken by the complex step (Squire and Trapp 1998): with parameters x + i h d
the imaginary part of a loss, over h, is its derivative in the direction d, exact to rounding. Choices and
kinks follow the real part, and `stop`, the papers' [.], drops the imaginary one.

Shapes: T steps, N agents, A actions, D hidden, S what a mixer is conditioned on, E embedding.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.types import Episode
from tests.episodes import SPEC

Array = npt.NDArray[np.generic]
Parameters = Mapping[str, Array]
Mixer = Callable[[Parameters, Array, Array], Array]
N, A = SPEC.n_agents, SPEC.n_actions


def stop(x: Array) -> Array:
    """The same number without a gradient."""
    return np.real(x)


def relu(x: Array) -> Array:
    return np.where(np.real(x) > 0, x, 0)


def absolute(x: Array) -> Array:
    return np.where(np.real(x) < 0, -x, x)


def elu(x: Array) -> Array:
    return np.where(np.real(x) > 0, x, np.exp(np.where(np.real(x) > 0, 0, x)) - 1)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def linear(p: Parameters, name: str, x: Array) -> Array:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def layers(p: Parameters, name: str, x: Array, *, count: int) -> Array:
    """Linear layers with a ReLU between each two: numbers 0, 2, .. of a Sequential."""
    for i in range(count):
        x = linear(p, f"{name}.{2 * i}", relu(x) if i else x)
    return x


def gru(p: Parameters, name: str, x: Array, h: Array) -> Array:
    """r = s(W_r x + U_r h), z = s(W_z x + U_z h), n = tanh(W_n x + r (U_n h)), h' = (1 - z) n + z h."""
    from_x = np.split(x @ p[f"{name}.weight_ih_l0"].T + p[f"{name}.bias_ih_l0"], 3, axis=-1)
    from_h = np.split(h @ p[f"{name}.weight_hh_l0"].T + p[f"{name}.bias_hh_l0"], 3, axis=-1)
    r, z = sigmoid(from_x[0] + from_h[0]), sigmoid(from_x[1] + from_h[1])
    n = np.tanh(from_x[2] + r * from_h[2])
    return (1 - z) * n + z * h


class History(NamedTuple):
    """One episode as the agent network sees it; the last slot is what followed the last step."""

    h: list[Array]
    """[T + 1] of [N, D]"""
    q: list[Array]
    """[T + 1] of [N, A]"""


def history(p: Parameters, episode: Episode) -> History:
    """x_t^i = [z_t^i, onehot(a_{t-1}^i), onehot(i)] -> Linear -> ReLU -> GRU -> Linear."""
    h: Array = np.zeros((N, p["agent.gru.weight_hh_l0"].shape[1]))
    out = History([], [])
    for t in range(episode.meta.length + 1):
        last = np.eye(A)[episode.actions[t - 1]] if t else np.zeros((N, A))
        x = np.concatenate((episode.obs[t], last, np.eye(N)), axis=-1)
        h = gru(p, "agent.gru", relu(linear(p, "agent.embed", x)), h)
        out.h.append(h)
        out.q.append(linear(p, "agent.head", h))
    return out


def best(q_NA: Array, avail_NA: Array) -> Array:
    """The best *available* action of every agent."""
    return np.where(avail_NA, np.real(q_NA), -np.inf).argmax(axis=-1)


def of(q_NA: Array, actions_N: Array) -> Array:
    """The agents' values of these actions, [N]."""
    return q_NA[np.arange(N), actions_N]


def lambda_returns(
    reward_T: Array, terminated: bool, next_value_T: list[Array], *, gamma: float, td_lambda: float
) -> list[Array]:
    """G_t = r_t + gamma [(1 - lambda) V_{t+1} + lambda G_{t+1}], G_L = V_L; nothing follows a true end."""
    g = next_value_T[-1] * (not terminated)
    returns = []
    for t in reversed(range(len(reward_T))):
        last = t == len(reward_T) - 1
        future = g if last else (1 - td_lambda) * next_value_T[t] + td_lambda * g
        g = reward_T[t] + gamma * future
        returns.append(g)
    return returns[::-1]


def sum_mixer(p: Parameters, q_N: Array, s_S: Array) -> Array:
    """VDN (Sunehag et al. 2017)."""
    del p, s_S
    return q_N.sum()


def no_mixer(p: Parameters, q_N: Array, s_S: Array) -> Array:
    """IQL (Tan 1993): every agent's own."""
    del p, s_S
    return q_N


def qmix_mixer(p: Parameters, q_N: Array, s_S: Array) -> Array:
    """Q_tot = W2^T elu(W1^T q + b1) + V(s), |W| from hypernetworks (Rashid et al. 2018, section 4.2)."""
    hyper, embed = p["mixer.w1.weight"].shape[1], p["mixer.w2.weight"].shape[0]
    to_w1, to_w2, b1, to_v = np.split(linear(p, "mixer.first", s_S), [hyper, 2 * hyper, 2 * hyper + embed])
    w1_NE = absolute(linear(p, "mixer.w1", relu(to_w1))).reshape(len(q_N), embed)
    w2_E = absolute(linear(p, "mixer.w2", relu(to_w2)))
    return elu(q_N @ w1_NE + b1) @ w2_E + linear(p, "mixer.v", relu(to_v))[0]


def td_loss(
    mixer: Mixer,
    online: Parameters,
    target: Parameters,
    episodes: list[Episode],
    conditions: list[list[Array]],
    *,
    gamma: float,
    td_lambda: float,
    double_q: bool,
) -> Array:
    """Mean of (Q_tot(tau_t, u_t) - [y_t])^2. With double Q the online network chooses the next action."""
    errors = []
    for e, s in zip(episodes, conditions, strict=True):
        q, q_target = history(online, e).q, history(target, e).q
        chooser, steps = (q if double_q else q_target), range(e.meta.length)
        later = [of(q_target[t + 1], best(chooser[t + 1], e.avail_actions[t + 1])) for t in steps]
        values = [mixer(target, later[t], s[t + 1]) for t in steps]
        y = lambda_returns(e.reward, e.meta.terminated, values, gamma=gamma, td_lambda=td_lambda)
        errors += [mixer(online, of(q[t], e.actions[t]), s[t]) - stop(y[t]) for t in steps]
    return np.mean(np.square(errors))


def qtran_losses(
    online: Parameters, target: Parameters, episodes: list[Episode], *, gamma: float
) -> dict[str, Array]:
    """L_td, L_opt and L_nopt (Son et al. 2019, eq. 4 to 6; PyMARL's joint networks)."""

    def q_jt(p: Parameters, h: Array, u: Array, s: Array) -> Array:
        pairs = np.concatenate((h, np.eye(A)[u]), axis=-1)
        encoded = layers(p, "mixer.encode", pairs, count=2).sum(axis=0)
        return layers(p, "mixer.q", np.concatenate((s, encoded)), count=3)[0]

    td, opt, nopt = [], [], []
    for e in episodes:
        now, then = history(online, e), history(target, e)
        for t in range(e.meta.length):
            u, u_best = e.actions[t], best(now.q[t], e.avail_actions[t])
            u_next = best(now.q[t + 1], e.avail_actions[t + 1])
            ends = e.meta.terminated and t == e.meta.length - 1
            y = e.reward[t] + gamma * (not ends) * q_jt(target, then.h[t + 1], u_next, e.state[t + 1])
            q, v = q_jt(online, now.h[t], u, e.state[t]), layers(online, "mixer.v", e.state[t], count=3)[0]
            td.append(q - stop(y))
            q_best = stop(q_jt(online, now.h[t], u_best, e.state[t]))
            opt.append(of(now.q[t], u_best).sum() - q_best + v)
            nopt.append(-relu(-(of(now.q[t], u).sum() - stop(q) + v)))
    return {name: np.mean(np.square(x)) for name, x in (("td", td), ("opt", opt), ("nopt", nopt))}


def coma_policy(p: Parameters, episode: Episode, epsilon: float) -> list[Array]:
    """pi(. | tau_t) [N, A] of every slot: softmax over what is available, with a floor of epsilon."""
    policies = []
    for z, avail in zip(history(p, episode).q, episode.avail_actions, strict=True):
        likely = np.where(avail, np.exp(z - np.real(z).max()), 0)
        softmax = likely / likely.sum(axis=-1, keepdims=True)
        policies.append((1 - epsilon) * softmax + epsilon * avail / avail.sum(axis=-1, keepdims=True))
    return policies


def coma_critic(p: Parameters, episode: Episode, t: int, u: Array) -> Array:
    """Q(s_t, z_t^i, u_t^{-i}, u_{t-1}, i, .) [N, A]: agent i's own action is not among its inputs."""
    last = np.eye(A)[episode.actions[t - 1]] if t else np.zeros((N, A))
    rows = []
    for i in range(N):
        others = np.eye(A)[u]
        others[i] = 0
        team = np.concatenate((episode.state[t], others.ravel(), last.ravel()))
        own = np.concatenate((episode.obs[t, i], np.eye(N)[i]))
        x = relu(linear(p, "critic.team", team) + linear(p, "critic.own", own))
        rows.append(linear(p, "critic.last", relu(linear(p, "critic.middle", x))))
    return np.array(rows)


def coma_losses(
    online: Parameters,
    target: Parameters,
    episodes: list[Episode],
    last_actions: list[Array],
    *,
    epsilon: float,
    gamma: float,
    td_lambda: float,
) -> dict[str, Array]:
    """L_critic and L_policy (Foerster et al. 2018, eq. 4 and Algorithm 1); last_actions follow each end."""
    critic, policy = [], []
    for e, u_end in zip(episodes, last_actions, strict=True):
        pi, u = coma_policy(online, e, epsilon), [*e.actions, u_end]
        values = [of(coma_critic(target, e, t + 1, u[t + 1]), u[t + 1]) for t in range(e.meta.length)]
        y = lambda_returns(e.reward, e.meta.terminated, values, gamma=gamma, td_lambda=td_lambda)
        for t in range(e.meta.length):
            q = coma_critic(online, e, t, u[t])
            critic.append(of(q, u[t]) - stop(y[t]))
            advantage = of(q, u[t]) - (pi[t] * q).sum(axis=-1)
            policy.append(-stop(advantage) * np.log(of(pi[t], u[t])))
    return {"critic": np.mean(np.square(critic)), "policy": np.mean(policy)}
