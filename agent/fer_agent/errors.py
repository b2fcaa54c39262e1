"""The tree of deliberate errors, with their exit codes.

    AgentError                  70  a bug, if nothing below fits
    ├── UsageError               2  the command line asks for something impossible
    ├── FindingsError            1  a one-shot check found something
    ├── ConfigError             78  the configuration is wrong
    ├── ModelError              78  no usable model
    │   ├── ModelFileError          truncated, missing or of another hash
    │   └── ModelContractError      labels, input or outputs are not what the manifest says
    ├── InferenceError          70  the runtime refused the input or failed while running
    ├── UnavailableError        69  something outside the agent is not there
    │   ├── CameraError             the camera or media file cannot be used
    │   ├── BrokerError             the MQTT broker cannot be reached or hung up
    │   ├── DownloadError           a file could not be fetched
    │   └── MissingExtraError       an optional package is not installed
    ├── TemporaryError          75  try again later
    ├── VerificationError       76  a downloaded update fails verification
    └── CredentialsError        77  user, password or certificate refused

Exit codes follow sysexits(3). Only `cli.py` acts on them.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """An error with one sentence on the fault, with the value, and one on the remedy.

    Attributes:
        remedy: the action that the reader can take; never empty.
        exit_code: the process's exit status when the error ends a command.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class UsageError(AgentError):
    """The command line asks for something impossible."""

    exit_code = 2


class FindingsError(AgentError):
    """A one-shot check ran to its end and found something wrong."""

    exit_code = 1


class ConfigError(AgentError):
    """The configuration is wrong; restarting cannot help."""

    exit_code = 78


class ModelError(AgentError):
    """No usable model; restarting cannot help."""

    exit_code = 78


class ModelFileError(ModelError):
    """A model file is missing, truncated or has another hash than in its manifest."""


class ModelContractError(ModelError):
    """A model's labels, input or outputs differ from its manifest."""


class InferenceError(AgentError):
    """The runtime refused the input or failed while running."""


class UnavailableError(AgentError):
    """Something outside the agent is unavailable."""

    exit_code = 69


class CameraError(UnavailableError):
    """The camera or media file cannot be opened or read."""


class BrokerError(UnavailableError):
    """The MQTT broker cannot be reached, refused the connection or hung up."""


class DownloadError(UnavailableError):
    """A file could not be fetched."""


class MissingExtraError(UnavailableError):
    """An optional package is not installed."""


class TemporaryError(AgentError):
    """Nothing is wrong; trying again later can work."""

    exit_code = 75


class VerificationError(AgentError):
    """A downloaded update fails verification."""

    exit_code = 76


class CredentialsError(AgentError):
    """A user name, password or certificate was refused."""

    exit_code = 77
