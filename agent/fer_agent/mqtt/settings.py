"""The settings of a broker: the configuration's MQTT section, its files read and checked."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Literal

from fer_agent.config.model import BrokerAddress, MqttConfig, parse_broker, read_secret
from fer_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The address, credentials and TLS context of a broker, with every file read and checked.

    Attributes:
        address: host, port and whether TLS is used.
        protocol: auto, 5 or 3.1.1.
        username: empty for none.
        password: None for none; never shown.
        tls: context for TLS, None without.
        keepalive_s: as in the configuration.
    """

    address: BrokerAddress
    protocol: Literal["auto", "5", "3.1.1"]
    username: str
    password: str | None = field(repr=False)
    tls: ssl.SSLContext | None
    keepalive_s: int

    @classmethod
    def load(cls, config: MqttConfig) -> BrokerSettings:
        """Read the files that the configuration names.

        Raises:
            ConfigError: a file is missing or unusable, or the settings contradict each other.
        """
        address = parse_broker(config.broker)
        if config.password_file is not None and not config.username:
            raise ConfigError(
                "`mqtt.password_file` is set but `mqtt.username` is not",
                remedy="set `mqtt.username` too",
            )
        return cls(
            address=address,
            protocol=config.protocol,
            username=config.username,
            password=read_secret(config.password_file) if config.password_file else None,
            tls=_tls_context(config, address),
            keepalive_s=config.keepalive_s,
        )

    def __str__(self) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{host}:{self.address.port}"


def _tls_context(config: MqttConfig, address: BrokerAddress) -> ssl.SSLContext | None:
    files = (config.ca_file, config.client_cert_file, config.client_key_file)
    if not address.tls:
        if any(files):
            raise ConfigError(
                f"certificates are set, but {config.broker} is without TLS",
                remedy="write the address as mqtts://host:port",
            )
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot use the CA certificates in {config.ca_file}: {error}",
            remedy="set `mqtt.ca_file` to a readable PEM file",
        ) from error
    if config.client_cert_file is None:
        if config.client_key_file is not None:
            raise ConfigError(
                "`mqtt.client_key_file` is set but `mqtt.client_cert_file` is not",
                remedy="set `mqtt.client_cert_file` too",
            )
        return context
    try:
        # An encrypted key would otherwise be asked for on the terminal.
        context.load_cert_chain(config.client_cert_file, config.client_key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot use the client certificate {config.client_cert_file}: {error}",
            remedy="set `mqtt.client_cert_file` and `mqtt.client_key_file` to a matching pair of "
            "PEM files, the key without a passphrase",
        ) from error
    return context
