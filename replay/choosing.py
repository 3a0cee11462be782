"""Which episodes of an accounted table make a batch.

    P(i) = p_i^alpha / sum_k p_k^alpha                    (Schaul et al. 2016, equation 1)
    w_i  = (N P(i))^-beta / max_k w_k = (min_k P(k) / P(i))^beta

p_i is the score of an episode that can be drawn; the maximum is over the whole window, so a weight depends on
its episode and the window alone. beta rises linearly to 1 over the run, as there.
"""

import numpy as np
import numpy.typing as npt

from replay.table import Draws, SamplerKind, TableRules, View


def choose(rng: np.random.Generator, view: View, rules: TableRules) -> Draws:
    """A batch, of the table's sampler. At least batch_size episodes of the view can be drawn."""
    candidates = np.flatnonzero(view.scores > 0.0)
    if rules.sampler is SamplerKind.FIFO:
        chosen = candidates[: rules.batch_size]
    elif rules.sampler is SamplerKind.UNIFORM:
        chosen = rng.choice(candidates, rules.batch_size, replace=False)
    else:
        return _prioritised(rng, view, rules, candidates)
    return Draws(indices=_indices(view, chosen))


def _prioritised(
    rng: np.random.Generator, view: View, rules: TableRules, candidates: npt.NDArray[np.intp]
) -> Draws:
    weight = view.scores[candidates] ** rules.alpha
    probability = weight / weight.sum()
    # With replacement P(i) is exact for every draw; an episode's last time cannot be given twice, though.
    replace = rules.max_times_sampled == 0
    places = rng.choice(len(candidates), rules.batch_size, replace=replace, p=probability)
    beta = rules.beta + (1.0 - rules.beta) * view.progress
    importance = (probability.min() / probability[places]) ** beta
    return Draws(indices=_indices(view, candidates[places]), importance=tuple(float(w) for w in importance))


def _indices(view: View, places: npt.NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(int(place) + view.tail for place in places)
