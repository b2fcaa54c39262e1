"""Kills the life of a model at random instants; run as a program, it answers with one line of JSON.

    killed_at_random.py STORE TEMPLATES KILLS SEED

It forks a child for each life, so that Python does not start hundreds of times. The child stages a
version, activates it, and does as a running agent: locks the version, confirms or rolls back.
After the kill this process looks at the store as a starting agent would.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from power_cuts import killed, look, take_over
from untried import Untried

from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.change import ModelChange, RejectedBeforeError
from fer_agent.updates.activation.versions import Keep, verify

NAME = "tiny"


def live(store: Path, template: Path, *, good: bool) -> None:
    """Stage, activate, take over, and prove the version or send it back."""
    staged = store / ".staging" / template.name
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(template, staged)
    change = ModelChange(store, Untried(), Keep(versions=3))
    try:
        change.activate_staged(staged, name=NAME)
    except RejectedBeforeError:
        state.unblock(store, NAME, verify(staged, NAME))
        change.activate_staged(staged, name=NAME)
    take_over(store, NAME, good=good)


def main() -> None:
    """Kill as often as asked, not counting lives that ended before, and say what was seen."""
    store, templates = Path(sys.argv[1]), sorted(Path(sys.argv[2]).iterdir())
    kills, dice = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    started_s = time.monotonic()
    for template in templates:
        killed(partial(live, store, template, good=True), after_s=None)
    usual_s = (time.monotonic() - started_s) / len(templates)
    seen, hits, phases = set(), 0, set()
    for _ in range(5 * kills):
        if hits == kills:
            break
        template, good = dice.choice(templates), dice.random() < 0.7
        life = partial(live, store, template, good=good)
        hits += killed(life, after_s=dice.uniform(0, usual_s))
        entry = journal.read(store, NAME)
        phases.add(entry.phase.value if entry is not None else "")
        seen.add(look(store, NAME))
    killed(partial(live, store, templates[0], good=True), after_s=None)
    left = sorted(path.name for path in store.rglob(".part-*"))
    told = {"hits": hits, "seen": sorted(seen), "phases": sorted(phases), "left": left}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
