from __future__ import annotations

import pytest

from fer_agent import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.AgentError, 70),
        (errors.UsageError, 2),
        (errors.FindingsError, 1),
        (errors.ConfigError, 78),
        (errors.ModelFileError, 78),
        (errors.ModelContractError, 78),
        (errors.InferenceError, 70),
        (errors.CameraError, 69),
        (errors.BrokerError, 69),
        (errors.DownloadError, 69),
        (errors.MissingExtraError, 69),
        (errors.TemporaryError, 75),
        (errors.VerificationError, 76),
        (errors.CredentialsError, 77),
    ],
)
def test_each_family_ends_the_process_with_its_own_code(
    kind: type[errors.AgentError], exit_code: int
) -> None:
    error = kind("it broke", remedy="mend it")
    assert isinstance(error, errors.AgentError)
    assert (str(error), error.remedy, error.exit_code) == ("it broke", "mend it", exit_code)


def test_an_error_without_a_remedy_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        errors.AgentError("it broke")  # type: ignore[call-arg]  # the remedy is what is missing
