"""YuNet's file: the configured one, one that a sync brought, or one downloaded and verified."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fer_agent.config.model import DetectorConfig
from fer_agent.errors import AgentError, DownloadError, ModelError, ModelFileError
from fer_agent.models.manifest import DetectorManifest, read_any_manifest
from fer_agent.models.store import verify_file, verify_folder
from fer_agent.updates.activation.versions import Versions
from fer_agent.updates.cache import FOLDER, ContentCache, Wanted, place
from fer_agent.updates.fetch import Fetcher, RetryPolicy

logger = logging.getLogger(__name__)

NAME: Final = "yunet"
"""Its name in a repository of models and in the store."""

FIRST_START: Final = RetryPolicy(attempts=2, first_wait_s=0.5)
"""Few attempts: the first frame waits for it, and the Haar cascade can stand in."""


YUNET = Wanted(
    url="https://github.com/ShiqiYu/libfacedetection.train/raw/"
    "0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_s_dynamic.onnx",
    sha256="daede24002cc8590f457998cc5e6c9e8b82f45f6bd969506a8913cd4ed10a2d3",
    size_bytes=237_823,
)
"""The dynamic graph of YuNet by its authors, Apache-2.0."""


def locate(
    config: DetectorConfig,
    store: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    source: Wanted = YUNET,
    fetcher: Fetcher | None = None,
) -> Path:
    """Return the path of YuNet's file, downloading it into the store when none is there.

    Args:
        config: `model_file` is taken as it is, whatever file it names.
        store: the model store's folder. A version that a sync brought is in its `yunet`, the
            pinned file in its `detectors/`; both come through one cache.
        progress: called with the bytes received so far and the whole size.
        source: the file to download.
        fetcher: downloads it; None takes the environment's proxy.

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
    cache = ContentCache(store / FOLDER, fetcher or Fetcher(retry=FIRST_START))
    try:
        place(cache.get(source, progress or (lambda _done, _all: None)), path)
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
        verify_folder(folder, manifest)
    except ModelError as error:
        logger.warning("cannot use the face detector that was synced: %s", error)
        return None
    return folder / manifest.files[0].path
