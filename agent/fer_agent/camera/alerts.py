"""The alert about a camera that is offline, beside its status."""

from __future__ import annotations

from collections.abc import Callable

from fer_agent.vision.ports import AlertSink
from fer_agent.vision.records import CameraState, CameraStatus


def with_alert(
    on_status: Callable[[CameraStatus], None], alerts: AlertSink, camera: str
) -> Callable[[CameraStatus], None]:
    """Return a status listener that also raises the alert `camera-<name>` while it is offline.

    Any other status clears it, also the one that an earlier run may have left.
    """
    alert_id = f"camera-{camera}"

    def listen(status: CameraStatus) -> None:
        on_status(status)
        if status.state is CameraState.OFFLINE:
            text = "; ".join(filter(None, (status.reason, status.remedy)))
            alerts.raise_alert(alert_id, f"camera {camera}: {text}")
        else:
            alerts.clear_alert(alert_id)

    return listen
