"""The last published versions, stored beside the online keys.

Version numbers never go back, for devices refuse a repository whose numbers do. An old copy of the
folder, restored from a backup, has lower numbers, and nothing in the copy itself shows that.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from fer_agent.system import durable
from fer_trainer.publish.errors import RepositoryError

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.api.metadata import Root

    from fer_trainer.publish.repository import PublishedRepository
    from fer_trainer.publish.signing import Keyring

logger = logging.getLogger(__name__)

FILE_NAME: Final = "published.json"


def check(before: PublishedRepository | None, root: Root, keyring: Keyring) -> None:
    """Refuse to publish from a folder that is older than what these keys have published.

    Raises:
        RepositoryError: it is.
    """
    signing_root = before.root.signed if before is not None else root
    current = before.versions if before is not None else dict.fromkeys(("timestamp",), 0)
    for keyid in signing_root.roles["timestamp"].keyids:
        if keyid not in keyring.files:
            continue
        known = _read(keyring.files[keyid].path.parent / FILE_NAME).get(keyid, {})
        for role, version in current.items():
            seen = known.get(role, 0)
            if isinstance(seen, int) and version < seen:
                raise RepositoryError(
                    f"these keys have published {role} {seen}, the folder stands at {version}",
                    remedy="restore the newest copy of the folder, as the web server has it: "
                    "devices refuse versions that go back",
                )


def remember(after: PublishedRepository, keyring: Keyring) -> None:
    """Store the versions that are published now; a file that cannot be written is a warning."""
    for keyid in after.root.signed.roles["timestamp"].keyids:
        if keyid not in keyring.files:
            continue
        path = keyring.files[keyid].path.parent / FILE_NAME
        try:
            durable.write(path, json.dumps({**_read(path), keyid: after.versions}).encode())
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error.strerror)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
