#!/usr/bin/env python3
"""A small stand-in for the StarCraft II Linux client, for tests only.

It answers the part of the SC2 API (protobuf over a websocket at /sc2api) that
`smac.env.StarCraft2Env` uses, on top of a simple seeded combat simulation, so
that the real `smac` + `pysc2` stack can be run without the game.  The combat
is NOT the game's: no number learned against it says anything about SMAC.

    sc2_standin.py install DIR       make a fake $SC2PATH at DIR
    SC2PATH=DIR python my_smac_program.py

pysc2 starts  DIR/Versions/Base75689/SC2_x64 -listen H -port P -dataDir D -tempDir T
and that stub execs this file with `serve`.

Environment of the server process:
  SC2_STANDIN_LOG    append one line per request to this file
  SC2_STANDIN_FAULT  comma list of KIND@N[:VALUE], N counted in `step` requests
                     crash@N     exit(1) without answering
                     hang@N:S    sleep S seconds before answering
                     drop@N      close the websocket, process stays alive
                     error@N     answer with Response.error set
                     slow@N:S    from now on sleep S seconds before every answer
  SC2_STANDIN_RANDOM_FAULTS
                     chance of each `step` request to meet one of these faults
  SC2_STANDIN_LATE_UNITS
                     that many units of the enemy are not seen until the first step
  SC2_STANDIN_BOOT   seconds to wait before listening (a slow start)

Needs: websockets, s2clientprotocol (with gencode that the installed protobuf
accepts).  Written from the public protocol description (s2client-proto) and
from what the smac client sends.
"""

import argparse
import math
import os
import random
import re
import sys
import time
from pathlib import Path

GAME_VERSION, BASE_BUILD = "4.10.0", 75689
LOOPS_PER_SEC = 22.4  # game loops a second at speed "faster"
MAP_W = MAP_H = 32
# the pathable part of the SMAC marine maps (grid printed in oxwhirl/smac issue 11)
PATH_X, PATH_Y = (2, 30), (7, 25)
RL_BASE = 2000  # first id of the passive copies that SMAC maps give to agents
MOVE, ATTACK, STOP, HEAL = 16, 23, 4, 386


class Kind:
    """Static numbers of one unit type (close to the game's, not exact)."""

    def __init__(
        self,
        type_id,
        hp,
        shield,
        dmg,
        rng,
        cd,
        speed,
        radius,
        armor=0,
        hits=1,
        splash=0.0,
        energy=0,
        flying=False,
        suicide=False,
        bio=True,
    ):
        self.type_id, self.hp, self.shield = type_id, hp, shield
        self.dmg, self.rng, self.cd = dmg, rng, cd * LOOPS_PER_SEC
        self.speed, self.radius = speed / LOOPS_PER_SEC, radius
        self.armor, self.hits, self.splash = armor, hits, splash
        self.energy, self.flying, self.suicide, self.bio = energy, flying, suicide, bio


KINDS = {
    "marine": Kind(48, 45, 0, 6, 5, 0.61, 3.15, 0.375),
    "marauder": Kind(51, 125, 0, 10, 6, 1.07, 3.15, 0.5625, armor=1),
    "medivac": Kind(54, 150, 0, 0, 4, 0, 3.5, 0.75, armor=1, energy=200, flying=True, bio=False),
    "stalker": Kind(74, 80, 80, 13, 6, 1.34, 4.13, 0.625, armor=1, bio=False),
    "zealot": Kind(73, 100, 50, 8, 0.1, 0.86, 3.15, 0.5, armor=1, hits=2),
    "colossus": Kind(4, 200, 150, 10, 7, 1.07, 3.15, 1.0, armor=1, hits=2, splash=1.0, bio=False),
    "baneling": Kind(9, 30, 0, 20, 0.25, 0.6, 3.5, 0.375, splash=2.2, suicide=True),
    "zergling": Kind(105, 35, 0, 5, 0.1, 0.5, 4.13, 0.375),
    "hydralisk": Kind(107, 80, 0, 12, 5, 0.59, 3.15, 0.625),
    "spine": Kind(98, 300, 0, 25, 7, 1.32, 0.0, 0.9, armor=2),
}
LETTER = {
    "m": "marine",
    "M": "marauder",
    "V": "medivac",
    "s": "stalker",
    "z": "zealot",
    "c": "colossus",
    "b": "baneling",
    "g": "zergling",
    "h": "hydralisk",
    "S": "spine",
}
# map: (allies, enemies, ally kinds in order of their RL unit id)
MAPS = {
    "3m": ("3m", "3m", "m"),
    "8m": ("8m", "8m", "m"),
    "25m": ("25m", "25m", "m"),
    "5m_vs_6m": ("5m", "6m", "m"),
    "8m_vs_9m": ("8m", "9m", "m"),
    "10m_vs_11m": ("10m", "11m", "m"),
    "27m_vs_30m": ("27m", "30m", "m"),
    "MMM": ("1V2M7m", "1V2M7m", "MmV"),
    "MMM2": ("1V2M7m", "1V3M8m", "MmV"),
    "2s3z": ("2s3z", "2s3z", "sz"),
    "3s5z": ("3s5z", "3s5z", "sz"),
    "3s5z_vs_3s6z": ("3s5z", "3s6z", "sz"),
    "3s_vs_3z": ("3s", "3z", "s"),
    "3s_vs_4z": ("3s", "4z", "s"),
    "3s_vs_5z": ("3s", "5z", "s"),
    "1c3s5z": ("1c3s5z", "1c3s5z", "csz"),
    "2m_vs_1z": ("2m", "1z", "m"),
    "corridor": ("6z", "24g", "z"),
    "6h_vs_8z": ("6h", "8z", "h"),
    "2s_vs_1sc": ("2s", "1S", "s"),
    "so_many_baneling": ("7z", "32b", "z"),
    "bane_vs_bane": ("4b20g", "4b20g", "bg"),
    "2c_vs_64zg": ("2c", "64g", "c"),
}


def roster(code):
    return [LETTER[k] for n, k in re.findall(r"(\d+)([A-Za-z])", code) for _ in range(int(n))]


class Unit:
    __slots__ = (
        "cd",
        "energy",
        "hp",
        "kind",
        "order",
        "owner",
        "quiet",
        "shield",
        "tag",
        "type_id",
        "x",
        "y",
    )

    def __init__(self, tag, kind, type_id, owner, x, y):
        self.tag, self.kind, self.type_id, self.owner = tag, kind, type_id, owner
        self.x, self.y = x, y
        self.hp, self.shield = float(kind.hp), float(kind.shield)
        self.energy = kind.energy / 4.0
        self.cd = 0.0
        self.order = None  # (ability, target unit or None, x, y)
        self.quiet = 9999  # loops since last hurt


class Battle:
    """Two armies on an empty square; the passive side obeys, the other hunts."""

    def __init__(self, map_name, seed):
        self.allies, self.enemies, self.rl_order = MAPS[map_name]
        self.rng = random.Random(seed)
        self.loop = 0
        self.next_tag = 0x100000000
        self.units, self.dead, self.empty_for = {}, [], 0
        self.spawn()

    def spawn(self):
        for owner, code, cx in ((1, self.allies, 9.0), (2, self.enemies, 23.0)):
            names = roster(code)
            cols = max(1, math.ceil(math.sqrt(len(names)) / 1.5))
            for i, name in enumerate(names):
                kind = KINDS[name]
                letter = next(k for k, v in LETTER.items() if v == name)
                type_id = RL_BASE + self.rl_order.index(letter) if owner == 1 else kind.type_id
                row, col = divmod(i, cols)
                rows = (len(names) + cols - 1) // cols
                x = cx + (col - (cols - 1) / 2.0) * 1.3 * (1 if owner == 2 else -1)
                y = 16.0 + (row - (rows - 1) / 2.0) * 1.3
                self.next_tag += 1
                self.units[self.next_tag] = Unit(self.next_tag, kind, type_id, owner, x, y)

    def command(self, ability, tags, target_tag=None, pos=None):
        """Returns False when no unit could take the order."""
        target = self.units.get(target_tag) if target_tag is not None else None
        if target_tag is not None and target is None:
            return False
        hit = False
        for tag in tags:
            u = self.units.get(tag)
            if u is None or u.owner != 1:
                continue
            hit = True
            if ability == STOP:
                u.order = None
            elif pos is not None:
                u.order = (MOVE, None, pos[0], pos[1])
            else:
                u.order = (ability, target, 0.0, 0.0)
        return hit

    def kill(self, tags):
        for tag in tags:
            if self.units.pop(tag, None) is not None:
                self.dead.append(tag)

    @staticmethod
    def gap(a, b):
        return math.hypot(a.x - b.x, a.y - b.y) - a.kind.radius - b.kind.radius

    def walk(self, u, x, y):
        dx, dy = x - u.x, y - u.y
        d = math.hypot(dx, dy)
        if d <= u.kind.speed or d == 0.0:
            u.x, u.y = x, y
            arrived = True
        else:
            u.x += dx / d * u.kind.speed
            u.y += dy / d * u.kind.speed
            arrived = False
        self.fence(u)
        return arrived

    @staticmethod
    def fence(u):
        u.x = min(max(u.x, PATH_X[0] + 0.01), PATH_X[1] - 0.01)
        u.y = min(max(u.y, PATH_Y[0] + 0.01), PATH_Y[1] - 0.01)

    def hurt(self, u, dmg, hits):
        for _ in range(hits):
            on_shield = min(u.shield, dmg)
            u.shield -= on_shield
            left = dmg - on_shield
            if left > 0:
                u.hp -= max(left - u.kind.armor, 0.5)
        u.quiet = 0

    def engage(self, u, t, pending):
        """Chase and hit t.  Damage lands after every unit has acted."""
        k = u.kind
        if self.gap(u, t) > k.rng:
            if k.speed > 0:
                self.walk(u, t.x, t.y)
            return
        if k.dmg and u.cd <= 0:
            u.cd = k.cd + self.rng.randint(-1, 2)  # the game also jitters the delay
            pending.append((t, k.dmg, k.hits))
            if k.splash:
                for o in self.units.values():
                    if o.owner == t.owner and o is not t and math.hypot(o.x - t.x, o.y - t.y) <= k.splash:
                        pending.append((o, k.dmg, k.hits))
            if k.suicide:
                pending.append((u, 1e9, 1))

    def heal(self, u, t):
        if self.gap(u, t) > u.kind.rng:
            self.walk(u, t.x, t.y)
        elif u.energy > 0 and t.hp < t.kind.hp:
            gain = min(12.6 / LOOPS_PER_SEC, t.kind.hp - t.hp)
            t.hp += gain
            u.energy = max(0.0, u.energy - gain / 3.0)

    def act(self, u, foes, friends, pending):
        k = u.kind
        if u.owner == 1:  # passive copies: only what they are told
            if u.order is None:
                return
            ability, target, x, y = u.order
            if target is not None and target.tag not in self.units:
                u.order = None
            elif ability == MOVE:
                if self.walk(u, x, y):
                    u.order = None
            elif ability == HEAL and k.energy:
                self.heal(u, target)
            elif ability == ATTACK and k.dmg:
                self.engage(u, target, pending)
            return
        if k.energy:  # the other side's healer
            hurt = [f for f in friends if f.kind.bio and f.hp < f.kind.hp]
            if hurt:
                self.heal(u, min(hurt, key=lambda f: (self.gap(u, f), f.tag)))
            elif friends and foes:
                f = min(foes, key=lambda e: (self.gap(u, e), e.tag))
                if self.gap(u, f) > 7:
                    self.walk(u, f.x, f.y)
            return
        target = u.order[1] if u.order else None
        if target is None or target.tag not in self.units or self.gap(u, target) > k.rng:
            target = min(foes, key=lambda e: (self.gap(u, e), e.tag), default=None)
            u.order = (ATTACK, target, 0.0, 0.0) if target else None
        if target is not None:
            self.engage(u, target, pending)

    def separate(self):
        us = [u for u in self.units.values() if not u.kind.flying and u.kind.speed > 0]
        for i, a in enumerate(us):
            for b in us[i + 1 :]:
                dx, dy = b.x - a.x, b.y - a.y
                r = a.kind.radius + b.kind.radius
                if abs(dx) >= r or abs(dy) >= r:
                    continue
                d = math.hypot(dx, dy)
                if d >= r:
                    continue
                if d < 1e-6:
                    dx, dy, d = 1e-3, 1e-3 * (1 if a.tag % 2 else -1), 1.5e-3
                s = (r - d) / 2.0 / d
                a.x -= dx * s
                a.y -= dy * s
                b.x += dx * s
                b.y += dy * s
                self.fence(a)
                self.fence(b)

    def tick(self):
        self.loop += 1
        if not self.units:  # what the trigger in the SMAC maps does
            self.empty_for += 1
            if self.empty_for >= 2:
                self.empty_for = 0
                self.spawn()
            return
        sides = {o: [u for u in self.units.values() if u.owner == o] for o in (1, 2)}
        pending = []
        for u in list(self.units.values()):
            u.cd = max(0.0, u.cd - 1.0)
            u.quiet += 1
            if u.quiet > 10 * LOOPS_PER_SEC and u.shield < u.kind.shield:
                u.shield = min(u.kind.shield, u.shield + 2.0 / LOOPS_PER_SEC)
            if u.kind.energy:
                u.energy = min(u.kind.energy, u.energy + 0.7875 / LOOPS_PER_SEC)
            self.act(u, sides[3 - u.owner], [f for f in sides[u.owner] if f is not u], pending)
        for t, dmg, hits in pending:
            self.hurt(t, dmg, hits)
        self.kill([u.tag for u in self.units.values() if u.hp <= 0])
        self.separate()


class Server:
    def __init__(self, log=None, faults=()):
        from s2clientprotocol import sc2api_pb2 as sc

        self.sc = sc
        self.status = sc.launched
        self.battle, self.map_name, self.seed = None, None, 0
        self.steps, self.faults = 0, dict(faults)
        self.slow_s = 0.0
        self.log = Path(log).open("a", buffering=1) if log else None  # noqa: SIM115
        self.late_units = int(os.environ.get("SC2_STANDIN_LATE_UNITS", "0"))
        self.random_faults = float(os.environ.get("SC2_STANDIN_RANDOM_FAULTS", "0"))

    def fault(self, kind):
        return self.faults.pop((kind, self.steps), None)

    def handle(self, data):
        """bytes of a Request -> bytes of a Response; None: quit; '' : drop."""
        req = self.sc.Request.FromString(data)
        name = req.WhichOneof("request")
        if self.log:
            self.log.write(f"{name} {len(data)}\n")
        if name == "quit":
            return None
        res = self.sc.Response()
        if req.HasField("id"):
            res.id = req.id
        if name == "step":
            self.steps += 1
            if random.random() < self.random_faults:
                self.faults[(random.choice(("crash", "hang", "drop", "error")), self.steps)] = ""
            if self.fault("crash") is not None:
                os._exit(1)
            nap = self.fault("hang")
            if nap is not None:
                time.sleep(float(nap or 3600))
            self.slow_s = float(self.fault("slow") or self.slow_s)
            if self.fault("drop") is not None:
                return b""
            if self.fault("error") is not None:
                res.error.append("stand-in: injected error")
                res.status = self.status
                return res.SerializeToString()
        time.sleep(self.slow_s)
        method = getattr(self, "on_" + str(name), None)
        if method is None:
            res.error.append(f"stand-in: {name} is not supported")
        else:
            getattr(res, name).SetInParent()
            method(getattr(req, name), getattr(res, name))
        res.status = self.status
        return res.SerializeToString()

    def need(self, *states):
        return self.status in states

    def on_ping(self, req, res):
        res.game_version, res.base_build, res.data_build = GAME_VERSION, BASE_BUILD, BASE_BUILD
        res.data_version = "STANDIN"

    def on_create_game(self, req, res):
        path = req.local_map.map_path
        name = Path(path).stem
        if name not in MAPS:
            res.error = self.sc.ResponseCreateGame.InvalidMapName
            res.error_details = f"stand-in knows no map {path!r}"
            return
        if len(req.player_setup) != 2:
            res.error = self.sc.ResponseCreateGame.InvalidPlayerSetup
            return
        self.map_name = name
        self.seed = req.random_seed if req.HasField("random_seed") else random.getrandbits(31)
        self.status = self.sc.init_game

    def on_join_game(self, req, res):
        if self.status != self.sc.init_game:
            res.error = self.sc.ResponseJoinGame.LaunchError
            return
        self.battle = Battle(self.map_name, self.seed)
        res.player_id = 1
        self.status = self.sc.in_game

    def on_restart_game(self, req, res):
        self.battle = Battle(self.map_name, self.seed)
        self.status = self.sc.in_game

    def on_game_info(self, req, res):
        res.map_name = self.map_name
        raw = res.start_raw
        raw.map_size.x, raw.map_size.y = MAP_W, MAP_H
        raw.playable_area.p0.x = raw.playable_area.p0.y = 0
        raw.playable_area.p1.x, raw.playable_area.p1.y = MAP_W, MAP_H
        row = sum(1 << (MAP_W - 1 - x) for x in range(*PATH_X)).to_bytes(MAP_W // 8, "big")
        ground = b"".join(row if PATH_Y[0] <= y < PATH_Y[1] else bytes(len(row)) for y in range(MAP_H))
        for grid, bits, data in (
            (raw.pathing_grid, 1, ground),
            (raw.placement_grid, 1, ground),
            (raw.terrain_height, 8, bytes([127]) * (MAP_W * MAP_H)),
        ):
            grid.bits_per_pixel = bits
            grid.size.x, grid.size.y = MAP_W, MAP_H
            grid.data = data

    def on_observation(self, req, res):
        b, obs = self.battle, res.observation
        obs.game_loop = b.loop
        obs.player_common.player_id = 1
        obs.player_common.army_count = sum(u.owner == 1 for u in b.units.values())
        seen = list(b.units.values())
        if b.loop == 0 and self.late_units:
            seen = seen[: -self.late_units]
        for u in seen:
            k, m = u.kind, obs.raw_data.units.add()
            m.tag, m.unit_type, m.owner = u.tag, u.type_id, u.owner
            m.alliance, m.display_type = (1, 1) if u.owner == 1 else (4, 1)
            m.pos.x, m.pos.y, m.pos.z = u.x, u.y, 0.0
            m.radius, m.is_flying = k.radius, k.flying
            m.health, m.health_max = u.hp, k.hp
            if k.shield:
                m.shield, m.shield_max = u.shield, k.shield
            if k.energy:
                m.energy, m.energy_max = u.energy, k.energy
            if u.owner == 1:
                m.weapon_cooldown = u.cd
        obs.raw_data.event.dead_units.extend(b.dead)
        del b.dead[:]

    def on_action(self, req, res):
        for action in req.actions:
            c = action.action_raw.unit_command
            which = c.WhichOneof("target")
            ok = self.battle.command(
                c.ability_id,
                c.unit_tags,
                target_tag=c.target_unit_tag if which == "target_unit_tag" else None,
                pos=(c.target_world_space_pos.x, c.target_world_space_pos.y)
                if which == "target_world_space_pos"
                else None,
            )
            res.result.append(1 if ok else 2)  # Success / NotSupported

    def on_step(self, req, res):
        for _ in range(req.count or 1):
            self.battle.tick()
        res.simulation_loop = self.battle.loop

    def on_debug(self, req, res):
        for command in req.debug:
            if command.WhichOneof("command") == "kill_unit":
                self.battle.kill(list(command.kill_unit.tag))

    def on_save_replay(self, req, res):
        res.data = f"SC2-STANDIN-REPLAY {self.map_name} seed={self.seed} loop={self.battle.loop}".encode()

    def on_leave_game(self, req, res):
        self.battle, self.status = None, self.sc.launched

    def on_available_maps(self, req, res):
        res.local_map_paths.extend(f"SMAC_Maps/{m}.SC2Map" for m in sorted(MAPS))


def parse_faults(text):
    out = {}
    for item in filter(None, (text or "").split(",")):
        kind, _, rest = item.strip().partition("@")
        at, _, value = rest.partition(":")
        out[(kind, int(at))] = value
    return out


def serve(host, port):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve as ws_serve

    time.sleep(float(os.environ.get("SC2_STANDIN_BOOT", 0)))
    server = Server(
        os.environ.get("SC2_STANDIN_LOG"), parse_faults(os.environ.get("SC2_STANDIN_FAULT")).items()
    )

    def client(ws):
        try:
            while True:
                # pysc2 sends its protobuf bytes in text frames: take them raw
                answer = server.handle(ws.recv(decode=False))
                if answer is None:
                    os._exit(0)
                if not answer:
                    ws.socket.close()
                    return
                ws.send(answer)
        except ConnectionClosed:
            pass

    with ws_serve(client, host, port, max_size=None, compression=None, ping_interval=None) as s:
        print(f"SC2 stand-in (not StarCraft II) on {host}:{port}", file=sys.stderr)
        s.serve_forever()


def install(root):
    """Makes a folder that looks like an installed game; returns it."""
    root = Path(root)
    exe = root / "Versions" / f"Base{BASE_BUILD}" / "SC2_x64"
    maps = root / "Maps" / "SMAC_Maps"
    for folder in (exe.parent, maps, root / "Replays", root / "Libs"):
        folder.mkdir(parents=True, exist_ok=True)
    exe.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" serve "$@"\n')
    exe.chmod(0o755)
    for name in MAPS:
        (maps / f"{name}.SC2Map").write_text(f"stand-in for {name}; not a StarCraft II map\n")
    return root


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "serve":
        p = argparse.ArgumentParser()
        p.add_argument("-listen", default="127.0.0.1")
        p.add_argument("-port", type=int, required=True)
        a, _ = p.parse_known_args(sys.argv[2:])
        serve(a.listen, a.port)
    elif len(sys.argv) == 3 and sys.argv[1] == "install":
        print(install(sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
