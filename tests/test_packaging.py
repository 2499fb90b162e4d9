"""An installed wheel holds what the checkout holds, and works without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

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
