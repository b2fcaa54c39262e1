"""The trainer's error classes, below the agent's.

AgentError
├── FindingsError            1
│   ├── DataError               a data set is not what its publisher or the user says it is
│   ├── DivergedError           the loss stopped being a number
│   └── ProtocolError           a figure would be reported on the split it was chosen on
├── ConfigError             78
│   └── RecipeError             a recipe has an unknown switch or an impossible value
├── ModelError              78
│   └── CheckpointError         a checkpoint or targets file is of another class list or data
└── TemporaryError          75
    └── StorageError            the disk refused a file; nothing older was touched
"""

from __future__ import annotations

from fer_agent.errors import ConfigError, FindingsError, ModelError, TemporaryError


class DataError(FindingsError):
    """A data set is not what its publisher or the user says it is."""


class DivergedError(FindingsError):
    """The loss stopped being a number; the last good checkpoint stays."""


class ProtocolError(FindingsError):
    """A figure would be reported on the split its checkpoint was chosen on."""


class RecipeError(ConfigError):
    """A recipe has an unknown switch or an impossible value."""


class CheckpointError(ModelError):
    """A checkpoint or targets file is broken, or of another class list or data."""


class StorageError(TemporaryError):
    """The disk refused a file; the older file of that name stays as it was."""
