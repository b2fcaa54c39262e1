from __future__ import annotations

from fer_agent.camera.alerts import with_alert
from fer_agent.vision.records import CameraState, CameraStatus


class AlertList:
    def __init__(self) -> None:
        self.standing: dict[str, str] = {"camera-door": "from the run before"}

    def raise_alert(self, alert_id: str, text: str) -> None:
        self.standing[alert_id] = text

    def clear_alert(self, alert_id: str) -> None:
        self.standing.pop(alert_id, None)


def test_the_alert_stands_exactly_while_the_camera_is_offline() -> None:
    alerts, heard = AlertList(), list[CameraStatus]()
    listen = with_alert(heard.append, alerts, "door")
    statuses = [
        CameraStatus(CameraState.ONLINE),
        CameraStatus(CameraState.OFFLINE, "unplugged"),
        CameraStatus(CameraState.OFFLINE, "in use", "stop the other program"),
        CameraStatus(CameraState.ONLINE),
    ]
    standing = []
    for status in statuses:
        listen(status)
        standing.append(dict(alerts.standing))
    assert heard == statuses
    assert standing == [
        {},
        {"camera-door": "camera door: unplugged"},
        {"camera-door": "camera door: in use; stop the other program"},
        {},
    ]


def test_a_disabled_camera_is_no_fault() -> None:
    alerts = AlertList()
    with_alert(lambda _: None, alerts, "door")(CameraStatus(CameraState.DISABLED, "by choice"))
    assert alerts.standing == {}
