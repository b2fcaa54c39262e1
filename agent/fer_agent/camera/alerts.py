"""A camera's fault as a standing alert beside its status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fer_agent.vision.records import CameraState, CameraStatus

if TYPE_CHECKING:
    from collections.abc import Callable


class AlertBoard(Protocol):
    """Where standing faults are put up and taken down; `MqttPublisher` is one."""

    def raise_alert(self, alert_id: str, text: str) -> None:
        """Put a fault up, or change its text."""
        ...

    def clear_alert(self, alert_id: str) -> None:
        """Take it down; harmless when it is not there."""
        ...


def with_alert(
    on_status: Callable[[CameraStatus], None], board: AlertBoard, camera: str
) -> Callable[[CameraStatus], None]:
    """Return a status listener that also keeps the alert `camera-<name>`.

    It stands while the camera is offline. The first status of all clears what a run before may
    have left standing.
    """
    alert_id = f"camera-{camera}"

    def listen(status: CameraStatus) -> None:
        on_status(status)
        if status.state is CameraState.OFFLINE:
            text = "; ".join(filter(None, (status.reason, status.remedy)))
            board.raise_alert(alert_id, f"camera {camera}: {text}")
        else:
            board.clear_alert(alert_id)

    return listen
