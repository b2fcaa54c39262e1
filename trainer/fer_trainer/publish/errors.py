"""The error classes of publishing, below the agent's.

AgentError
├── FindingsError            1
│   └── PublishedError          the version is there already, with other content
├── VerificationError       76
│   ├── RepositoryError         the folder is no repository, or its signatures do not hold
│   └── ThresholdError          too few of the keys that must sign have signed
└── CredentialsError        77
    └── KeyFileError            a key is not there, not readable, or its password is another
"""

from __future__ import annotations

from fer_agent.errors import CredentialsError, FindingsError, VerificationError


class PublishedError(FindingsError):
    """A version is published already with other content."""


class RepositoryError(VerificationError):
    """A folder is no repository, or what it holds does not verify."""


class ThresholdError(VerificationError):
    """Too few of the keys that must sign metadata have signed it."""


class KeyFileError(CredentialsError):
    """A private key is not there, cannot be read, or has another password."""
