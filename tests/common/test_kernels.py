"""The compiled kernels do what a slow reading of the format does, and touch no memory but their arrays'."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import payload
from common.kernels import checking
from common.kernels.checking import check
from common.kernels.packing import SLACK, pack
from common.kernels.unpacking import unpack
from common.types import EnvSpec
from tests.common.block_reference import Block, flags
from tests.common.guarded import guarded
from tests.episodes import make_episode

# Sizes around those of bytes, of groups of marks and of vectors.
SIZES = st.sampled_from([1, 2, 7, 8, 9, 55, 56, 57, 63, 64, 65, 120])
SPECS = st.builds(
    EnvSpec,
    env=st.just("synthetic"),
    map=st.just("any"),
    n_agents=st.integers(1, 3),
    n_actions=st.integers(1, 19),
    obs_size=SIZES,
    state_size=SIZES,
    episode_limit=st.just(6),
    fallback_action=st.just(0),
)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1e-7, 6e-8, 2.0, -3.5, 60_000.0], np.float32)


@st.composite
def games(draw):
    """A spec, and an episode of it in which some values stay, and some are special ones."""
    spec, length = draw(SPECS), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    staying, special = draw(st.sampled_from([0.0, 0.5, 0.97, 1.0])), draw(st.sampled_from([0.0, 0.3]))
    episode = make_episode(spec, length=length, seed=int(rng.integers(2**32)))
    for floats in (episode.obs, episode.state):
        floats[rng.random(floats.shape) < special] = rng.choice(SPECIAL)
        for slot in range(1, length + 1):
            stays = rng.random(floats[slot].shape) < staying
            floats[slot][stays] = floats[slot - 1][stays]
    return spec, episode


def sizes_of(spec):
    return spec.n_agents, spec.n_actions, spec.n_agents * spec.obs_size, spec.state_size


def inputs(blocks, lengths, spec, *, half):
    """What the kernels that read begin with."""
    return (
        guarded(np.frombuffer(b"".join(blocks), np.uint8)),
        guarded(np.cumsum([len(block) for block in blocks])),
        guarded(np.array(lengths)),
        guarded(np.full(len(blocks), 1 if half else 3)),
        sizes_of(spec),
    )


def room_for(spec, rows, steps):
    """Arrays of a batch: obs, state, reward, avail_actions, actions."""
    n = spec.n_agents
    return (
        guarded(np.zeros(rows * n * spec.obs_size, np.uint32)),
        guarded(np.zeros(rows * spec.state_size, np.uint32)),
        guarded(np.zeros(steps, np.uint32)),
        guarded(np.zeros(rows * n * spec.n_actions, np.uint8)),
        guarded(np.zeros(steps * n, np.int64)),
    )


@given(games(), st.booleans())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_packing_gives_the_block_that_is_described(game, half):
    spec, episode = game
    float_type, word_type = (np.float16, np.uint16) if half else (np.float32, np.uint32)
    length = episode.meta.length
    block = guarded(np.zeros(payload.largest_block(spec, length) + SLACK, np.uint8))
    size = pack(
        guarded(episode.obs.astype(float_type).reshape(-1).view(word_type)),
        guarded(episode.state.astype(float_type).reshape(-1).view(word_type)),
        guarded(episode.reward.view(np.uint8)),
        guarded(episode.avail_actions.reshape(-1).view(np.uint8)),
        guarded(episode.actions.reshape(-1)),
        length + 1,
        block,
    )
    expected = Block.of(episode, half=half).data()
    assert size <= payload.largest_block(spec, length)
    assert block[:size].tobytes() == expected
    encoded = payload.encode_episode(episode, half=half)
    assert lz4.block.decompress(encoded.payload, uncompressed_size=10**6) == expected


@given(games(), st.booleans())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_unpacking_gives_what_was_packed(game, half):
    """Two episodes, the second one step shorter, as a batch has them: time by time, the longest first."""
    spec, episode = game
    length, n = episode.meta.length, spec.n_agents
    lengths = [length, max(1, length - 1)]
    episodes = [episode, make_episode(spec, length=lengths[1], seq=2)]
    blocks = [Block.of(one, half=half).data() for one in episodes]
    rows, steps = sum(lengths) + 2, sum(lengths)
    obs, state, reward, avail, actions = targets = room_for(spec, rows, steps)
    row_starts, step_starts = 2 * np.arange(length + 1), 2 * np.arange(length)
    starts = guarded(row_starts), guarded(step_starts)
    assert unpack(*inputs(blocks, lengths, spec, half=half), 0, *starts, *targets)
    for rank, one in enumerate(episodes):
        slots = row_starts[: lengths[rank] + 1] + rank
        stepped = step_starts[: lengths[rank]] + rank
        for words, floats in ((obs, one.obs), (state, one.state)):
            kept = floats.astype(np.float16).astype(np.float32) if half else floats
            got = words.reshape(rows, -1)[slots].reshape(floats.shape)
            np.testing.assert_array_equal(got, kept.view(np.uint32))
        np.testing.assert_array_equal(avail.reshape(rows, n, -1)[slots], one.avail_actions)
        np.testing.assert_array_equal(actions.reshape(steps, n)[stepped], one.actions)
        np.testing.assert_array_equal(reward.view(np.float32)[stepped], one.reward)


@st.composite
def malformed(draw):
    """A game with a block that is changed in a few places, or anything at all."""
    spec, episode = draw(games())
    half = draw(st.booleans())
    data = bytearray(Block.of(episode, half=half).data())
    places = st.integers(0, len(data) - 1)
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=3)):
        data[place] = value
    cut, added = draw(st.none() | places), draw(st.binary(max_size=9))
    anything = draw(st.none() | st.binary(max_size=300))
    garbled = bytes(data[:cut]) + added if anything is None else anything
    return spec, episode, half, draw(st.sampled_from([bytes(data), garbled]))


@given(malformed())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_garbage_is_found_as_a_slow_reader_finds_it(case):
    spec, episode, half, data = case
    length, claimed = episode.meta.length, episode.meta.episode_return
    given_block = inputs([data], [length], spec, half=half)
    found, _ = check(*given_block, guarded(np.array([claimed])))
    expected, obs, state = slowly_checked(data, spec, length, claimed, half=half)
    assert found[0] == expected
    targets = room_for(spec, length + 1, length)
    starts = guarded(np.arange(length + 1)), guarded(np.arange(length))
    assert unpack(*given_block, 0, *starts, *targets) == (expected != checking.BAD_SIZE)
    if expected not in (checking.BAD_SIZE, checking.BAD_OBS, checking.BAD_STATE):
        for words, floats in zip(targets, (obs, state), strict=False):
            np.testing.assert_array_equal(words.view(np.float32), floats.reshape(-1))


def slowly_checked(data, spec, length, claimed, *, half):
    """The fault that is to be found, obs and state."""
    slots, n, a = length + 1, spec.n_agents, spec.n_actions
    try:
        block = Block.read(data, spec, length, half=half)
    except ValueError:
        return checking.BAD_SIZE, None, None
    obs, state = block.floats(spec, length, half=half)
    for floats, fault in ((obs, checking.BAD_OBS), (state, checking.BAD_STATE)):
        if not np.isfinite(floats).all():
            return fault, obs, state
    avail = flags(block.avail_actions, slots, n * a).reshape(slots, n, a)
    for step, actions in enumerate(np.frombuffer(block.actions, "u1").reshape(length, n)):
        for agent, action in enumerate(actions):
            if action >= a:
                return checking.BAD_ACTION, obs, state
            if not avail[step, agent, action]:
                return checking.UNAVAILABLE, obs, state
    if not avail[-1].any(axis=-1).all():
        return checking.NOTHING_AVAILABLE, obs, state
    with np.errstate(invalid="ignore"):
        total = float(np.frombuffer(block.reward, "<f4").sum(dtype="f8"))
    if not math.isfinite(total):
        return checking.BAD_REWARD, obs, state
    near = abs(total - claimed) <= 1e-3 * (1 + abs(total))
    return checking.FINE if near else checking.BAD_RETURN, obs, state


# ---- What was compiled is kept ----

ADDING = """
from common.kernels.compiled import compiled
from common.kernels.more import more

@compiled("int64(int64, int64)")
def add(first, second):
    return more(first) + second
"""
MORE = """
from common.kernels.compiled import part

@part
def more(number):
    return number + 0
"""
USE = "from common.kernels.adding import add; print(add(40, 2), sum(add.stats.cache_hits.values()))"
DIE_WHILE_WRITING = """
import os
from numba.core.caching import IndexDataCacheFile
IndexDataCacheFile._save_data = lambda *_: os._exit(9)
import common.kernels.adding
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of what compiles, with a small function, for run()."""
    package = tmp_path / "common" / "kernels"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    shutil.copy(Path(checking.__file__).with_name("compiled.py"), package)
    (package / "adding.py").write_text(ADDING)
    (package / "more.py").write_text(MORE)
    return tmp_path


def run(tree, code=USE, *, ends_with=0, **variables):
    """The sum, and how often what was compiled before was taken."""
    environment = {"HOME": str(tree / "home"), **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, cwd=tree, stdout=subprocess.PIPE, text=True)
    assert done.returncode == ends_with
    return [int(word) for word in done.stdout.split()]


def change(tree):
    """The sum becomes one more. Another size, because Python takes its own .pyc by that and by the second."""
    (tree / "common" / "kernels" / "more.py").write_text(MORE.replace("+ 0", "+ 1 + 0"))


def beside_source(tree):
    return tree / "common" / "kernels" / "__pycache__"


def keeps_beside_source(tree):
    return {}, beside_source(tree)


def keeps_with_the_user(tree):
    beside_source(tree).write_text("no folder")
    return {}, tree / "home"


def keeps_where_told(tree):
    return {"NUMBA_CACHE_DIR": str(tree / "told")}, tree / "told"


@pytest.mark.parametrize("place", [keeps_beside_source, keeps_with_the_user, keeps_where_told])
def test_what_was_compiled_is_taken_until_a_source_of_the_folder_changes(tree, place):
    variables, folder = place(tree)
    assert run(tree, **variables) == [42, 0]
    assert run(tree, **variables) == [42, 1]
    assert len(list(folder.rglob("*.nbi"))) == 1
    change(tree)
    assert run(tree, **variables) == [43, 0]
    assert run(tree, **variables) == [43, 1]


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_half_a_file_is_compiled_anew(tree, kind):
    assert run(tree) == [42, 0]
    (file,) = beside_source(tree).glob(kind)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run(tree) == [42, 0]
    assert run(tree) == [42, 0]  # what was damaged is gone, and now kept
    assert run(tree) == [42, 1]


def test_who_dies_while_writing_leaves_no_old_code_for_the_new_source(tree):
    assert run(tree) == [42, 0]
    change(tree)
    run(tree, DIE_WHILE_WRITING, ends_with=9)
    assert run(tree) == [43, 0]
    assert run(tree) == [43, 1]


def test_where_nothing_can_be_kept_it_is_compiled_every_time(tree):
    (tree / "common" / "kernels" / "__pycache__").write_text("no folder")
    (tree / "home").write_text("no folder")
    assert run(tree) == [42, 0]
    assert run(tree) == [42, 0]
