"""Which version of a model runs: tried before it is switched to, watched after, and taken back.

    staged ── verified ── tried ──▶ switched ── on probation ── confirmed
       └─────────┴── refused            └────────────┴── rolling back ── rolled back

The symbolic link `<store>/<name>` is the truth about what runs; the journal in `.state/` says how
far a change has come. Each step is on the disk before the next begins, so that a power cut
anywhere leaves the old version or the new one, never a mixture.

    change.py     brings a version in: verify, adopt, try, switch
    trial.py      the trial, in a child process (trial_child.py)
    versions.py   the folders and the link
    journal.py    the steps, and what a start makes of them
    probation.py  what a start settles; confirm, roll back
    swap.py       the classifier that changes its model between two frames
    watch.py      the running agent's side: notices, loads, judges
    state.py      refusals, and what the rest of the agent may know
"""
