"""How sure a share of so many trials is."""

from math import sqrt

Z_95 = 1.959964


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, also where it is near 0 or 1 (Wilson 1927).

    centre = (p + z^2 / 2n) / (1 + z^2 / n)
    half   = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is no share")
    p, n, z2 = successes / trials, trials, Z_95 * Z_95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
