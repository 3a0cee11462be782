"""One client's battles as smac plays them: the only file that imports smac.

The package is used as it is, except that a client that fails is never restarted by it: it would hand out
the broken episode as a defeat, and what it counts the reward scale from would be counted twice.

Shapes: N agents.
"""

from typing import Any, NoReturn

from smac.env import StarCraft2Env

from actor.sc2_client import CLIENT_FAILURES, ClientLimits, Controller, guarding


class GameFailedError(Exception):
    """The client failed in the midst of play; its cause says how."""


BATTLE_FAILURES = (GameFailedError, *CLIENT_FAILURES)
"""What a client that fails raises out of a battlefield."""


class Battlefield(StarCraft2Env):  # type: ignore[misc]
    """One client from its launch, which is its first reset, to its end.

    Between two resets there must be a whole episode.
    """

    _controller: Controller | None
    _sc2_proc: object | None
    agents: dict[int, Any]
    enemies: dict[int, Any]
    previous_ally_units: dict[int, Any] | None
    previous_enemy_units: dict[int, Any] | None

    def __init__(self, limits: ClientLimits, **settings: object) -> None:
        super().__init__(**settings)
        self._limits = limits

    def full_restart(self) -> NoReturn:
        """Called in the handling of a failure, in order to start a new client: this one is over instead."""
        raise GameFailedError("the client failed")

    def _launch(self) -> None:
        with guarding(self._limits):
            super()._launch()

    def reset(self) -> None:
        """Begins an episode; what the package returns here is asked for anew after every step anyway."""
        if self._controller is not None:  # else it is launched now, with a deadline of its own
            self._controller.allow(self._limits.answer_s)
        super().reset()
        # While units appear one by one, the package adds those that were there before once more.
        enemies = sum(unit.health_max + unit.shield_max for unit in self.enemies.values())
        if self._episode_count == 0:
            self.max_reward = self.n_enemies * self.reward_death_value + self.reward_win + enemies

    def play(self, actions_N: list[int]) -> tuple[float, bool, dict[str, Any]]:
        """One step; the deadline for it begins now."""
        self._client.allow(self._limits.answer_s)
        reward, over, info = self.step(actions_N)
        return float(reward), bool(over), info

    def replay(self) -> bytes:
        """The client's replay file so far."""
        self._client.allow(self._limits.answer_s)
        data: bytes = self._client.save_replay()
        return data

    @property
    def _client(self) -> Controller:
        if self._controller is None:
            raise ValueError("there is no client before reset() and after close()")
        return self._controller

    @property
    def episodes(self) -> int:
        """Episodes played to their end."""
        return int(self._episode_count)

    def close(self) -> None:
        """Ends the client. May be called twice, and is called again when the process ends."""
        super().close()
        # The package keeps this object for that last call: let go what is large.
        self._sc2_proc = self._controller = self._obs = None
        self.agents, self.enemies = {}, {}
        self.previous_ally_units = self.previous_enemy_units = None
        self.pathing_grid = self.terrain_height = None


def reason_of(error: BaseException) -> str:
    """What happened, from the exception that the package's handling hides."""
    cause = error.__context__ if isinstance(error, GameFailedError) and error.__context__ else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())
