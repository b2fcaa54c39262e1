"""A network camera: serves a clip's first pictures, to and fro for ever, as MJPEG over HTTP.

Arguments: clip, port (0 for any), pictures of the clip to show. Prints the port.
"""

from __future__ import annotations

import http.server
import itertools
import sys
import time

import cv2

INTERVAL_S = 0.1


def load(path: str, count: int) -> list[bytes]:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    pictures = []
    while len(pictures) < count:
        pictures.append(cv2.imencode(".jpg", capture.read()[1])[1].tobytes())
    return pictures + pictures[::-1]


class WebCameraHandler(http.server.BaseHTTPRequestHandler):
    pictures: tuple[bytes, ...] = ()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for data in itertools.cycle(self.pictures):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return
            time.sleep(INTERVAL_S)

    def log_message(self, *_: object) -> None:
        pass


def main(clip: str, port: str, count: str) -> None:
    WebCameraHandler.pictures = tuple(load(clip, int(count)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), WebCameraHandler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
