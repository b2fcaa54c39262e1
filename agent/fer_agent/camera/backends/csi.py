"""The source of CSI cameras on a Jetson, through NVIDIA's Argus and GStreamer."""

from __future__ import annotations

from fractions import Fraction

from fer_agent.camera.backends.gstreamer import GstSource


def csi_source(sensor: int, *, width: int, height: int, fps: float) -> GstSource:
    """Make the source of one camera.

    Argus picks the sensor mode that fits best; the hardware scaler makes the requested size and
    copies the picture out of NVMM memory. The queue keeps the newest picture only.

    Args:
        sensor: number of the camera, from 0.
        width: pixels, a multiple of eight.
        height: pixels, even.
        fps: frames a second.
    """
    rate = Fraction(fps).limit_denominator(1001)
    pipeline = (
        f"nvarguscamerasrc sensor-id={sensor}"
        f" ! video/x-raw(memory:NVMM),framerate={rate.numerator}/{rate.denominator}"
        f" ! nvvidconv ! video/x-raw,format=I420,width={width},height={height}"
        " ! queue max-size-buffers=1 leaky=downstream"
    )
    name = f"the camera csi:{sensor}"
    return GstSource(pipeline.split(), width=width, height=height, name=name)
