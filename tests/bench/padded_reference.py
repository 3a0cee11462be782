"""The baseline of `make bench`: QMIX's step as it is usually written, on padded batches with torch.nn.GRU.

The same mathematics and sizes as learner_step.py; whole sequences, no loop over time. Prints one JSON object.
"""

import argparse
import copy
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from tests.bench.learner_step import BATCH, MAPS
from tests.bench.peak_memory import PeakMemory


class Agent(nn.Module):
    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.embed, self.gru, self.head = nn.Linear(inputs, 64), nn.GRU(64, 64), nn.Linear(64, actions)

    def forward(self, x):
        return self.head(self.gru(F.relu(self.embed(x)))[0])


class Mixer(nn.Module):
    def __init__(self, agents: int, state: int) -> None:
        super().__init__()
        self.agents = agents
        self.w1 = nn.Sequential(nn.Linear(state, 64), nn.ReLU(), nn.Linear(64, 32 * agents))
        self.w2 = nn.Sequential(nn.Linear(state, 64), nn.ReLU(), nn.Linear(64, 32))
        self.b1, self.v = (
            nn.Linear(state, 32),
            nn.Sequential(nn.Linear(state, 32), nn.ReLU(), nn.Linear(32, 1)),
        )

    def forward(self, q, state):
        w1 = self.w1(state).abs().unflatten(-1, (self.agents, 32))
        hidden = F.elu((q.unsqueeze(-2) @ w1).squeeze(-2) + self.b1(state))
        return (hidden * self.w2(state).abs()).sum(-1) + self.v(state).squeeze(-1)


def build(map_name: str):
    """A function that makes one training step."""
    torch.manual_seed(0)
    n, obs_size, state_size, actions, limit = MAPS[map_name]
    slots, batch = limit + 1, BATCH
    obs, state = torch.randn(slots, batch, n, obs_size), torch.randn(slots, batch, state_size)
    taken = torch.randint(0, actions, (slots, batch, n))
    avail = (torch.rand(slots, batch, n, actions) < 0.6).scatter(-1, taken.unsqueeze(-1), True)
    reward, mask = torch.rand(limit, batch), torch.ones(limit, batch)
    terminated = torch.zeros(limit, batch)
    terminated[-1] = 1.0
    agent, mixer = Agent(obs_size + actions + n, actions), Mixer(n, state_size)
    target_agent, target_mixer = copy.deepcopy(agent), copy.deepcopy(mixer)
    parameters = [*agent.parameters(), *mixer.parameters()]
    optimiser = torch.optim.RMSprop(parameters, lr=5e-4, alpha=0.99, eps=1e-5)
    ids = torch.eye(n).expand(slots, batch, n, n)

    def unroll(network):
        one_hot = F.one_hot(taken, actions).float()
        last = torch.cat((torch.zeros_like(one_hot[:1]), one_hot[:-1]))
        inputs = torch.cat((obs, last, ids), -1).reshape(slots, batch * n, -1)
        return network(inputs).view(slots, batch, n, actions)

    def step() -> float:
        q = unroll(agent)
        chosen = q[:-1].gather(-1, taken[:-1].unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            best = q[1:].masked_fill(~avail[1:], -torch.inf).argmax(-1, keepdim=True)
            best_q = unroll(target_agent)[1:].gather(-1, best).squeeze(-1)
            y = reward + 0.99 * (1 - terminated) * target_mixer(best_q, state[1:])
        loss = ((mixer(chosen, state[:-1]) - y).square() * mask).sum() / mask.sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10)
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", choices=list(MAPS), default="3m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    step = build(a.map)
    for _ in range(2):
        step()
    memory, times = PeakMemory(), []
    for _ in range(a.repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    row = {"step_ms": 1e3 * statistics.median(times), "step_mb": memory.grown_mb()}
    print(json.dumps({"map": a.map, **{name: round(value, 2) for name, value in row.items()}}))


if __name__ == "__main__":
    main()
