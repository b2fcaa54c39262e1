"""The watch of a running agent over the version of its model and how it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fer_agent.errors import AgentError, ModelError, ModelFileError
from fer_agent.models.store import StoredModel, find_model, read_model
from fer_agent.updates.activation.health_check import (
    WINDOW_S,
    HealthSample,
    HealthTally,
    Rules,
    Verdict,
    check_health,
)
from fer_agent.updates.activation.journal import ClassifierFigures
from fer_agent.updates.activation.pending import PendingVersion, candidates, settle
from fer_agent.updates.activation.swap import Ready, SwappableClassifier
from fer_agent.updates.activation.versions import Versions
from fer_agent.vision.ports import EmotionClassifier

Load = Callable[[StoredModel], Ready]

logger = logging.getLogger(__name__)


class ModelWatch:
    """Keeps a running agent at the version that the store's link names, run as was measured last.

    Nothing has to signal a change: `tick`, called about once a second, looks for one.

    Args:
        store: the model store's folder.
        name: the classifier's name.
        load: makes a classifier of a model folder, its hash checked.
        rules: what a new version has to keep to.
        frames: returns how many frames all cameras gave, and how many were processed.
        on_change: called with each version that takes over, the first one included, and with each
            new way to run it.

    Raises:
        ModelError: no version of that name can be loaded, the shipped one included.

    Attributes:
        classifier: for all pipelines.
        ready: the version that runs now.
    """

    def __init__(
        self,
        store: Path,
        name: str,
        load: Load,
        *,
        rules: Rules | None = None,
        frames: Callable[[], tuple[int, int]] = lambda: (0, 0),
        on_change: Callable[[Ready], None] = lambda _ready: None,
    ) -> None:
        self._versions = Versions(store, name)
        self._store, self._name, self._load = store, name, load
        self._rules = rules or Rules()
        self._frames, self._on_change = frames, on_change
        self._troubled = False
        self._lease = self._settled(None)
        self.ready = self._first()
        self._linked = self._versions.linked()
        fallback = self._before(self._lease) if self._lease is not None else None
        self.classifier = SwappableClassifier(self.ready.classifier, fallback)
        self._tally = HealthTally(None if self._lease is not None else WINDOW_S)
        self._counted = (time.monotonic(), *frames())
        on_change(self.ready)

    def tick(self) -> None:
        """Look at the figures and at the link; what cannot be written is tried again next time."""
        try:
            self._sample()
            self._check_health()
            self._notice()
        except OSError as error:
            self._trouble(error)
        else:
            self._troubled = False

    def close(self, *, orderly: bool) -> None:
        """End with the agent.

        Args:
            orderly: False after a failure, which then counts against a pending version.
        """
        if self._lease is not None and orderly:
            self._lease.end()
        self._lease = None

    def _settled(self, baseline: ClassifierFigures | None) -> PendingVersion | None:
        """Settle the journal; in a store that cannot be written no version is pending."""
        try:
            return settle(self._store, self._name, baseline)
        except OSError as error:
            self._trouble(error)
            return None

    def _first(self) -> Ready:
        """Load the linked version, else the next best one that can be loaded."""
        failure: ModelError | None = None
        for model in candidates(self._store, self._name):
            try:
                return self._load(model)
            except ModelError as error:
                failure = failure or error
                logger.warning("cannot use %s: %s", model.folder, error)
                self._roll_back(str(error))
        raise failure or ModelFileError(
            f"no version of {self._name} in {self._store} has a manifest that can be read",
            remedy="run `fer-agent models sync`, or set `classifier.model` to a shipped one",
        )

    def _before(self, lease: PendingVersion) -> EmotionClassifier | None:
        """Load the version before a pending one, to go on with if that one fails."""
        previous = lease.entry.previous
        try:
            # The link already names the pending version, so the store has no shipped one to find.
            model = find_model(self._name) if previous is None else self._model(previous.key)
            return self._load(model).classifier
        except ModelError as error:
            logger.warning("nothing to fall back to: %s", error)
            return None

    def _model(self, key: str | None) -> StoredModel:
        """Read a version's manifest; None means the shipped one, or a folder made by hand."""
        if key is None:
            return find_model(self._name, self._store)
        return read_model(self._versions.folder(key))

    def _sample(self) -> None:
        now_s, (captured, processed) = time.monotonic(), self._frames()
        before_s, captured_before, processed_before = self._counted
        self._counted = (now_s, captured, processed)
        faces, faces_ns = self.classifier.take()
        self._tally.add(
            HealthSample(
                seconds=now_s - before_s,
                captured=captured - captured_before,
                processed=processed - processed_before,
                faces=faces,
                faces_ns=faces_ns,
            )
        )

    def _check_health(self) -> None:
        """Confirm the pending version or roll it back, when there is reason for either."""
        if self._lease is None:
            return
        if self.classifier.failure is not None:
            self._roll_back(f"it failed while running: {self.classifier.failure}")
            return
        baseline = self._lease.entry.baseline
        verdict = check_health(self._tally, baseline, self._rules)
        if verdict is Verdict.SLOW:
            figures = self._tally.figures()
            self._roll_back(f"it slows the agent down: {figures}, before: {baseline}")
        elif verdict is Verdict.CONFIRM:
            self._lease.confirm()
            self._lease = None
            self.classifier.trust()
            self._tally = HealthTally(WINDOW_S)

    def _roll_back(self, reason: str) -> None:
        """Roll the pending version back; the link then names the one before."""
        if self._lease is None:
            return
        try:
            self._lease.roll_back(reason)
        except OSError as error:
            self._trouble(error)
        else:
            self._lease = None

    def _notice(self) -> None:
        """Load the version that the link names now, if that is another one, and swap."""
        if self._versions.linked() == self._linked:
            self._notice_measurement()
            return
        if self._lease is not None:
            self._lease.drop()
        baseline = self._tally.figures()
        self._lease = self._settled(baseline)
        self._linked = self._versions.linked()  # settling may have moved it
        try:
            ready = self._load(self._model(self._linked))
        except ModelError as error:
            logger.warning("%s stays at the version it has: %s", self._name, error)
            self._roll_back(str(error))
            return
        self._tally = HealthTally(None if self._lease is not None else WINDOW_S)
        if ready.info == self.ready.info and self.classifier.failure is None:
            return
        self._swap(ready, self.ready.classifier if self._lease is not None else None)

    def _notice_measurement(self) -> None:
        """Run the same version as it was last measured, unless it is pending."""
        if self._lease is not None or not self.ready.outdated():
            return
        try:
            ready = self._load(self._model(self._linked))
        except AgentError as error:
            logger.warning("%s goes on as %s: %s", self._name, self.ready.setting, error)
            return
        self._tally = HealthTally(WINDOW_S)
        self._swap(ready, None)

    def _swap(self, ready: Ready, fallback: EmotionClassifier | None) -> None:
        self.ready = ready
        self.classifier.swap(ready.classifier, fallback)
        version = ready.info.version
        logger.info("frames are classified by %s %s now: %s", self._name, version, ready.setting)
        self._on_change(ready)

    def _trouble(self, error: OSError) -> None:
        level = logging.DEBUG if self._troubled else logging.WARNING
        logger.log(level, "cannot keep the journal of %s: %s", self._name, error)
        self._troubled = True
