"""What is pushed to the hub comes back from it with its card: by the real client, against a server on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from threading import Thread

import pytest

from interp.errors import UserError
from tests.vectors.hub_server import LOST, TOKEN, Hub
from tests.vectors.toys import make
from vectors import load_vectors
from vectors.hub import pull

CALLS = "import json, sys; from interp.cli import call; print([call(line.split()) for line in json.loads(sys.argv[1])])"


@pytest.fixture
def hub(tmp_path: Path) -> Generator[Hub]:
    server = Hub(tmp_path / "hub")
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def interp(hub: Hub, root: Path, cwd: Path, *commands: str, token: str = TOKEN) -> tuple[list[int], str]:
    """Exit codes and what was said; in a process of its own, because the client reads its settings once."""
    own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cwd / "home"), "HF_TOKEN": token}
    env = {**os.environ, **own, "PYTHONPATH": str(root), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", CALLS, json.dumps(commands)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_vectors_come_back_with_their_card(hub: Hub, root: Path, tmp_path: Path) -> None:
    first = make(name="mine", base_model="toy-model", recipe={"steps": 30}, scores={"accuracy": 0.5})
    second = 2 * first
    for name, vectors in ("first", first), ("second", second):
        vectors.save(tmp_path / name)
    pushed, said = interp(
        hub,
        root,
        tmp_path,
        "vectors push first.safetensors someone/set",
        "vectors convert hf://someone/set back-1.safetensors",
        "vectors push second.safetensors someone/set --public",
        "vectors convert hf://someone/set back-2.safetensors",
        "vectors convert hf://someone/set/vectors.safetensors back-3.safetensors",
        f"vectors push first.safetensors {LOST}/set",
    )
    assert pushed == [0] * 5 + [2], said
    assert "the hub refused: Server disconnected" in said
    assert f"{hub.url}/someone/set" in said
    assert hub.visibility == {"someone/set": "private"}  # the second push made nothing
    assert load_vectors(hub.files("someone/set") / "vectors.safetensors") == second
    for number, vectors in (1, first), (2, second), (3, second):
        back = load_vectors(tmp_path / f"back-{number}.safetensors")
        assert back == vectors
        assert back.card == load_vectors(tmp_path / ("first.safetensors" if number == 1 else "second.safetensors")).card

    older = hub.commits["someone/set"][0]
    found, said = interp(
        hub,
        root,
        tmp_path,
        f"vectors convert hf://someone/set@{older} back-4.safetensors",
        "vectors convert hf://someone/nothing back-5.safetensors",
        "vectors push first.safetensors someone/set",
        token="hf_of_another",
    )
    assert found == [0, 2, 2], said
    assert load_vectors(tmp_path / "back-4.safetensors") == first
    assert "the hub did not give this repository" in said
    assert re.search("the hub refused: .*401", said)
    assert len(hub.commits["someone/set"]) == 2


@pytest.mark.parametrize("address", ["hf://someone", "hf://", "hf://a/b@", "hf:///b/c"])
def test_an_address_names_user_and_repository(address: str) -> None:
    with pytest.raises(UserError, match="no address on the hub"):
        pull(address)
