"""Reads files, status, logs and doctor's findings of boards."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from fer_agent.errors import UnavailableError
from fer_provisioning import failures, layout
from fer_provisioning.progress import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_provisioning.board import Probe
    from fer_provisioning.fleet import Fleet, Site

_REDRAW_S = 5.0
_CLEAR = "\033[H\033[2J"


def read_file(fleet: Fleet, site: Site, path: str) -> str:
    """Read a text file on a board as root.

    Raises:
        UnavailableError: it cannot be read.
    """
    done, lines = fleet.run_shell(site, f"cat '{path}'")
    if not done:
        raise UnavailableError(f"cannot read {path}", remedy="look at the file on the board")
    return "\n".join(lines) + "\n"


def show_status(
    fleet: Fleet, *, follow: bool, clear: bool, as_json: bool, write: Callable[[str], None]
) -> None:
    """Write a table of all boards.

    Args:
        fleet: boards, connected or not.
        follow: whether to look again every few seconds until interrupted.
        clear: whether to draw over what the terminal shows.
        as_json: write a line of JSON each time instead of the table.
        write: takes one table or line.
    """
    while True:
        if as_json:
            write(
                json.dumps({"schema_version": 1, "hosts": [_as_json(one) for one in fleet.sites]})
            )
        else:
            write((_CLEAR if clear else "") + _table(fleet))
        if not follow:
            return
        time.sleep(_REDRAW_S)
        fleet.watch_again()


def all_run(fleet: Fleet) -> bool:
    """Tell whether every board's service is active."""
    return all(site.error is None and site.probe.get("active") == "active" for site in fleet.sites)


def show_logs(fleet: Fleet, *, follow: bool, lines: int, write: Callable[[str], None]) -> None:
    """Write the service's log of all boards, each line with its board when there are several."""
    command = f"journalctl -u {layout.UNIT} -o short-iso --no-pager -q -n {lines}"
    several = len(fleet.sites) > 1

    def show(site: Site) -> None:
        prefix = f"{site.target.name}: " if several else ""
        fleet.stream(site, command + (" -f" if follow else ""), lambda line: write(prefix + line))

    fleet.each(show)


def show_doctor(fleet: Fleet, *, as_json: bool, write: Callable[[str], None]) -> bool:
    """Run the installed agent's doctor on all boards; returns whether any found something."""
    reports: dict[str, Any] = {}

    def examine(site: Site) -> None:
        command = f"{layout.COMMAND} doctor --config {layout.CONFIG} --json 2>&1"
        _, lines = fleet.run_shell(site, command)
        try:
            reports[site.target.name] = json.loads(lines[-1])
        except (ValueError, IndexError) as error:
            if not site.probe.current_release:
                lines = ["no agent is installed there"]
            raise failures.of_step("doctor", lines) from error

    fleet.each(examine)
    if as_json:
        write(json.dumps({"schema_version": 1, "hosts": reports}))
    else:
        for name, report in reports.items():
            write(f"{name}: {len(report['findings'])} findings")
            for one in report["findings"]:
                write(f"  {one['id']}: {one['cause']}\n    {one['remedy']}")
                if "command" in one:
                    write(f"    $ {one['command']}")
    return any(report["findings"] for report in reports.values())


def _table(fleet: Fleet) -> str:
    rows = [("HOST", "SERVICE", "VERSION", "RESTARTS", "SINCE", "SAYS")]
    for site in fleet.sites:
        probe = site.probe
        rows.append(
            (
                site.target.name,
                "unreachable" if site.error else _service(probe),
                site.version or "-",
                probe.get("restarts") or "-",
                probe.get("since") or "-",
                str(site.error) if site.error else _says(probe),
            )
        )
    return table(rows)


def _service(probe: Probe) -> str:
    if not probe.current_release:
        return "not installed"
    return probe.get("active") or "unknown"


def _says(probe: Probe) -> str:
    """Return the status text of the service, or the reason why it is down."""
    if probe.get("active") == "active":
        return probe.get("status_text")
    if probe.get("result") not in ("", "success"):
        return f"{probe.get('result')} {probe.get('main_status')}: {probe.get('last_error')}"
    return ""


def _as_json(site: Site) -> dict[str, Any]:
    probe = site.probe
    return {
        "host": site.target.name,
        "reachable": site.error is None,
        "error": None if site.error is None else str(site.error),
        "board": None if site.board is None else site.board.name,
        "installed": bool(probe.current_release),
        "version": site.version or None,
        "service": probe.get("active") or None,
        "result": probe.get("result") or None,
        "exit_status": probe.number("main_status"),
        "restarts": probe.number("restarts"),
        "since": probe.get("since") or None,
        "status": probe.get("status_text") or None,
        "last_error": probe.get("last_error") or None,
    }
