"""Kills the life of a model at random instants; run as a program, it answers with one line of JSON.

    killed_at_random.py STORE TEMPLATES KILLS SEED

It forks a child for each life, so that Python does not start hundreds of times. The child stages a
version, activates it, and does what a running agent does: takes the lease, confirms or rolls back.
After the kill this process looks at the store as a starting agent would.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from fer_agent import model_store
from fer_agent.activation import journal, state
from fer_agent.activation.change import Change, RefusedBeforeError
from fer_agent.activation.probation import candidates, settle
from fer_agent.activation.trial import Trial
from fer_agent.activation.trial_child import Report
from fer_agent.activation.versions import Keep, verify

NAME = "tiny"


class Untried(Trial):
    """Passes everything: a trial changes nothing on the disk, and 200 of them take minutes."""

    def run(self, candidate: Path, current: Path | None) -> Report:
        return Report()


def live(store: Path, template: Path, *, good: bool) -> None:
    """Stage, activate, take over, and prove the version or send it back."""
    staged = store / ".staging" / template.name
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(template, staged)
    change = Change(store, Untried(), Keep(versions=3))
    try:
        change.activate_staged(staged, name=NAME)
    except RefusedBeforeError:
        state.forgive(store, NAME, verify(staged, NAME))
        change.activate_staged(staged, name=NAME)
    lease = settle(store, NAME)
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
    model = next(iter(candidates(store, NAME)))
    # What the link names has to be whole by itself, without falling back to another version.
    assert model.folder == (store / NAME).resolve(), (model.folder, (store / NAME).resolve())
    verify(model.folder, NAME)
    found = model_store.find(NAME, store)
    assert found.manifest == model.manifest
    return found.manifest.version


def in_child(store: Path, template: Path, *, good: bool, kill_after_s: float | None) -> bool:
    """Run one life in a child; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(store, template, good=good)
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
    assert killed or os.WEXITSTATUS(status) == 0, "a life ended by a fault of its own"
    return killed


def main() -> None:
    """Kill as often as asked, not counting lives that ended before, and say what was seen."""
    store, templates = Path(sys.argv[1]), sorted(Path(sys.argv[2]).iterdir())
    kills, dice = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    started_s = time.monotonic()
    for template in templates:
        in_child(store, template, good=True, kill_after_s=None)
    usual_s = (time.monotonic() - started_s) / len(templates)
    seen, hits, phases = set(), 0, set()
    for _ in range(5 * kills):
        if hits == kills:
            break
        template, good = dice.choice(templates), dice.random() < 0.7
        hits += in_child(store, template, good=good, kill_after_s=dice.uniform(0, usual_s))
        entry = journal.read(store, NAME)
        phases.add(entry.phase.value if entry is not None else "")
        seen.add(look(store))
    in_child(store, templates[0], good=True, kill_after_s=None)
    left = sorted(path.name for path in store.rglob(".part-*"))
    told = {"hits": hits, "seen": sorted(seen), "phases": sorted(phases), "left": left}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
