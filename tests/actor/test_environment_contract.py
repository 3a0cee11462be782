"""What the play loop takes for granted, asked of every registered environment."""

import numpy as np

from actor.policy import random_actions

ALL = np.ones(4, bool)
SEEDS = np.array([11, 12, 2**63 + 13, 14], np.uint64)


def play(environment, seeds, rng, *, steps):
    """Random play of all copies; what each step led to. No copy is reset."""
    frame = environment.reset(ALL, seeds)
    results = []
    for _ in range(steps):
        results.append(environment.step(random_actions(frame.avail_actions_KNA, rng)))
        frame = results[-1].frame
    return results


def first_end(results, copy):
    return next(t for t, result in enumerate(results) if result.done_K[copy])


def check_frame(frame, spec, copies):
    for array, shape, dtype in (
        (frame.obs_KNO, (copies, spec.n_agents, spec.obs_size), np.float32),
        (frame.state_KS, (copies, spec.state_size), np.float32),
        (frame.avail_actions_KNA, (copies, spec.n_agents, spec.n_actions), np.bool_),
    ):
        assert (array.shape, array.dtype) == (shape, dtype)
    assert np.isfinite(frame.obs_KNO).all() and np.isfinite(frame.state_KS).all()
    assert frame.avail_actions_KNA.any(axis=-1).all()


def test_sizes_and_types_are_those_of_the_spec(environment, rng):
    assert environment.copies == 4
    check_frame(environment.reset(ALL, SEEDS), environment.spec, 4)
    result = play(environment, SEEDS, rng, steps=1)[0]
    check_frame(result.frame, environment.spec, 4)
    assert (result.reward_K.shape, result.reward_K.dtype) == ((4,), np.float32)
    for flags in (result.done_K, result.terminated_K, result.won_K, result.void_K):
        assert (flags.shape, flags.dtype) == ((4,), np.bool_)


def test_episodes_end_within_the_limit_and_are_terminated_once_at_most(environment, rng):
    spec = environment.spec
    results = play(environment, SEEDS, rng, steps=spec.episode_limit)
    for copy in range(4):
        end = first_end(results, copy)
        last = results[end]
        assert last.terminated_K[copy] or end + 1 == spec.episode_limit
        assert last.terminated_K[copy] or not last.won_K[copy]
        assert not any(result.terminated_K[copy] for result in results[:end])


def test_an_episode_that_lasts_to_the_limit_is_not_terminated(environment):
    """Of agents that only do what they always can; where nothing else ends their episode before."""
    spec = environment.spec
    environment.reset(ALL, SEEDS)
    fallback = np.full((4, spec.n_agents), spec.fallback_action)
    results = [environment.step(fallback) for _ in range(spec.episode_limit)]
    cut = [copy for copy in range(4) if first_end(results, copy) + 1 == spec.episode_limit]
    assert not results[-1].terminated_K[cut].any()


def test_equal_seeds_and_actions_give_equal_episodes_in_any_copy(environment):
    swapped = np.array([3, 2, 1, 0])
    first = play_recorded(environment, SEEDS)
    again = play_recorded(environment, SEEDS[swapped], actions=[actions[swapped] for actions, _ in first])
    for (_, result), (_, other) in zip(first, again, strict=True):
        np.testing.assert_array_equal(result.frame.obs_KNO, other.frame.obs_KNO[swapped])
        np.testing.assert_array_equal(result.frame.state_KS, other.frame.state_KS[swapped])
        np.testing.assert_array_equal(result.reward_K, other.reward_K[swapped])
        np.testing.assert_array_equal(result.done_K, other.done_K[swapped])


def play_recorded(environment, seeds, *, actions=None):
    rng = np.random.default_rng(3)
    frame = environment.reset(ALL, seeds)
    np.testing.assert_array_equal(environment.seeds_K, seeds)
    played = []
    for step in range(10):
        chosen = random_actions(frame.avail_actions_KNA, rng) if actions is None else actions[step]
        result = environment.step(chosen)
        played.append((chosen, result))
        frame = result.frame
    return played


def test_different_seeds_give_different_episodes(environment):
    frame = environment.reset(ALL, SEEDS)
    assert len({row.tobytes() for row in frame.obs_KNO}) == 4
    high_half_differs = environment.reset(ALL, np.array([1, 1 + 2**32, 1 + 2**63, 2], np.uint64))
    assert len({row.tobytes() for row in high_half_differs.obs_KNO}) == 4


def test_a_reset_leaves_the_other_copies_alone(environment, rng):
    before = play(environment, SEEDS, rng, steps=3)[-1].frame
    mask = np.array([False, True, False, True])
    after = environment.reset(mask, np.arange(4, dtype=np.uint64))
    for name in ("obs_KNO", "state_KS", "avail_actions_KNA"):
        old, new = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(new[~mask], old[~mask])
        assert name == "avail_actions_KNA" or not np.array_equal(new[mask], old[mask])
    np.testing.assert_array_equal(environment.seeds_K, [11, 1, 2**63 + 13, 3])


def test_a_finished_copy_shows_its_last_frame_until_it_is_reset(environment, rng):
    frame = environment.reset(ALL, SEEDS)
    fresh = frame.state_KS
    for _ in range(environment.spec.episode_limit):
        result = environment.step(random_actions(frame.avail_actions_KNA, rng))
        frame = result.frame
        if result.done_K.any():
            break
    copy = int(np.flatnonzero(result.done_K)[0])
    again = environment.reset(ALL, SEEDS)
    np.testing.assert_array_equal(again.state_KS, fresh)
    assert not np.array_equal(frame.state_KS[copy], again.state_KS[copy])


def test_frames_are_never_written_again(environment, rng):
    results = play(environment, SEEDS, rng, steps=3)
    kept = [result.frame.obs_KNO.copy() for result in results]
    environment.reset(ALL, SEEDS)
    for result, obs in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result.frame.obs_KNO, obs)
