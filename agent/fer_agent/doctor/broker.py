"""Findings about the broker: its address, its certificate, the login."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from fer_agent.config.model import AgentConfig
from fer_agent.doctor.finding import Finding, edit_command
from fer_agent.errors import AgentError, CredentialsError
from fer_agent.mqtt.connector import Connector
from fer_agent.mqtt.settings import BrokerSettings
from fer_agent.system import clock

_TIMEOUT_S = 5.0
_SET_CLOCK = "sudo timedatectl set-ntp true"


def examine(config: AgentConfig, path: Path) -> Iterator[Finding]:
    """Connect as the agent does, under another client id.

    Args:
        config: the agent's.
        path: its file.
    """
    edit = edit_command(path)
    try:
        settings = BrokerSettings.load(config.mqtt)
    except AgentError as error:
        yield Finding("broker-settings", str(error), error.remedy, edit)
        return
    if settings.tls is not None and clock.clock_synced() is False:
        yield Finding(
            "clock-unsynced",
            "the clock is not kept by NTP, and TLS needs it right",
            "let the system keep its clock",
            _SET_CLOCK,
        )
    try:
        _connect(settings, config.device.id)
    except ssl.SSLCertVerificationError as error:
        yield _untrusted(error, edit)
    except CredentialsError as error:
        yield Finding("broker-credentials", str(error), error.remedy, edit)
    except OSError as error:
        cause = f"the broker at {settings} does not answer: {error.strerror or error}"
        yield _unreachable(settings, cause, edit)
    except AgentError as error:
        yield Finding("broker-refused", str(error), error.remedy, edit)


def _connect(settings: BrokerSettings, device_id: str) -> None:
    """Reach the broker's port, see its certificate, and log in.

    Raises:
        OSError: it cannot be reached, or has no good certificate.
        AgentError: it refuses the login.
    """
    address = (settings.address.host, settings.address.port)
    with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
        if settings.tls is not None:
            with settings.tls.wrap_socket(connection, server_hostname=address[0]):
                pass
    # Not the agent's own id: that would throw a running agent off the broker.
    connector = Connector(
        settings, f"fer-agent-{device_id}-doctor-{secrets.token_hex(4)}", timeout_s=_TIMEOUT_S
    )
    connector.connect().close()


def _untrusted(error: ssl.SSLCertVerificationError, edit: str) -> Finding:
    if "not yet valid" in error.verify_message or "expired" in error.verify_message:
        return Finding(
            "tls-clock",
            f"the broker's certificate does not fit this clock: {error.verify_message}",
            "set the clock; if it is right, renew the broker's certificate",
            _SET_CLOCK,
        )
    return Finding(
        "tls-chain",
        f"the broker's certificate is not trusted: {error.verify_message}",
        "set `mqtt.ca_file` to the CA that signed it",
        edit,
    )


def _unreachable(settings: BrokerSettings, cause: str, edit: str) -> Finding:
    if settings.address.host in ("localhost", "127.0.0.1", "::1"):
        start = "sudo systemctl start mosquitto"
        return Finding("broker-unreachable", cause, "start the broker on this device", start)
    remedy = "start the broker, check the network, or correct `mqtt.broker`"
    return Finding("broker-unreachable", cause, remedy, edit)
