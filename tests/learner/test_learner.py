"""The learner against a service over real gRPC: it trains, stops, resumes and fails as it should."""

import dataclasses
import json
import math
import os
import shutil
import threading
from collections import deque

import grpc
import numpy as np
import pytest
import torch

from common import codec, payload
from common.errors import BadInputError, FatalError
from common.exploration import ExplorationSettings
from common.lifecycle import StopSignal
from common.settings import AgentSettings, RpcSettings
from common.types import Evaluation
from learner import checkpoint
from learner.algorithms.qmix import Qmix
from learner.algorithms.registry import ALGORITHMS
from learner.main import run_learner
from learner.settings import ComaSettings, LearnerSettings, OptimiserSettings, WorldModelOptimiserSettings
from learner.startup import choose_device, prepare_torch
from protos import replay_pb2 as pb
from tests.episodes import SPEC, make_episode
from tests.learner.replay_double import BATCH_SIZE, Fault, ReplayDouble, serving

SETTINGS = LearnerSettings(
    algorithm="qmix",
    batch_size=BATCH_SIZE,
    deterministic=True,
    publish_every_steps=1,
    log_every_steps=3,
    health_every_steps=5,
    checkpoint_every_steps=4,
    target_update_episodes=3,
    device="cpu",
)
AGENT = AgentSettings(hidden_size=8)
STEPS = 10


@pytest.fixture(autouse=True)
def torch_as_it_was():
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def learn(rpc, run_dir, *, stop=None, settings=SETTINGS, agent=AGENT, seed=7):
    choice = ALGORITHMS[settings.algorithm].action_choice
    run_learner(
        settings=settings,
        agent=agent.model_copy(update={"action_choice": choice}),
        exploration=ExplorationSettings(),
        rpc=rpc,
        seed=seed,
        run_dir=run_dir,
        stop=stop or StopSignal(),
    )


def changed(section, **changes):
    """SETTINGS with others in one section."""
    inner = getattr(SETTINGS, section).model_copy(update=changes)
    return SETTINGS.model_copy(update={section: inner})


def records(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(run_dir, other):
    ours, theirs = (checkpoint.load(checkpoint.latest(path)) for path in (run_dir, other))
    assert ours.step == theirs.step
    assert ours.weights.data == theirs.weights.data
    assert ours.algorithm.keys() == theirs.algorithm.keys()
    for name, value in ours.algorithm.items():
        torch.testing.assert_close(value, theirs.algorithm[name], rtol=0, atol=0, msg=name)


@pytest.fixture(params=list(ALGORITHMS), scope="module")
def uninterrupted(request, tmp_path_factory):
    """Settings, and the directory of a run from the first batch to the last."""
    run_dir = tmp_path_factory.mktemp(request.param)
    settings = SETTINGS.model_copy(update={"algorithm": request.param})
    with serving(ReplayDouble()) as rpc:
        learn(rpc, run_dir, settings=settings)
    return settings, run_dir


def test_a_run_leaves_weights_records_and_a_checkpoint(tmp_path):
    point = Evaluation(
        env_steps=100, weights_version=3, episodes=32, wins=8, mean_return=5.0, mean_length=9.0
    )
    double = ReplayDouble(evaluations=[codec.evaluation_to_proto(point)])
    double.status.counters.env_steps = 120
    with serving(double) as rpc:
        learn(rpc, tmp_path)
    versions = [weights.version for weights in double.published]
    assert versions == sorted(set(versions))
    assert versions[-1] == STEPS
    saved = checkpoint.load(checkpoint.latest(tmp_path))
    assert (saved.step, saved.spec, saved.settings) == (STEPS, SPEC, SETTINGS)
    assert saved.weights.data == double.published[-1].data
    losses = [(r["learner_step"], r["loss/td"]) for r in records(tmp_path) if "loss/td" in r]
    assert [step for step, _ in losses] == [3, 4, 6, 8, 9, 10]
    assert all(loss > 0 for _, loss in losses)
    last = records(tmp_path)[-1]
    assert last["learner/steps_per_s"] > 0
    assert 0 <= last["learner/data_wait_share"] <= 1
    assert [r["test/win_rate"] for r in records(tmp_path) if "test/win_rate" in r] == [0.25]
    assert (tmp_path / "win_rate.png").exists()


def test_the_world_model_s_health_is_recorded(uninterrupted):
    settings, run_dir = uninterrupted
    steps = [r["learner_step"] for r in records(run_dir) if "world_model/h_explained_k1" in r]
    assert steps == ([5, 10] if settings.algorithm == "vdfd" else [])


def test_losses_are_means_over_the_steps_since_the_last_record(tmp_path, uninterrupted):
    settings, run_dir = uninterrupted
    every_step = settings.model_copy(update={"log_every_steps": 1})
    with serving(ReplayDouble()) as rpc:
        learn(rpc, tmp_path, settings=every_step)
    loss = next(name for name in records(run_dir)[0] if name.startswith("loss/"))
    single = [r[loss] for r in records(tmp_path) if loss in r]
    assert len(single) == STEPS
    for record in records(run_dir):
        if record["learner_step"] in (3, 4) and loss in record:
            steps = single[:3] if record["learner_step"] == 3 else single[3:4]
            assert record[loss] == pytest.approx(np.mean(steps), rel=1e-5)
    assert_same_training(tmp_path, run_dir)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path, uninterrupted):
    settings, run_dir = uninterrupted
    stop, double = StopSignal(), ReplayDouble(faults=deque([Fault(batches=5, code=None)]))
    with serving(double) as rpc:
        training = threading.Thread(
            target=learn, args=(rpc, tmp_path), kwargs={"stop": stop, "settings": settings}
        )
        training.start()
        double.wait_for(lambda: double.published and double.published[-1].version == 5)
        stop.set()
        training.join()
        assert checkpoint.load(checkpoint.latest(tmp_path)).step == 5
        learn(rpc, tmp_path, settings=settings, seed=8)
    assert double.opened == [0, 5]
    assert len({weights.session for weights in double.published}) == 2
    assert_same_training(tmp_path, run_dir)


def test_a_learner_that_failed_goes_on_from_its_last_checkpoint(tmp_path, uninterrupted):
    settings, run_dir = uninterrupted
    fault = Fault(batches=7, code=grpc.StatusCode.INVALID_ARGUMENT)
    double = ReplayDouble(faults=deque([fault]))
    with serving(double) as rpc:
        with pytest.raises(FatalError, match="INVALID_ARGUMENT"):
            learn(rpc, tmp_path, settings=settings)
        learn(rpc, tmp_path, settings=settings)
    assert double.opened == [0, 4]
    assert_same_training(tmp_path, run_dir)


LOWER = {
    "qmix": "lower learner.optimiser.learning_rate if",
    "vdfd": "lower learner.optimiser.learning_rate or learner.world_model.optimiser.learning_rate if",
    "coma": "lower learner.optimiser.learning_rate or learner.coma.critic_learning_rate if",
}


@pytest.mark.parametrize("name", LOWER)
def test_a_loss_that_is_not_finite_ends_training_before_it_is_saved(tmp_path, name):
    loss = "loss/critic" if name == "coma" else "loss/td"
    episodes = [make_episode(length=3, seq=i) for i in range(1, BATCH_SIZE + 1)]
    broken = dataclasses.replace(episodes[0], reward=np.full(3, np.nan, dtype=np.float32))
    messages = [codec.episode_to_proto(payload.encode_episode(e)) for e in (broken, *episodes[1:])]
    edit = {7: [pb.SampleResponse(batch=7, episodes=messages, end_of_batch=True)]}
    double = ReplayDouble(edit=edit)
    with (
        serving(double) as rpc,
        pytest.raises(
            FatalError, match=f"{loss}.* between learner steps 7 and 8.*step_00000004: .*{LOWER[name]}"
        ),
    ):
        learn(rpc, tmp_path, settings=SETTINGS.model_copy(update={"algorithm": name}))
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 4
    assert [r[loss] for r in records(tmp_path) if r["learner_step"] == 8] == [None]
    assert max(weights.version for weights in double.published) <= 7


@pytest.mark.parametrize("publish_every_steps", [2, 100])
def test_weights_broken_by_a_gradient_are_neither_published_nor_saved(
    tmp_path, monkeypatch, publish_every_steps
):
    """At step 6, before a loss can show it: the loss of that step was computed with the weights before."""
    train_step = Qmix.train_step

    def overflowing(algorithm, batch):
        figures = train_step(algorithm, batch)
        if algorithm.steps == 6:
            figures["grad_norm/value"] = torch.tensor(math.nan)
            algorithm.agent.head.bias.data.fill_(math.nan)
        return figures

    monkeypatch.setattr(Qmix, "train_step", overflowing)
    intervals = {"log_every_steps": 100, "checkpoint_every_steps": 3}
    settings = SETTINGS.model_copy(update={**intervals, "publish_every_steps": publish_every_steps})
    double = ReplayDouble()
    with (
        serving(double) as rpc,
        pytest.raises(FatalError, match="grad_norm/value was not finite between learner steps 4 and 6"),
    ):
        learn(rpc, tmp_path, settings=settings)
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 3
    assert max(weights.version for weights in double.published) <= 4
    assert [r["grad_norm/value"] for r in records(tmp_path) if r["learner_step"] == 6] == [None]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"settings": SETTINGS.model_copy(update={"algorithm": "vdfd"})}, "learner.algorithm = qmix"),
        ({"settings": changed("world_model", latent_size=8)}, "learner.world_model.latent_size = 16"),
        ({"settings": changed("qtran", embed_size=8)}, "learner.qtran.embed_size = 64"),
        (
            {"settings": changed("world_model", optimiser=WorldModelOptimiserSettings(name="rmsprop"))},
            "learner.world_model.optimiser.name = adam",
        ),
        ({"agent": AgentSettings(hidden_size=9)}, "agent = hidden_size=8"),
        ({"spec": dataclasses.replace(SPEC, map="other")}, "environment's map = tiny"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_not_taken_up(tmp_path, changes, problem):
    with serving(ReplayDouble()) as rpc:
        learn(rpc, tmp_path)
    other = ReplayDouble()
    other.status.spec.CopyFrom(codec.spec_to_proto(changes.pop("spec", SPEC)))
    with serving(other) as rpc, pytest.raises(FatalError, match=f"step_00000010 was made with {problem}"):
        learn(rpc, tmp_path, **changes)
    assert other.published == []


def test_a_checkpoint_is_taken_up_with_smaller_steps(uninterrupted, tmp_path):
    """What the learner advises after a loss that was not finite."""
    settings, run_dir = uninterrupted
    shutil.copytree(run_dir / "checkpoints", tmp_path / "checkpoints")
    smaller = {"learning_rate": 1e-5, "max_grad_norm": 1.0}
    of_model = WorldModelOptimiserSettings(**smaller)
    changes = {
        "optimiser": OptimiserSettings(**smaller),
        "world_model": settings.world_model.model_copy(update={"optimiser": of_model}),
        "coma": ComaSettings(critic_learning_rate=1e-5),
    }
    with serving(ReplayDouble(total_batches=STEPS + 1)) as rpc:
        learn(rpc, tmp_path, settings=settings.model_copy(update=changes))
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == STEPS + 1


def test_a_learner_waits_for_the_first_actor_and_can_be_stopped_there(tmp_path):
    double, stop = ReplayDouble(), StopSignal()
    double.status.ClearField("spec")
    with serving(double) as rpc:
        waiting = threading.Thread(target=learn, args=(rpc, tmp_path), kwargs={"stop": stop})
        waiting.start()
        double.wait_for(lambda: double.status_calls >= 2)
        stop.set()
        waiting.join()
        assert double.opened == []
        training = threading.Thread(target=learn, args=(rpc, tmp_path))
        training.start()
        double.wait_for(lambda: double.status_calls >= 4)
        with double.changed:
            double.status.spec.CopyFrom(codec.spec_to_proto(SPEC))
        training.join()
    assert double.opened == [0]


def test_a_missing_service_is_one_sentence_with_its_address(tmp_path):
    with serving(ReplayDouble()) as rpc:
        pass
    hasty = RpcSettings(address=rpc.address, connect_timeout_s=0.3)
    with pytest.raises(FatalError, match=rf"no replay service answers at {rpc.address} \(UNAVAILABLE"):
        learn(hasty, tmp_path)


def test_a_run_directory_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with (
        serving(ReplayDouble()) as rpc,
        pytest.raises(FatalError, match=rf"cannot write to {tmp_path}.*exists"),
    ):
        learn(rpc, tmp_path)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "xpu", "meta"])
def test_a_device_that_is_not_there_is_bad_input(name):
    with pytest.raises(BadInputError, match=name):
        choose_device(name)


def test_auto_takes_the_gpu_if_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_computes_recurrent_layers_in_full_precision():
    """As the actors do on the CPU."""
    torch.backends.cudnn.allow_tf32 = True
    prepare_torch(SETTINGS, seed=1)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
