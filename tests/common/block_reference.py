"""A block as common/payload.py describes it, word by word: what the compiled kernels are compared with."""

from dataclasses import dataclass, fields

import lz4.block
import numpy as np


def bits(rows):
    return np.packbits(rows, axis=-1, bitorder="little").tobytes()


def flags(data, rows, size):
    """[rows, size]"""
    return (
        np.unpackbits(np.frombuffer(data, "u1").reshape(rows, -1), axis=1, count=size, bitorder="little") > 0
    )


@dataclass(kw_only=True)
class Block:
    """The parts of an episode's block, in their order."""

    obs_marks: bytes
    state_marks: bytes
    changes: bytes
    widths: bytes
    reward: bytes
    avail_actions: bytes
    actions: bytes

    @classmethod
    def of(cls, episode, *, half=False):
        slots = len(episode.state)
        float_type, word_type = ("<f2", "<u2") if half else ("<f4", "<u4")
        marks, changes, widths = [], [], []
        for floats in (episode.obs.reshape(slots, -1), episode.state):
            words = floats.astype(float_type).view(word_type)
            before = np.concatenate((np.zeros_like(words[:1]), words[:-1]))
            marks.append(bits(words != before))
            for change in (words ^ before)[words != before]:
                data = change.tobytes()
                widths.append(data[-1] != 0)
                changes.append(data if widths[-1] else data[:-1])
        return cls(
            obs_marks=marks[0],
            state_marks=marks[1],
            changes=b"".join(changes),
            widths=bits(np.array(widths, bool)),
            reward=episode.reward.astype("<f4").tobytes(),
            avail_actions=bits(episode.avail_actions.reshape(slots, -1)),
            actions=episode.actions.tobytes(),
        )

    @classmethod
    def read(cls, data, spec, length, *, half=False):
        """The parts of a block; ValueError if its size is not what its marks say."""
        slots, n = length + 1, spec.n_agents
        sizes = {
            "obs_marks": slots * bytes_of(n * spec.obs_size),
            "state_marks": slots * bytes_of(spec.state_size),
            "reward": 4 * length,
            "avail_actions": slots * bytes_of(n * spec.n_actions),
            "actions": length * n,
        }
        marks_end = sizes["obs_marks"] + sizes["state_marks"]
        marked = int(np.bitwise_count(np.frombuffer(data[:marks_end], "u1")).sum())
        sizes["widths"] = bytes_of(marked)
        sizes["changes"] = len(data) - sum(sizes.values())
        if sizes["changes"] < 0:
            raise ValueError("too short")
        parts, at = {}, 0
        for field in fields(cls):
            parts[field.name] = data[at : at + sizes[field.name]]
            at += sizes[field.name]
        wide = int(np.bitwise_count(np.frombuffer(parts["widths"], "u1")).sum())
        if sizes["changes"] != (1 if half else 3) * marked + wide:
            raise ValueError("not as many bytes as the marks say")
        block = cls(**parts)
        block.check_ends_of_rows(spec, slots, marked)
        return block

    def check_ends_of_rows(self, spec, slots, marked):
        n = spec.n_agents
        for data, rows, size in (
            (self.obs_marks, slots, n * spec.obs_size),
            (self.state_marks, slots, spec.state_size),
            (self.widths, 1, marked),
        ):
            if data and bits(flags(data, rows, size)) != data:
                raise ValueError("a bit behind the end of a row")

    def floats(self, spec, length, *, half=False):
        """Obs [T+1, N*O] and state [T+1, S]."""
        slots, narrow = length + 1, 1 if half else 3
        marked = sum(
            int(np.bitwise_count(np.frombuffer(m, "u1")).sum()) for m in (self.obs_marks, self.state_marks)
        )
        widths = iter(flags(self.widths, 1, marked)[0] if marked else [])
        at, found = 0, []
        for marks, size in (
            (self.obs_marks, spec.n_agents * spec.obs_size),
            (self.state_marks, spec.state_size),
        ):
            words, row = [], np.zeros(size, "<u2" if half else "<u4")
            for slot in flags(marks, slots, size):
                for column in np.flatnonzero(slot):
                    end = at + narrow + int(next(widths))
                    row[column] ^= int.from_bytes(self.changes[at:end], "little")
                    at = end
                words.append(row.copy())
            found.append(np.array(words).view("<f2" if half else "<f4"))
        return tuple(found)

    def data(self):
        return b"".join(getattr(self, field.name) for field in fields(self))

    def payload(self):
        return lz4.block.compress(self.data(), store_size=False)


def bytes_of(number):
    return -(-number // 8)
