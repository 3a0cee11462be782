"""One file per algorithm; registry.py has the classes. The names can be read without importing torch."""

ALGORITHM_NAMES = ("vdfd", "qmix", "vdn", "iql", "qtran", "coma")
