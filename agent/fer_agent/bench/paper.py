"""The MicroExpNet paper's figures for two boards, and why ours cannot be compared with them."""

from __future__ import annotations

from typing import Final

from fer_agent.bench.record import PaperRow

_MACS: Final = 45_000_000
"""The paper's 0.09 GFLOPs, halved: a multiply-accumulate is two operations."""

_ROWS: Final = (("Raspberry Pi 4", 28.0, 35.7, 48.0), ("Jetson Nano", 122.0, 8.2, 62.0))
"""Board, frames a second, milliseconds, megabytes."""

_ALWAYS: Final = (
    "clock, governor, cooling and runtime version of the paper's board are not known",
    "the paper's memory is its classifier's alone; ours holds Python, numpy and the runtime too",
)
_NANO: Final = (
    "the Jetson Nano's last system is JetPack 4 with Python 3.6 and TensorRT 8.2; fer-agent needs "
    "Python 3.10 and does not run there"
)


def rows(board: str, macs: int | None) -> tuple[PaperRow, ...]:
    """Return the paper's row for this board, or all rows.

    Args:
        board: the board's name.
        macs: multiply-accumulates of the model measured; None where unknown.
    """
    found = []
    for name, fps, latency_ms, memory_mb in _ROWS:
        reasons = list(_ALWAYS)
        if macs is not None:
            reasons.insert(
                0,
                f"the paper's network needs about {_MACS / 1e6:.0f} million multiply-accumulates, "
                f"the one measured {macs / 1e6:.1f} million ({macs / _MACS:.2f} times)",
            )
        # "NVIDIA Jetson Orin Nano Developer Kit" is another board than "NVIDIA Jetson Nano ...".
        is_same = name.lower() in board.lower()
        if not is_same:
            reasons.insert(0, f"this is no {name}")
        if name == "Jetson Nano":
            reasons.append(_NANO)
        found.append(
            PaperRow(
                board=name,
                fps=fps,
                latency_ms=latency_ms,
                memory_mb=memory_mb,
                same_board=is_same,
                not_comparable=tuple(reasons),
            )
        )
    return tuple(row for row in found if row.same_board) or tuple(found)
