"""SMAC behind the environment protocol: one battlefield after the other, a new one where the last has failed.

Shapes: K copies (always 1), N agents, O obs, S state, A actions.
"""

import logging
import threading
from collections import Counter
from pathlib import Path

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_any
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_random_exponential

from actor.environment import EnvironmentStats, Frame, IntArray, SeedArray, StepResult
from actor.sc2_battlefield import BATTLE_FAILURES, Battlefield, reason_of
from actor.sc2_client import ClientLimits, check_version
from actor.smac import SmacOptions
from common.errors import FatalError
from common.types import BoolArray, EnvSpec

log = logging.getLogger(__name__)

NO_OP = 0
"""The first action, and all that a dead agent can do."""
LONGEST_PAUSE_S = 5.0
"""Between two launches that fail."""


class SmacEnvironment:
    """One battle of a map in one client. See actor.environment.Environment."""

    copies = 1

    def __init__(self, *, map_name: str, options: SmacOptions) -> None:
        check_version(options.game_version)
        self._map, self._options = map_name, options
        self._stopping = threading.Event()
        self.seeds_K: SeedArray = np.zeros(1, np.uint64)
        sizes = self._new_battlefield().get_env_info()
        self.spec = EnvSpec(
            env="smac",
            map=map_name,
            n_agents=sizes["n_agents"],
            n_actions=sizes["n_actions"],
            obs_size=sizes["obs_shape"],
            state_size=sizes["state_shape"],
            episode_limit=sizes["episode_limit"],
            fallback_action=NO_OP,
        )
        self._frame = _empty_frame(self.spec)
        self._field: Battlefield | None = None
        self._playing = False
        self._failed_in_a_row = 0
        """In play, since the last episode that was finished."""
        self._counts: Counter[str] = Counter()

    def reset(self, mask_K: BoolArray, seeds_K: SeedArray) -> Frame:
        """Begins an episode; in a new client if the last one failed, is old or has not finished its episode.

        The game takes a seed when it is launched only. FatalError: it cannot be launched, or client after
        client fails without having finished an episode.
        """
        if not mask_K[0]:
            return self._frame
        field = self._field
        if field is not None and (self._playing or field.episodes >= self._options.recycle_episodes):
            self._counts["recycled"] += 1
            self._end_client()
        elif field is not None:
            try:
                field.reset()
            except BATTLE_FAILURES as error:
                self._give_up_client(error)
        if self._field is None:
            self._field = self._launch(int(seeds_K[0]))
            self.seeds_K = np.array(seeds_K, np.uint64)
        if self._field is not None:
            self._playing = True
            self._frame = _frame_of(self._field)
        return self._frame

    def step(self, actions_KN: IntArray) -> StepResult:
        """Plays one step; if the client fails the episode is void and the client is gone.

        FatalError: so many have failed in a row that another one would as well.
        """
        field = self._field
        if field is None:
            if self._stopping.is_set():
                return self._result(void=True)
            raise ValueError("step() without reset()")
        try:
            reward, over, info = field.play(actions_KN[0].tolist())
            replay = field.replay() if over and self._options.replay_dir is not None else None
        except BATTLE_FAILURES as error:
            self._give_up_client(error)
            return self._result(void=True)
        if replay is not None:
            self._save(replay)
        self._playing = not over
        if over:
            self._failed_in_a_row = 0
        self._frame = _frame_of(field)
        return self._result(
            reward=reward,
            done=over,
            terminated=over and not info.get("episode_limit", False),
            won=info["battle_won"],
        )

    def stats(self) -> EnvironmentStats:
        """Figures since the environment was made."""
        return EnvironmentStats(
            launched=self._counts["launched"],
            failed=self._counts["failed"],
            recycled=self._counts["recycled"],
        )

    def interrupt(self) -> None:
        """Ends a launch that is under way, and the wait for an answer."""
        self._stopping.set()

    def close(self) -> None:
        """Ends the client. May be called twice."""
        self._end_client()

    def _new_battlefield(self, seed: int | None = None) -> Battlefield:
        options = self._options
        return Battlefield(
            ClientLimits(
                launch_s=options.launch_timeout_s, answer_s=options.answer_timeout_s, stopping=self._stopping
            ),
            map_name=self._map,
            difficulty=options.difficulty,
            game_version=options.game_version,
            seed=seed,
            obs_last_action=options.obs_last_action,
            state_last_action=options.state_last_action,
            continuing_episode=True,  # only so that `info` tells when the time limit ended an episode
        )

    def _launch(self, seed: int) -> Battlefield | None:
        """A client whose first episode has begun; None if the process was asked to stop before that."""
        retry = Retrying(
            retry=retry_if_exception_type(BATTLE_FAILURES),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
            stop=stop_any(
                stop_after_attempt(self._options.launch_attempts), stop_when_event_set(self._stopping)
            ),
            sleep=sleep_using_event(self._stopping),
            before_sleep=_log_failed_launch,
            reraise=True,
        )
        try:
            return retry(self._launch_once, seed)
        except BATTLE_FAILURES as error:
            if self._stopping.is_set():
                return None
            raise FatalError(
                f"StarCraft II could not be launched {self._options.launch_attempts} times in a row "
                f"({reason_of(error)}); see whether it runs by itself, and whether memory and disk suffice."
            ) from error

    def _launch_once(self, seed: int) -> Battlefield:
        field = self._new_battlefield(seed % 2**31)  # the protocol's field is 32 bits wide
        self._counts["launched"] += 1
        try:
            field.reset()
        except BaseException:
            self._counts["failed"] += 1
            field.close()
            raise
        return field

    def _give_up_client(self, error: Exception) -> None:
        self._counts["failed"] += 1
        self._failed_in_a_row += 1
        self._end_client()
        if self._failed_in_a_row >= self._options.client_attempts:
            raise FatalError(
                f"{self._failed_in_a_row} clients of StarCraft II in a row failed in play, with no episode "
                f"finished ({reason_of(error)}); see whether it runs by itself, and whether a step needs "
                f"more time than env.options.answer_timeout_s={self._options.answer_timeout_s:g}."
            ) from error
        log.warning("a StarCraft II client failed and is replaced: %s", reason_of(error))

    def _end_client(self) -> None:
        field, self._field, self._playing = self._field, None, False
        if field is not None:
            field.close()

    def _save(self, replay: bytes) -> None:
        """The file of a client grows with its episodes: each time it is written anew."""
        file = Path(self._options.replay_dir or "", f"{self._map}-seed{self.seeds_K[0]}.SC2Replay")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(replay)
        except OSError as error:
            raise FatalError(f"The replay {file} cannot be written: {error.strerror}.") from error

    def _result(
        self,
        *,
        reward: float = 0.0,
        done: bool = False,
        terminated: bool = False,
        won: bool = False,
        void: bool = False,
    ) -> StepResult:
        return StepResult(
            frame=self._frame,
            reward_K=np.array([reward], np.float32),
            done_K=np.array([done]),
            terminated_K=np.array([terminated]),
            won_K=np.array([won]),
            void_K=np.array([void]),
        )


def _frame_of(field: Battlefield) -> Frame:
    return Frame(
        obs_KNO=np.array([field.get_obs()], np.float32),
        state_KS=np.array([field.get_state()], np.float32),
        avail_actions_KNA=np.array([field.get_avail_actions()], np.bool_),
    )


def _empty_frame(spec: EnvSpec) -> Frame:
    return Frame(
        obs_KNO=np.zeros((1, spec.n_agents, spec.obs_size), np.float32),
        state_KS=np.zeros((1, spec.state_size), np.float32),
        avail_actions_KNA=np.zeros((1, spec.n_agents, spec.n_actions), np.bool_),
    )


def _log_failed_launch(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("a launch of StarCraft II failed and is tried again: %s", reason_of(error) if error else "")
