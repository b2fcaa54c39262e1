"""Draw the agent's packages on their floors, or check that the code keeps to them.

    python scripts/architecture.py            write docs/images/architecture.svg
    python scripts/architecture.py --check    print what breaks the structure; exit 1 if any
    python scripts/architecture.py --lines    print the agent's lines per package and in all

The floors are read from the layers contract in pyproject.toml, the imports from the source files,
those under `if TYPE_CHECKING` included. The check finds circles of imports, imports that do not go
down, modules in no package, and a picture that this script would draw otherwise.
"""

from __future__ import annotations

import random
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
AGENT = "fer_agent"
_FOLDERS = {AGENT: "agent", "fer_trainer": "trainer", "fer_provisioning": "provisioning"}
_SOURCE = ROOT / _FOLDERS[AGENT] / AGENT
_FLAT = {"__init__.py", "cli.py", "errors.py"}
_SLACK_LINES = 100
"""Lines that a package may gain or lose before the picture counts as out of date: else every second
change of the code would need a new one."""


def main(arguments: list[str]) -> int:
    """Draw, check or count; return the exit status."""
    tree = Tree()
    match arguments:
        case []:
            PICTURE.write_text(Drawing(tree).svg(tree.lines), encoding="utf-8")
        case ["--check"]:
            wrong = [*circles(tree), *upward(tree), *flat(), *stale_picture(tree)]
            print(*wrong, sep="\n", end="\n" if wrong else "")
            return 1 if wrong else 0
        case ["--lines"]:
            for package, count in sorted(tree.lines.items(), key=lambda item: -item[1]):
                print(f"{count:7,} {package}")
            print(f"{sum(tree.lines.values()):7,} in all")
        case _:
            print("usage: architecture.py [--check | --lines]", file=sys.stderr)
            return 2
    return 0


class Tree:
    """The Python files, their imports, and the floors they should keep to."""

    def __init__(self) -> None:
        sys.path[:0] = [str(ROOT / folder) for folder in _FOLDERS.values()]
        self._graph = grimp.build_graph(*_FOLDERS, cache_dir=None)
        self.imports = sorted(
            (module, imported)
            for module in self._graph.modules
            for imported in self._graph.find_modules_directly_imported_by(module)
        )

    @cached_property
    def floors(self) -> list[list[str]]:
        """The agent's packages, top floor first."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        contracts = project["tool"]["importlinter"]["contracts"]
        layers = next(item["layers"] for item in contracts if item["type"] == "layers")
        return [[name.strip() for name in layer.split("|")] for layer in layers]

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """The agent's packages with those they import; `cli` and `errors` count as packages."""
        names = {path.stem for path in self._packages()}
        arrows: dict[str, set[str]] = {name: set() for name in sorted(names)}
        for module, imported in self.imports:
            start, end = package_of(module), package_of(imported)
            if start and end and start != end:
                arrows[start].add(end)
        return arrows

    @cached_property
    def lines(self) -> dict[str, int]:
        """The lines of each package of the agent, and of the agent's `__init__.py`."""
        return {
            path.stem: sum(
                len(file.read_text(encoding="utf-8").splitlines())
                for file in (path.rglob("*.py") if path.is_dir() else [path])
            )
            for path in [*self._packages(), _SOURCE / "__init__.py"]
        }

    def where(self, module: str, imported: str) -> str:
        """Return file and line of an import."""
        line = self._graph.get_import_details(importer=module, imported=imported)[0]["line_number"]
        path = Path(_FOLDERS[module.partition(".")[0]], *module.split("."))
        file = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
        return f"{file}:{line}"

    def _packages(self) -> list[Path]:
        folders = {path.parent for path in _SOURCE.glob("*/__init__.py")}
        return sorted(folders | set(_SOURCE.glob("[!_]*.py")))


def package_of(module: str) -> str | None:
    """Return a module's package within the agent; None for the agent itself and other code."""
    root, _, rest = module.partition(".")
    return rest.split(".")[0] if root == AGENT and rest else None


def circles(tree: Tree) -> Iterator[str]:
    """Find circles between modules or packages that are in the same package.

    A circle between modules of different packages is one between those packages too.
    """
    # The packages or modules of one parent, with their imports of each other.
    siblings: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for module, imported in tree.imports:
        one, other = module.split("."), imported.split(".")
        depth = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        start, end = ".".join(one[: depth + 1]), ".".join(other[: depth + 1])
        siblings[".".join(one[:depth])][start].setdefault(end, tree.where(module, imported))
    for _, arrows in sorted(siblings.items()):
        while circle := _circle(arrows):
            steps = [f"{a} imports {b} ({arrows[a].pop(b)})" for a, b in pairwise(circle)]
            yield f"imports go in a circle: {', '.join(steps)}"


def _circle(arrows: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return None


def upward(tree: Tree) -> Iterator[str]:
    """Find imports that do not go down, and packages without a floor."""
    floor = {name: at for at, names in enumerate(tree.floors) for name in names}
    for name in tree.arrows.keys() - floor.keys():
        yield f"{AGENT}.{name} is on no floor: add it to the layers contract in pyproject.toml"
    for name in floor.keys() - tree.arrows.keys():
        yield f"pyproject.toml puts {name} on a floor, but there is no {AGENT}.{name}"
    for module, imported in tree.imports:
        start, end = package_of(module), package_of(imported)
        if start in floor and end in floor and start != end and floor[start] >= floor[end]:
            relation = "on the same floor as" if floor[start] == floor[end] else "above"
            place = tree.where(module, imported)
            yield f"{place} imports {imported}, but {end} is {relation} {start}"


def flat() -> Iterator[str]:
    """Find modules that are in no package."""
    for path in sorted(_SOURCE.glob("*.py")):
        if path.name not in _FLAT:
            place = path.relative_to(ROOT)
            yield f"{place} is in no package: move it into the one whose job it has"


def stale_picture(tree: Tree) -> Iterator[str]:
    """Compare the picture with one of today's code; lines may lag behind by `_SLACK_LINES`."""
    name = PICTURE.relative_to(ROOT)
    stands = PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else ""
    drawn = {box: int(count) for box, count in re.findall(r'id="(\w+)" data-lines="(\d+)"', stands)}
    lines = {
        box: drawn.get(box, count) if abs(drawn.get(box, count) - count) <= _SLACK_LINES else count
        for box, count in tree.lines.items()
    }
    if Drawing(tree).svg(lines) != stands:
        yield f"{name} is out of date: run `python scripts/architecture.py`"


_BOX_PX = (132, 44)
_GAP_PX = 34
_LANE_PX = 22
_PITCH_PX = 92
_MARGIN_PX = 28
_HEAD_PX = 74
_STYLE = """
  text { font-family: ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: #1f2328;
    text-anchor: middle }
  .ground { fill: #ffffff; stroke: #d0d7de }
  .floor { fill: #f3f5f8 }
  .box { fill: #ddf0ff; stroke: #2f81c7; stroke-width: 1.2 }
  .name { font-size: 15px; font-weight: 600 }
  .lines, .note { font-size: 11.5px; fill: #59636e }
  .title { font-size: 17px; font-weight: 600 }
  .arrow { fill: none; stroke: #6e7781; stroke-width: 1.4 }
  .head { fill: #6e7781 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ground { fill: #0d1117; stroke: #30363d }
    .floor { fill: #161b22 }
    .box { fill: #12304f; stroke: #4493d8 }
    .lines, .note { fill: #9aa5b1 }
    .arrow { stroke: #8b949e }
    .head { fill: #8b949e }
  }"""


@dataclass(frozen=True)
class _Layout:
    """The layout: nodes of each row from left to right, and their centres."""

    rows: list[list[str]]
    centre: dict[str, float]

    def crossings(self, chains: Sequence[Sequence[str]]) -> int:
        """Count the pairs of lines that cross between two rows."""
        place = {node: (at, x) for at, row in enumerate(self.rows) for x, node in enumerate(row)}
        steps = [(place[a], place[b]) for chain in chains for a, b in pairwise(chain)]
        return sum(
            a[0] == c[0] and (a[1] - c[1]) * (b[1] - d[1]) < 0 for a, b in steps for c, d in steps
        )


class Drawing:
    """The agent's packages as boxes on their floors, with arrows to those they import.

    An arrow that follows from two others is left out, so that the rest can be seen. An arrow that
    passes a floor runs through a lane there: a node without a box.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._floors = [[name for name in row if name in tree.arrows] for row in tree.floors]
        self._floor = {name: at for at, row in enumerate(self._floors) for name in row}
        self._chains = [
            [
                start,
                *(f"{start}>{end}@{at}" for at in range(self._floor[start] + 1, self._floor[end])),
                end,
            ]
            for start, end in self._plain_arrows()
        ]

    def svg(self, lines: Mapping[str, int]) -> str:
        """Return the picture as SVG text, with the given number of lines in each box."""
        layout = self._best_layout()
        left = min(layout.centre[name] for name in self._floor) - _BOX_PX[0] / 2
        left = min(left, *layout.centre.values()) - 2 * _MARGIN_PX
        x = {node: round(centre - left) for node, centre in layout.centre.items()}
        width = max(x.values()) + _BOX_PX[0] // 2 + 2 * _MARGIN_PX
        height = self._top(len(layout.rows) - 1) + _BOX_PX[1] + 9 + _MARGIN_PX
        total = f"{sum(lines.values()) / 1000:.1f}"
        middle, ground, floor = width // 2, (width - 1, height - 1), width - 2 * _MARGIN_PX
        title = f"{AGENT}: {total} thousand lines, imports go down only"
        note = "An arrow: imports. Imports that follow from two arrows are not drawn."
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{title}</title><style>{_STYLE}\n</style>",
            f'<rect class="ground" {_area(0.5, 0.5, *ground)} rx="10"/>',
            f'<text class="title" x="{middle}" y="32">{title}</text>',
            f'<text class="note" x="{middle}" y="52">{note}</text>',
        ]
        parts += [
            f'<rect class="floor" {_area(_MARGIN_PX, self._top(at) - 9, floor, _BOX_PX[1] + 18)}'
            ' rx="6"/>'
            for at in range(len(layout.rows))
        ]
        parts += self._lines_between(x)
        parts += [self._box(name, x[name], lines[name]) for name in self._floor]
        return "\n".join([*parts, "</svg>\n"])

    def _plain_arrows(self) -> list[tuple[str, str]]:
        """Return the imports between packages that go down and follow from no two others."""
        down = {
            start: {end for end in self._tree.arrows[start] if self._floor.get(end, -1) > at}
            for start, at in self._floor.items()
        }
        below: dict[str, set[str]] = {}
        for row in reversed(self._floors):
            for name in row:
                below[name] = down[name].union(*(below[end] for end in down[name]))
        return [
            (start, end)
            for start in self._floor
            for end in sorted(down[start])
            if not any(end in below[other] for other in down[start])
        ]

    def _best_layout(self) -> _Layout:
        """Return the layout with the fewest crossings of many that begin at random."""
        chance = random.Random(7)  # noqa: S311 - the same picture each time
        tried = [self._relaxed(self._random_layout(chance), sort=True) for _ in range(60)]
        best = min(tried, key=lambda one: (one.crossings(self._chains), self._slant(one)))
        return self._relaxed(best, sort=False)

    def _slant(self, layout: _Layout) -> float:
        return sum(
            abs(layout.centre[a] - layout.centre[b])
            for chain in self._chains
            for a, b in pairwise(chain)
        )

    def _random_layout(self, chance: random.Random) -> _Layout:
        lanes: list[list[str]] = [[] for _ in self._floors]
        for chain in self._chains:
            for at, lane in enumerate(chain[1:-1], self._floor[chain[0]] + 1):
                lanes[at].append(lane)
        rows = [[*row, *more] for row, more in zip(self._floors, lanes, strict=True)]
        return _Layout(rows, {node: chance.uniform(-300, 300) for row in rows for node in row})

    def _relaxed(self, layout: _Layout, *, sort: bool) -> _Layout:
        """Pull every node between its neighbours until they hardly move.

        Args:
            layout: where to begin.
            sort: order each row on the way; else the order stays, and lanes become straight.
        """
        neighbours: dict[str, list[str]] = defaultdict(list)
        for chain in self._chains:
            for a, b in pairwise(chain):
                neighbours[a].append(b)
                neighbours[b].append(a)
            for lane in chain[1:-1]:
                neighbours[lane] += [] if sort else chain[1:-1] * 3
        rows, centre = [list(row) for row in layout.rows], dict(layout.centre)
        for turn in range(40):
            for row in rows if turn % 2 else reversed(rows):
                target = {
                    node: sum(centre[other] for other in neighbours[node])
                    / max(1, len(neighbours[node]))
                    for node in row
                }
                if sort:
                    row.sort(key=lambda node: target[node])
                centre |= _spread(row, target)
        return _Layout(rows, centre)

    def _lines_between(self, x: Mapping[str, int]) -> Iterator[str]:
        """Yield each arrow as a curve between rows; arrows share no end on a box."""
        leaving, arriving = defaultdict(list), defaultdict(list)
        for chain in self._chains:
            leaving[chain[0]].append(chain)
            arriving[chain[-1]].append(chain)
        for group in leaving.values():
            group.sort(key=lambda chain: x[chain[1]])
        for group in arriving.values():
            group.sort(key=lambda chain: x[chain[-2]])
        for chain in self._chains:
            start, end = chain[0], chain[-1]
            at = self._floor[start]
            place = x[start] + _port(leaving[start].index(chain), len(leaving[start]))
            path = f"M{place} {self._top(at) + _BOX_PX[1]}"
            for node in chain[1:]:
                at += 1
                last = place
                place = x[node]
                top = self._top(at)
                if node == end:
                    place += _port(arriving[end].index(chain), len(arriving[end]))
                    top -= 7
                above = self._top(at - 1) + _BOX_PX[1]
                middle = (above + top) // 2
                path += f" C{last} {middle} {place} {middle} {place} {top}"
                path += "" if node == end else f" V{top + _BOX_PX[1]}"
            yield f'<path class="arrow" d="{path}"/>'
            yield f'<path class="head" d="M{place} {top + 7} l-4 -8 h8 z"/>'

    def _box(self, name: str, centre: int, count: int) -> str:
        wide, high = _BOX_PX
        top = self._top(self._floor[name])
        imports = ", ".join(sorted(self._tree.arrows[name])) or "nothing of the agent"
        return (
            f'<g id="{name}" data-lines="{count}"><title>{name} imports {imports}</title>'
            f'<rect class="box" {_area(centre - wide // 2, top, wide, high)} rx="6"/>'
            f'<text class="name" x="{centre}" y="{top + 19}">{name}</text>'
            f'<text class="lines" x="{centre}" y="{top + 35}">{count:,} lines</text></g>'
        )

    def _top(self, floor: int) -> int:
        return _HEAD_PX + floor * _PITCH_PX


def _area(x: float, y: float, width: int, height: int) -> str:
    return f'x="{x}" y="{y}" width="{width}" height="{height}"'


def _port(index: int, count: int) -> int:
    """Return how far from a box's middle one of its arrows begins or ends."""
    step = min(18, (_BOX_PX[0] - 24) // count)
    return round((index - (count - 1) / 2) * step)


def _spread(row: Sequence[str], target: Mapping[str, float]) -> dict[str, float]:
    """Return centres near the targets, in the row's order, with space for each box."""

    def distance(a: str, b: str) -> float:
        wide = sum(_LANE_PX if ">" in node else _BOX_PX[0] + _GAP_PX for node in (a, b))
        return wide / 2

    right = {row[0]: target[row[0]]}
    for a, b in pairwise(row):
        right[b] = max(target[b], right[a] + distance(a, b))
    left = {row[-1]: target[row[-1]]}
    for b, a in pairwise(reversed(row)):
        left[a] = min(target[a], left[b] - distance(a, b))
    return {node: (right[node] + left[node]) / 2 for node in row}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
