"""Where YuNet's file is: in the config, brought by a sync, or downloaded once and verified."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fer_agent.errors import AgentError, DownloadError, ModelError, ModelFileError
from fer_agent.models.manifest import DetectorManifest, read_any_manifest
from fer_agent.models.store import verify_file
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.cache import FOLDER, ContentCache, Wanted, place
from fer_agent.updates.fetch import Fetcher, Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.config.model import DetectorConfig
    from fer_agent.updates.connection import Route

logger = logging.getLogger(__name__)

NAME: Final = "yunet"
"""Its name in a repository of models and in the store."""

_PATIENCE: Final = Patience(attempts=2, first_wait_s=0.5)
"""Somebody waits for the first frame, and the Haar cascade stands by."""


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file on the web that can only be this one.

    Attributes:
        url: http or https address.
        sha256: 64 hexadecimal digits.
        size_bytes: its exact size; a longer answer is cut off and refused.
    """

    url: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name in the store."""
        return self.url.rpartition("/")[2]


YUNET = PinnedFile(
    url="https://github.com/ShiqiYu/libfacedetection.train/raw/"
    "0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_s_dynamic.onnx",
    sha256="daede24002cc8590f457998cc5e6c9e8b82f45f6bd969506a8913cd4ed10a2d3",
    size_bytes=237_823,
)
"""The dynamic graph of YuNet by its authors, Apache-2.0."""


def first_fetcher(route: Route) -> Fetcher:
    """Return what fetches the detector at the first start: soon done, or soon given up."""
    return Fetcher(route, patience=_PATIENCE)


def locate(
    config: DetectorConfig,
    store: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    source: PinnedFile = YUNET,
    fetcher: Fetcher | None = None,
) -> Path:
    """Return the path of YuNet's file, downloading it into the store when none is there.

    Args:
        config: `model_file` is taken as it is, whatever file it names.
        store: the model store's folder. A version that a sync brought lies in its `yunet`, the
            pinned file in its `detectors/`; both come through one cache.
        progress: called with the bytes received so far and the whole size.
        source: what to download.
        fetcher: how; None as the environment says.

    Raises:
        ModelFileError: `detector.model_file` is set and there is no such file.
        DownloadError: offline, refused, too slow, not the pinned file, the store cannot be
            written, or a download is needed and the config forbids it.
    """
    if config.model_file is not None:
        if not config.model_file.is_file():
            raise ModelFileError(
                f"no face detector at {config.model_file}",
                remedy="correct `detector.model_file`, or leave it out to have YuNet fetched",
            )
        return config.model_file
    if (synced := _synced(store)) is not None:
        return synced
    path = store / "detectors" / source.name
    if path.exists():
        try:
            verify_file(path, sha256=source.sha256, size_bytes=source.size_bytes)
        except ModelFileError as error:
            logger.warning("%s; it is fetched again", error)
        else:
            return path
    if not config.download:
        raise DownloadError(
            f"no face detector at {path}, and `detector.download` is false",
            remedy=f"put {source.name} there, or set `detector.model_file` or `detector.download`",
        )
    cache = ContentCache(store / FOLDER, fetcher or Fetcher(patience=_PATIENCE))
    try:
        wanted = Wanted(source.url, source.sha256, source.size_bytes)
        place(cache.get(wanted, progress or _silent), path)
    except AgentError as error:
        remedy = f"{error.remedy}, or put {source.name} into the store's detectors/ by hand"
        raise DownloadError(str(error), remedy=remedy) from error
    logger.info("saved %s", path)
    return path


def _synced(store: Path) -> Path | None:
    """Return the file of the version that a sync has switched to; None without a whole one."""
    versions = Versions(store, NAME)
    key = versions.linked()
    if key is None:
        return None
    folder = versions.folder(key)
    try:
        manifest = read_any_manifest(folder / "manifest.json")
        if not isinstance(manifest, DetectorManifest):
            raise ModelFileError(
                f"{folder} holds no face detector", remedy="publish it under another name"
            )
        entry = manifest.files[0]
        verify_file(folder / entry.path, sha256=entry.sha256, size_bytes=entry.bytes)
    except ModelError as error:
        logger.warning("cannot use the face detector that was synced: %s", error)
        return None
    return folder / entry.path


def _silent(_done: int, _all: int) -> None:
    pass
