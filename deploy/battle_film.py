"""Films of battles: units with their health, what each agent does, and its Q-values, as an animated GIF.

Shapes: U units, N agents, A actions.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from actor.scene import Scene, Shot
from common.types import FloatArray

FIELD = 480
"""Side of the field in pixels; the table of Q-values is to its right."""
ROW, BAR = 17, 130
MARGIN = 10
RADIUS = 11
EDGE = 2.0
"""Of the map, around the outermost positions."""
STEP_MS, END_MS = 250, 2_500
BLUE, RED, GREY, LIGHT, BLACK, WHITE = "#1f5fb4", "#c03028", "#999999", "#e4e4e4", "#111111", "#ffffff"
MOVES = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}

_font = ImageFont.load_default(11)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The square part of the map that is drawn."""

    left: float
    bottom: float
    side: float

    @classmethod
    def around(cls, scenes: Sequence[Scene]) -> Self:
        """The smallest one in which everything happens, and a little more."""
        positions_X2 = np.concatenate([scene.positions_U2 for scene in scenes])
        low, high = positions_X2.min(axis=0), positions_X2.max(axis=0)
        side = float((high - low).max()) + 2 * EDGE
        left, bottom = (low + high) / 2 - side / 2
        return cls(left=float(left), bottom=float(bottom), side=side)

    def place(self, position_2: FloatArray) -> tuple[float, float]:
        """Pixels of a position on the map."""
        x, y = position_2
        return (float(x) - self.left) / self.side * FIELD, (1 - (float(y) - self.bottom) / self.side) * FIELD


def write_film(path: Path, shots: Iterable[Shot], action_names: tuple[str, ...]) -> int:
    """Writes the GIF; the file is replaced as a whole. Returns the number of its pictures."""
    shots = list(shots)
    window = Window.around([shot.scene for shot in shots])
    pictures = [_draw(shot, window, action_names) for shot in shots]
    durations = [STEP_MS] * (len(pictures) - 1) + [END_MS]
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = pictures
    first.save(partial, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
    partial.replace(path)
    return len(pictures)


def _draw(shot: Shot, window: Window, action_names: tuple[str, ...]) -> Image.Image:
    n_agents, n_actions = shot.q_NA.shape
    labels = [*action_names, *(f"attack {target + 1}" for target in range(n_actions - len(action_names)))]
    height = max(FIELD, n_agents * (ROW * 4) + 2 * MARGIN) + ROW + MARGIN
    image = Image.new("RGB", (FIELD + 2 * BAR + 190, height), WHITE)
    draw = ImageDraw.Draw(image)
    _draw_field(draw, shot, window, action_names)
    _draw_table(draw, shot, labels)
    end = "" if shot.actions_N is not None else (", won" if shot.won else ", not won")
    text = f"step {shot.step}, return {shot.episode_return:.2f}{end}"
    draw.text((MARGIN, height - ROW - 2), text, fill=BLACK, font=_font)
    # Few colours: a GIF of a battle is then some 100 KB.
    return image.quantize(32)


def _draw_field(draw: ImageDraw.ImageDraw, shot: Shot, window: Window, action_names: tuple[str, ...]) -> None:
    scene = shot.scene
    draw.rectangle((0, 0, FIELD, FIELD), fill="#f7f7f4", outline=LIGHT)
    points = [window.place(position_2) for position_2 in scene.positions_U2]
    if shot.actions_N is not None:
        for agent, action in enumerate(shot.actions_N):
            if scene.health_U[agent] > 0:
                _draw_action(draw, scene, points, agent, int(action), action_names)
    for unit, (x, y) in enumerate(points):
        _draw_unit(draw, scene, unit, x, y)


def _draw_action(
    draw: ImageDraw.ImageDraw,
    scene: Scene,
    points: list[tuple[float, float]],
    agent: int,
    action: int,
    action_names: tuple[str, ...],
) -> None:
    """A line to the target of an attack, a short one in the direction of a move."""
    x, y = points[agent]
    if action >= len(action_names):
        draw.line((x, y, *points[scene.n_allies + action - len(action_names)]), fill=BLUE, width=2)
    elif action_names[action] in MOVES:
        dx, dy = MOVES[action_names[action]]
        draw.line((x, y, x + 2.2 * RADIUS * dx, y - 2.2 * RADIUS * dy), fill=GREY, width=3)


def _draw_unit(draw: ImageDraw.ImageDraw, scene: Scene, unit: int, x: float, y: float) -> None:
    """A disc, filled from below as far as the unit is healthy, with its type and number."""
    ally = unit < scene.n_allies
    number = unit + 1 if ally else unit - scene.n_allies + 1
    health = float(scene.health_U[unit])
    if health <= 0:
        draw.line((x - 4, y - 4, x + 4, y + 4), fill=GREY)
        draw.line((x - 4, y + 4, x + 4, y - 4), fill=GREY)
        return
    colour = BLUE if ally else RED
    box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
    draw.ellipse(box, fill=WHITE, outline=colour, width=2)
    half_angle = float(np.degrees(np.arccos(np.clip(1 - 2 * health, -1, 1))))
    draw.chord(box, 90 - half_angle, 90 + half_angle, fill=colour, outline=colour)
    label = f"{scene.types_U[unit][:2]}{number}"
    draw.text((x, y - RADIUS - 1), label, fill=BLACK, font=_font, anchor="mb")


def _draw_table(draw: ImageDraw.ImageDraw, shot: Shot, labels: list[str]) -> None:
    """For each agent its best available actions with their Q-values; the chosen one is on top."""
    left = FIELD + 2 * MARGIN
    available = shot.q_NA[shot.avail_actions_NA]
    low, high = float(available.min()), float(available.max())
    for agent, (q_A, avail_A) in enumerate(zip(shot.q_NA, shot.avail_actions_NA, strict=True)):
        top = MARGIN + agent * ROW * 4
        alive = shot.scene.health_U[agent] > 0
        name = f"{shot.scene.types_U[agent]} {agent + 1}" if alive else f"{agent + 1} (dead)"
        draw.text((left, top), name, fill=BLUE if alive else GREY, font=_font)
        if not alive:
            continue
        best = sorted(np.flatnonzero(avail_A), key=lambda action, q=q_A: -q[action])  # type: ignore[misc]
        for row, action in enumerate(itertools.islice(best, 3)):
            y = top + ROW * (row + 1) - 4
            share = (float(q_A[action]) - low) / max(high - low, 1e-9)
            chosen = shot.actions_N is not None and action == shot.actions_N[agent]
            bar = (left + 70, y + 3, left + 70 + max(share * BAR, 1), y + ROW - 4)
            draw.rectangle(bar, fill=BLUE if chosen else LIGHT)
            draw.text((left, y), labels[action], fill=BLACK, font=_font)
            draw.text((left + 80 + BAR, y), f"{q_A[action]:.3f}", fill=BLACK, font=_font)
