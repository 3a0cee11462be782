"""How much chance there is in play: actors need it to play, an on-policy learner to know what was played."""

from common.settings import Fraction, PositiveInt, Settings


class ExplorationSettings(Settings):
    """The share of random available actions; it falls linearly in the run's global step count."""

    epsilon_start: Fraction = 1.0
    """epsilon, the share of random available actions, when the run begins."""
    epsilon_finish: Fraction = 0.05
    """epsilon from epsilon_anneal_steps on. Test episodes are played without it."""
    epsilon_anneal_steps: PositiveInt = 50_000
    """Global environment steps, of all actors together."""


def epsilon_at(settings: ExplorationSettings, env_steps: int) -> float:
    """Exploration after `env_steps` steps of all actors together: linear, then constant."""
    progress = min(env_steps / settings.epsilon_anneal_steps, 1.0)
    return settings.epsilon_start + progress * (settings.epsilon_finish - settings.epsilon_start)
