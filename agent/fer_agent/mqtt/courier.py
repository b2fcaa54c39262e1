"""The thread that talks to the broker: connects, sends what waits, and connects again."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fer_agent.errors import AgentError, BrokerError, CredentialsError
from fer_agent.mqtt.dialer import Backoff
from fer_agent.mqtt.link import Message, TakenOverError
from fer_agent.mqtt.mailroom import Ticket
from fer_agent.mqtt.messages import CHANNELS, Kind, Topic, event_message
from fer_agent.system.clock import ClockReading

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from fer_agent.mqtt.dialer import Dialer
    from fer_agent.mqtt.link import Link, Waker
    from fer_agent.mqtt.mailroom import Mailroom
    from fer_agent.mqtt.outbox import Entry
    from fer_agent.mqtt.retained import Slot

logger = logging.getLogger(__name__)

_GOODBYE_SHARE = 1 / 3
"""Part of the time for stopping that is kept for the stop message, after the events."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the session, in seconds.

    Attributes:
        repeat_s: between two sendings of an unchanged state; a third of its expiry.
        first_wait_s: before the second attempt to connect; doubles from there.
        longest_wait_s: most between two attempts.
        stable_s: a connection that lasted so long starts the doubling anew.
        connect_s: for the transport and for the broker's answer, each.
        stop_s: for saying goodbye.
    """

    repeat_s: float = 20.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    stable_s: float = 60.0
    connect_s: float = 5.0
    stop_s: float = 3.0


class Courier:
    """Carries the mailroom's content to the broker in a thread of its own, until stopped."""

    def __init__(
        self,
        mailroom: Mailroom,
        dialer: Dialer,
        waker: Waker,
        timing: Timing,
        *,
        subscriptions: tuple[str, ...] = (),
        on_message: Callable[[Message], None] = lambda _message: None,
        farewell: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the thread; nothing is connected before `start`.

        Args:
            mailroom: what is to be sent.
            dialer: opens links.
            waker: interrupts waiting when the mailroom has something new.
            timing: times of the session.
            subscriptions: topics to ask for on each link.
            on_message: told what these topics bring, on this thread.
            farewell: puts the last message in, called once the events are through or time is up.
        """
        self._mailroom = mailroom
        self._dialer = dialer
        self._waker = waker
        self._timing = timing
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._farewell = farewell
        self._backoff = Backoff(
            first_s=timing.first_wait_s,
            longest_s=timing.longest_wait_s,
            stable_s=timing.stable_s,
        )
        self._thread = threading.Thread(target=self._run, name="mqtt-publisher", daemon=True)
        self._deadline: float | None = None
        self._stopping = threading.Event()
        self._connected_ns: int | None = None
        self._sent: dict[int, Slot | Ticket] = {}
        self._complaints: dict[str, int] = {}
        self.failure: Exception | None = None
        """The bug that ended the thread; None while there is none."""

    @property
    def connected(self) -> bool:
        """Whether the broker has let us in and the link still stands, as far as known."""
        return self._connected_ns is not None

    def start(self) -> None:
        """Begin to connect, and go on until `stop`, whether or not the broker is there."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, then the farewell, and hang up; returns after `stop_s` at the latest."""
        if self._deadline is not None:
            return
        self._deadline = time.monotonic() + self._timing.stop_s
        if self._thread.ident is None:
            self._waker.close()
            return
        self._stopping.set()
        self._waker.wake()
        self._thread.join(self._timing.stop_s + 0.2)
        if self._thread.is_alive():
            logger.debug("the thread is still inside an attempt to connect and ends with it")

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            logger.exception("the MQTT thread ended by a bug")
            self.failure = error
        finally:
            self._waker.close()

    def _work(self) -> None:
        while self._patience_s() > 0:
            last_attempt = self._deadline is not None
            try:
                self._converse()
            except (BrokerError, CredentialsError) as error:
                wait_s = self._lost(error)
                if last_attempt:
                    return
                # New mail is no reason to try sooner, and must not cost its sender a wake-up.
                self._stopping.wait(wait_s)
            else:
                return

    def _converse(self) -> None:
        """Hold one connection; returns when the goodbye was said, raises when it broke."""
        link = self._dialer.dial(self._waker, self._patience_s)
        self._connected_ns = time.monotonic_ns()
        try:
            self._greet(link)
            self._serve(link)
        except BaseException:
            link.abort()
            raise
        link.close()
        self._connected_ns = None

    def _greet(self, link: Link) -> None:
        again = " again" if self._complaints else ""
        flapping = any(count > 1 for count in self._complaints.values())
        level = logging.DEBUG if flapping and again else logging.INFO
        logger.log(level, "connected%s to the broker with MQTT %s", again, link.version)
        self._sent.clear()
        link.on_acknowledged = self._acknowledged
        link.on_message = self._on_message
        self._mailroom.connected()
        for topic in self._subscriptions:
            link.subscribe(topic)

    def _serve(self, link: Link) -> None:
        said_goodbye = False
        while True:
            self._send(link)
            wait_s = self._mailroom.wait_s()
            if self._deadline is not None:
                left_s = self._patience_s()
                events_left_s = left_s - self._timing.stop_s * _GOODBYE_SHARE
                if not said_goodbye and (not self._sent or events_left_s <= 0):
                    said_goodbye = True
                    self._farewell()
                    continue
                if said_goodbye and (not self._sent or left_s <= 0):
                    return
                wait_s = left_s if said_goodbye else events_left_s
            link.pump(self._waker, wait_s)

    def _send(self, link: Link) -> None:
        while len(self._sent) < link.window and (item := self._mailroom.take()) is not None:
            try:
                message = self._message(item)
            except ValidationError:
                # A label or a number that the contract does not know: a bug, but no other event
                # should be lost for it.
                logger.exception("left out a message that breaks the contract")
                self._mailroom.refuse(item)
                continue
            if message is None:
                continue
            number = link.publish(message)
            if message.qos:
                self._sent[number] = item

    def _message(self, item: Slot | Ticket) -> Message | None:
        clock = ClockReading.now()
        if isinstance(item, Ticket):
            entry = item.entry
            topic = Topic(entry.origin.identity.device_id, Kind.EVENTS, entry.origin.camera)
            return _addressed(topic, self._event(entry, clock))
        payload = item.write(clock)
        if item.only_changes and payload == item.last:
            return None
        item.last = payload
        return _addressed(item.topic, payload)

    def _event(self, entry: Entry, clock: ClockReading) -> bytes:
        if entry.message is None:
            entry.message = event_message(
                entry.event,
                entry.origin,
                sequence=entry.sequence,
                recorded_ns=entry.recorded_ns,
                clock=clock,
                replayed=entry.recorded_ns < (self._connected_ns or 0),
            )
        else:
            entry.message = entry.message.again()
        return entry.message.encode()

    def _acknowledged(self, number: int, fault: ReasonCode | None) -> None:
        item = self._sent.pop(number, None)
        if item is None:  # a message of QoS 0 has been written
            return
        if fault is None:
            self._mailroom.confirm(item)
            return
        self._mailroom.refuse(item)
        self._complain(
            f"the broker refused a message: {fault}",
            "let this user publish under the device's topics, in the broker's access list",
        )

    def _lost(self, error: AgentError) -> float:
        """Note that there is no connection any more; returns seconds until the next attempt."""
        lasted_s = 0.0
        if self._connected_ns is not None:
            lasted_s = (time.monotonic_ns() - self._connected_ns) / 1e9
            self._connected_ns = None
        if lasted_s >= self._timing.stable_s:
            self._complaints.clear()
        self._complain(str(error), error.remedy)
        hopeless = isinstance(error, (CredentialsError, TakenOverError))
        return self._backoff.next_s(connected_s=lasted_s, hopeless=hopeless)

    def _complain(self, what: str, remedy: str) -> None:
        count = self._complaints[what] = self._complaints.get(what, 0) + 1
        if count == 1:
            logger.warning("%s; %s; trying on", what, remedy)
        else:
            logger.debug("%s (%d times)", what, count)

    def _patience_s(self) -> float:
        return math.inf if self._deadline is None else self._deadline - time.monotonic()


def _addressed(topic: Topic, payload: bytes) -> Message:
    channel = CHANNELS[topic.kind]
    return Message(
        topic=str(topic),
        payload=payload,
        qos=channel.qos,
        retain=channel.retain,
        # A clearing message must not expire before the broker has cleared.
        expiry_s=channel.expiry_s if payload else None,
        content_type=channel.content_type if payload else None,
    )
