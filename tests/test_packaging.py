"""An installed wheel holds what the checkout holds and works without it, also in an empty environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pandas as pd
import pytest
from pytest_examples import find_examples

from interp.testing import PluginConformance

PACKAGES = ("interp", "vectors", "sae", "experiments", "figures")


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed, outside the influence of this process's path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, root)
    run(*pip, cwd=folder)
    (made,) = folder.glob("small_vectors-*.whl")
    return made


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def entry_points(wheel: Path) -> ConfigParser:
    tables = ConfigParser(delimiters=("=",))
    tables.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    (name,) = (name for name in contents(wheel) if name.endswith("entry_points.txt"))
    tables.read_string(zipfile.ZipFile(wheel).read(name).decode())
    return tables


def test_it_holds_the_five_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in contents(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_it_holds_every_file_of_the_checkout_data_included(wheel: Path, root: Path) -> None:
    listed = run("git", "ls-files", *PACKAGES, cwd=root).splitlines()
    assert {name for name in listed if (root / name).exists()} <= contents(wheel)


def test_each_entry_point_names_a_module_of_the_wheel(wheel: Path) -> None:
    tables, held = entry_points(wheel), contents(wheel)
    assert tables["console_scripts"]["interp"] == "interp.cli:main"
    for group in tables.sections():
        for name, target in tables[group].items():
            path = target.partition(":")[0].replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & held, f"{group}: {name} = {target}"


def test_the_licence_and_the_command_stand_in_its_metadata(wheel: Path) -> None:
    (name,) = (name for name in contents(wheel) if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(name).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    assert any("licenses/LICENSE" in held for held in contents(wheel))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the libraries it needs are those of this one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    run(sys.executable, "-m", "pip", "--python", venv, "install", "-q", "--no-deps", wheel, cwd=venv.parent)
    (site,) = venv.glob("lib/python*/site-packages")
    # The folder is added without its .pth files, so the checkout stays out of reach.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return venv / "bin"


@pytest.mark.slow
def test_an_installed_wheel_is_used_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import " + ", ".join(PACKAGES) + "; print(*(p.__file__ for p in (" + ", ".join(PACKAGES) + ")), sep='\\n')"
    files = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert len(files) == len(PACKAGES)
    assert not [file for file in files if not Path(file).is_relative_to(installed.parent)]


@pytest.mark.slow
def test_its_command_lists_what_the_checkout_lists(installed: Path, tmp_path: Path) -> None:
    here = Path(sys.executable).parent / "interp"
    assert run(installed / "interp", "list", cwd=tmp_path) == run(here, "list", cwd=tmp_path)


@pytest.fixture(scope="module")
def plugin(installed: Path, root: Path) -> Path:
    """The same environment with tests/plugin_package."""
    package = root / "tests" / "plugin_package"
    pip = (sys.executable, "-m", "pip", "--python", installed / "python", "install", "-q", "--no-deps")
    run(*pip, "--no-build-isolation", package, cwd=installed)
    return installed


@pytest.mark.slow
def test_an_installed_plugin_of_every_kind_conforms(plugin: Path, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "tests" / "plugin_package" / "tests" / "test_conformance.py", tmp_path)
    said = run(plugin / "python", "-m", "pytest", "-q", "-p", "no:xdist", "-rs", "test_conformance.py", cwd=tmp_path)
    tests = [name for name in vars(PluginConformance) if name.startswith("test_")]
    assert re.search(rf"^{len(tests)} passed in", said, re.MULTILINE), said  # and none skipped


@pytest.mark.slow
def test_every_command_sees_it(plugin: Path, tmp_path: Path) -> None:
    listed = run(plugin / "interp", "list", cwd=tmp_path)
    mine = {line.split()[0] for line in listed.splitlines() if "small-vectors-example" in line}
    assert {"example", "example-model", "example-task", "example-csv", "example-one-path"} <= mine, listed
    assert run(plugin / "interp", "example", "Ada", cwd=tmp_path) == "hello Ada\n"
    command = "run example-one-path --model example-model --vectors untrained --task example-task --n 2 --layer 0"
    (folder,) = run(plugin / "interp", *command.split(), cwd=tmp_path).split()
    assert (tmp_path / folder / "figure.html").is_file()


@pytest.fixture(scope="module")
def empty(wheel: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what pip takes for it, nothing else."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv,
        "install",
        "-q",
        "--no-compile",
        "-c",
        root / "constraints.txt",
    )
    run(*pip, "torch", cwd=venv.parent)  # first, as in the Makefile
    run(*pip, wheel, cwd=venv.parent)
    return venv / "bin"


def shown(readme: str, start: str) -> list[str]:
    """Arguments of a command that the README shows."""
    (command,) = re.findall(rf"({re.escape(start)}[^`\n]*)", readme)
    return command.split()[1:]


@pytest.fixture
def readme(root: Path, tmp_path: Path) -> str:
    """Its text; its Python lies in the test's folder, under the names that it gives."""
    file = root / "README.md"
    for name, block in zip(("jupyter.py", "last_token_kl.py", "mine.py"), find_examples(file), strict=True):
        (tmp_path / name).write_text(block.source)
    return file.read_text()


@pytest.mark.slow
def test_the_readme_s_first_block_runs_in_an_empty_environment(empty: Path, readme: str, tmp_path: Path) -> None:
    held = {
        one["name"] for one in json.loads(run(empty / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path))
    }
    assert "small-vectors" in held
    assert not {"pytest", "ruff", "ray", "openai"} & held
    with (tmp_path / "jupyter.py").open("a") as file:
        file.write("\nimport interp; print(interp.__file__, len(run.frame), len(run.figure().data))")
        file.write("\nassert {*run.frame} == {*TokenSubstitution.columns}\n")
    where, rows, traces = run(empty / "python", "jupyter.py", cwd=tmp_path).split()[-3:]
    assert Path(where).is_relative_to(empty.parent)
    assert int(rows) > 0
    assert int(traces) > 0


@pytest.mark.slow
def test_its_plugin_runs_there_by_its_path(empty: Path, readme: str, tmp_path: Path) -> None:
    (folder,) = run(empty / "interp", *shown(readme, "interp run ./last_token_kl.py"), cwd=tmp_path).split()
    frame = pd.read_parquet(tmp_path / folder / "frame.parquet")
    none, once, thrice = (frame.kl[frame.factor == factor] for factor in (0, 1, 3))
    assert (none == 0).all()
    assert 0 < once.mean() < thrice.mean()


@pytest.mark.slow
def test_its_patch_runs_there_by_its_path(empty: Path, readme: str, tmp_path: Path) -> None:
    small = ("--scale", "smoke", "--n", "2", "--draws", "1", "--generated", "", "--sweep", "", "--no-factorial")
    folder = run(empty / "interp", *shown(readme, "interp run path-patching"), *small, cwd=tmp_path).split()[-1]
    frame = pd.read_parquet(tmp_path / folder / "frame.parquet")
    assert {"skip-attn", "./mine.py:KEYS_ONLY"} <= set(frame.patch)
