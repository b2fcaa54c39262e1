"""The running version of a model: tested before a switch, watched after it, and taken back.

    staged ── verified ── tested ──▶ switched ── pending ── confirmed
       └─────────┴── rejected           └───────────┴── rolling back ── rolled back

The symbolic link `<store>/<name>` names the running version; the journal in `.state/` records how
far a change has come. Each step is on the disk before the next begins, so that after a power cut
the old version or the new one runs, never a mixture.

    change.py         brings a version in: verify, adopt, self-test, switch
    self_test.py      the self-test, in a child process (self_test_child.py)
    versions.py       the folders and the link
    journal.py        the phases of a change, and the decision at a start
    pending.py        the pending version: a start's decision carried out; confirm, roll back
    swap.py           the classifier that changes its model between two frames
    health_check.py   the comparison of a pending version with the one before
    watch.py          the running agent's side: notices, loads, checks
    state.py          rejected versions, and the state of a model's updates
"""
