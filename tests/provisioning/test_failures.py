from __future__ import annotations

import pytest

from fer_provisioning import failures


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7", 75, "lock"),
        ("OSError: [Errno 28] No space left on device", 69, "the disk is full"),
        ("sudo: 3 incorrect password attempts", 77, "refused the password"),
        ("pi is not in the sudoers file.", 77, "become root"),
        ("onnxruntime: illegal instruction on this processor", 69, "onnxruntime"),
        ("Temporary failure in name resolution", 69, "package index"),
        ("ERROR: No matching distribution found for numpy==9", 69, "numpy==9"),
        ("E: Unable to locate package python3-picamera2", 69, "python3-picamera2"),
        ("something nobody foresaw", 69, "something nobody foresaw"),
    ],
)
def test_boards_own_words_become_one_sentence(output: str, code: int, said: str) -> None:
    error = failures.of_step("install packages", ["noise", output])
    assert error.exit_code == code
    assert str(error).startswith("install packages: ")
    assert said in str(error)
    assert error.remedy


def test_silent_failure_says_so() -> None:
    assert "printed nothing" in str(failures.of_step("copy", []))


@pytest.mark.parametrize(
    ("reason", "code", "said"),
    [
        ("SSH host key error (Host key for x does not match.)", 77, "not the one in known_hosts"),
        ("SSH error (StrictPolicy: No host key for x found in known_hosts)", 77, "not known"),
        ("Authentication error (username=pi)", 77, "refused the login"),
        ("Could not resolve hostname (x)", 69, "resolved"),
        ("Could not connect ([Errno 111] Connection refused)", 69, "Connection refused"),
    ],
)
def test_failed_connection_is_explained(reason: str, code: int, said: str) -> None:
    error = failures.connecting(reason)
    assert error.exit_code == code
    assert said in str(error)
    assert failures.is_refused_login(reason) == ("Authentication" in reason)
