"""What a film of a battle shows."""

import dataclasses

import numpy as np
from PIL import Image, ImageSequence

from actor.scene import Scene, Shot
from deploy.battle_film import BLUE, FIELD, GREY, RED, Window, write_film

MOVES = ("north", "east", "south", "west", "stop")
SCENE = Scene(
    n_allies=2,
    positions_U2=np.array([[10, 10], [10, 14], [16, 10], [16, 14]], np.float32),
    health_U=np.array([1, 0.5, 1, 1], np.float32),
    types_U=("marine",) * 4,
)
SHOT = Shot(
    scene=SCENE,
    q_NA=np.arange(14, dtype=np.float32).reshape(2, 7),
    avail_actions_NA=np.ones((2, 7), bool),
    actions_N=np.array([6, 4]),
    step=0,
    episode_return=0.0,
    won=False,
)
OVER = dataclasses.replace(SHOT, actions_N=None, step=1, won=True)


def pictures(tmp_path, *shots):
    """The field of each picture, without the table."""
    file = tmp_path / "new" / "battle.gif"
    assert write_film(file, shots, MOVES) == len(shots)
    with Image.open(file) as film:
        return [picture.convert("RGB").crop((0, 0, FIELD, FIELD)) for picture in ImageSequence.Iterator(film)]


def colour_at(picture, x, y):
    """The nearest of the four colours that matter."""
    pixel = np.array(picture.getpixel((round(x), round(y))), int)
    colours = {"blue": BLUE, "red": RED, "grey": GREY, "ground": "#f7f7f4"}
    return min(colours, key=lambda name: abs(pixel - hex_to_rgb(colours[name])).sum())


def hex_to_rgb(text):
    return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)])


def test_units_are_where_they_are_and_an_attack_points_at_its_target(tmp_path):
    attacking, over = pictures(tmp_path, SHOT, OVER)
    window = Window.around([SCENE])
    ally, enemy, target = (window.place(SCENE.positions_U2[unit]) for unit in (0, 2, 3))
    assert ally[0] < enemy[0] and target[1] < enemy[1], "y goes upwards"
    assert colour_at(over, *ally) == "blue" and colour_at(over, *enemy) == "red"
    middle = np.add(ally, target) / 2
    assert colour_at(attacking, *middle) == "blue"
    assert colour_at(over, *middle) == "ground", "nothing is done when the battle is over"


def test_the_dead_are_crosses_and_do_nothing(tmp_path):
    dead = dataclasses.replace(SCENE, health_U=np.array([0, 1, 1, 0], np.float32))
    (picture,) = pictures(tmp_path, dataclasses.replace(SHOT, scene=dead))
    window = Window.around([SCENE])
    ally, target = (window.place(SCENE.positions_U2[unit]) for unit in (0, 3))
    assert colour_at(picture, *ally) == "grey"
    assert colour_at(picture, *(np.add(ally, target) / 2)) == "ground"


def test_half_the_health_fills_half_the_disc(tmp_path):
    (picture,) = pictures(tmp_path, OVER)
    x, y = Window.around([SCENE]).place(SCENE.positions_U2[1])
    assert colour_at(picture, x, y + 5) == "blue"
    assert colour_at(picture, x, y - 5) == "ground"


def test_everything_that_happens_is_in_the_window():
    away = dataclasses.replace(SCENE, positions_U2=SCENE.positions_U2 + np.float32(9))
    window = Window.around([SCENE, away])
    for scene in (SCENE, away):
        for position_2 in scene.positions_U2:
            assert all(0 < pixel < FIELD for pixel in window.place(position_2))
