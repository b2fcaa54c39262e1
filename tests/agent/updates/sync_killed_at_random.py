"""Kills syncs at random instants; run as a program, it answers with one line of JSON.

    sync_killed_at_random.py STORE ROOT_FILE ADDRESS PUBLICATIONS KILLS SEED

Below ADDRESS lies one repository as it was after each of its publications: 0/, 1/, ... Each sync
is of the next. It forks a child for each, so that Python does not start hundreds of times. The
child does what a board does: it fetches, verifies, activates, locks the version, and confirms or
rolls back. After the kill this process looks at the store as a starting agent would.
"""

from __future__ import annotations

import json
import random
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from power_cuts import killed, look, take_over
from syncing_device import NAME, Clock, SyncingDevice

from fer_agent.updates import report


def live(device: SyncingDevice, *, good: bool) -> None:
    """Sync, take over, and prove the version or send it back."""
    device.sync(activate=True)
    take_over(device.store, NAME, good=good)


def main() -> None:
    """Kill as often as asked, not counting syncs that ended before, and say what was seen."""
    store, root_file, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    publications, kills, dice = int(sys.argv[4]), int(sys.argv[5]), random.Random(int(sys.argv[6]))
    device = SyncingDevice(store, f"{address}/0", root_file, Clock())
    good_life = partial(live, device, good=True)
    killed(good_life, after_s=None)  # whatever is loaded at the first time only
    started_s = time.monotonic()
    for number in (1, 2, 3):
        device.url = f"{address}/{number}"
        killed(good_life, after_s=None)
    usual_s = (time.monotonic() - started_s) / 3
    seen, hits, before, moved, stayed = set(), 0, look(store, NAME), 0, 0
    for number in range(4, publications - 1):
        if hits == kills:
            break
        device.url = f"{address}/{number}"
        life = partial(live, device, good=dice.random() < 0.7)
        hit = killed(life, after_s=dice.uniform(0, usual_s))
        hits += hit
        # Other work comes and goes: about one sync of six is to end before its kill.
        usual_s *= 1.05 if hit else 0.8
        found = look(store, NAME)
        moved += found != before
        stayed += found == before
        before = found
        seen.add(found)
    device.url = f"{address}/{publications - 1}"
    killed(good_life, after_s=None)
    last = report.read(store)
    told = {
        "hits": hits,
        "seen": len(seen),
        "moved": moved,
        "stayed": stayed,
        "last": look(store, NAME),
        "ok": last is not None and last.ok,
        "staged": sorted(path.name for path in (store / ".staging").iterdir()),
        "cached": sorted(path.name for path in (store / ".cache").iterdir()),
        "left": sorted(path.name for path in store.rglob(".part-*")),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
