"""After a kill at any instant of a sync the store is as good as before, and the next one works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulated_repository import SimulatedRepository
from syncing_device import NAME, make_files

if TYPE_CHECKING:
    from web_server import WebServer

HERE = Path(__file__).parent


def publications(count: int) -> dict[str, bytes]:
    """A repository after each of its publications, as one site: 0/metadata/..., 1/metadata/..."""
    owner = SimulatedRepository()
    site = {}
    for number in range(count):
        if number:
            owner.remove(NAME, f"1.{number - 1}.0")
        before = set(owner.site)
        owner.add(make_files(f"1.{number}.0", network=os.urandom(50_000)))
        owner.publish()
        new = set(owner.site) - before | {"metadata/timestamp.json"}
        roots = {path for path in owner.site if path.endswith(".root.json")}
        site |= {f"{number}/{path}": owner.site[path] for path in new | roots}
    return site


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [60, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_a_kill_at_random_instants_of_a_sync_leaves_a_whole_version(
    tmp_path: Path, server: WebServer, kills: int
) -> None:
    count = 3 * kills
    server.site = publications(count)
    root_file, store = tmp_path / "root.json", tmp_path / "store"
    root_file.write_bytes(server.site["0/metadata/1.root.json"])
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run(
        [sys.executable, HERE / "sync_killed_at_random.py", store, root_file, server.url,
         str(count), str(kills), str(seed)],
        check=False, timeout=850, capture_output=True, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    told = json.loads(done.stdout)
    assert told["hits"] == kills, told
    # The kills fell before the moves of the link, and after them.
    assert told["seen"] > kills // 20, told
    assert min(told["moved"], told["stayed"]) > kills // 20, told
    # And the sync after the last one is as if nothing had been.
    assert (told["last"], told["ok"]) == (f"1.{count - 1}.0", True), told
    assert (told["staged"], told["cached"]) == ([], []), told
    assert len(told["left"]) <= 4, told
