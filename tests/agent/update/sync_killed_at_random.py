"""Kills syncs at random instants; run as a program, it answers with one line of JSON.

    sync_killed_at_random.py STORE ROOT_FILE ADDRESS PUBLICATIONS KILLS SEED

Below ADDRESS lies one repository as it was after each of its publications: 0/, 1/, ... Each sync
is of the next. It forks a child for each, so that Python does not start hundreds of times. The
child does what a board does: it fetches, verifies, activates, takes the lease, and confirms or
rolls back. After the kill this process looks at the store as a starting agent would.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from syncing_device import NAME, Clock, Device

from fer_agent import model_store
from fer_agent.activation.probation import candidates, settle
from fer_agent.activation.versions import verify
from fer_agent.update import report


def live(device: Device, *, good: bool) -> None:
    """Sync, take over, and prove the version or send it back."""
    device.sync(activate=True)
    lease = settle(device.store, NAME)
    if lease is not None:
        if good:
            lease.confirm()
        else:
            lease.roll_back("bad luck")


def look(store: Path) -> str:
    """Start as an agent does; returns the version it would load, whole and verified."""
    lease = settle(store, NAME)
    if lease is not None:
        lease.end()
    if not (store / NAME).is_symlink():
        return ""
    model = next(iter(candidates(store, NAME)))
    # What the link names has to be whole by itself, without falling back to another version.
    assert model.folder == (store / NAME).resolve(), (model.folder, (store / NAME).resolve())
    verify(model.folder, NAME)
    return model_store.find(NAME, store).manifest.version


def in_child(device: Device, *, good: bool, kill_after_s: float | None) -> bool:
    """Run one sync in a child; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(device, good=good)
            status = 0
        except BaseException:  # noqa: BLE001  process boundary
            traceback.print_exc()
        finally:
            os._exit(status)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "a sync ended by a fault of its own"
    return killed


def main() -> None:
    """Kill as often as asked, not counting syncs that ended before, and say what was seen."""
    store, root_file, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    publications, kills, dice = int(sys.argv[4]), int(sys.argv[5]), random.Random(int(sys.argv[6]))
    device = Device(store, f"{address}/0", root_file, Clock())
    in_child(device, good=True, kill_after_s=None)  # whatever is loaded at the first time only
    started_s = time.monotonic()
    for number in (1, 2, 3):
        device.url = f"{address}/{number}"
        in_child(device, good=True, kill_after_s=None)
    usual_s = (time.monotonic() - started_s) / 3
    seen, hits, before, moved, stayed = set(), 0, look(store), 0, 0
    for number in range(4, publications - 1):
        if hits == kills:
            break
        device.url = f"{address}/{number}"
        good = dice.random() < 0.7
        killed = in_child(device, good=good, kill_after_s=dice.uniform(0, usual_s))
        hits += killed
        # Other work comes and goes: about one sync of six is to end before its kill.
        usual_s *= 1.05 if killed else 0.8
        found = look(store)
        assert found, "a version that was there is gone"
        moved += found != before
        stayed += found == before
        before = found
        seen.add(found)
    device.url = f"{address}/{publications - 1}"
    in_child(device, good=True, kill_after_s=None)
    last = report.read(store)
    told = {
        "hits": hits,
        "seen": len(seen),
        "moved": moved,
        "stayed": stayed,
        "last": look(store),
        "ok": last is not None and last.ok,
        "staged": sorted(path.name for path in (store / ".staging").iterdir()),
        "cached": sorted(path.name for path in (store / ".cache").iterdir()),
        "left": sorted(path.name for path in store.rglob(".part-*")),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
