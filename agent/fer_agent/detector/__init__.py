"""The face detectors; each satisfies `FaceDetector` and gives boxes of the same framing."""
