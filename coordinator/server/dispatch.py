"""Where the scheduler's effects go: messages to workers' outboxes, changes to whoever watches.

Prepared while the machine is in the state that caused them, released after the commit, always in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coordinator.scheduler.effects import (
    AckAttempts,
    AssignTasks,
    Effect,
    Forget,
    PublishDevice,
    PublishJob,
    PublishTasks,
    Retire,
    Send,
)
from coordinator.scheduler.events import DeviceAttached
from coordinator.server.expand import Expander
from coordinator.server.follow import LogFollowing
from coordinator.server.hub import EventHub
from coordinator.server.links import Link, Links, Parcel
from coordinator.server.views import Views
from sparegrid.messages import Ack, Release


class _Letter(NamedTuple):
    """Messages for the connection that the device had when the scheduler decided."""

    link: Link
    contents: Parcel | list[object]


class Dispatcher:
    """The driver's outlet."""

    def __init__(
        self, links: Links, views: Views, expander: Expander, hub: EventHub, following: LogFollowing
    ) -> None:
        self._links = links
        self._views = views
        self._expander = expander
        self._hub = hub
        self._following = following

    def speaks(self, event: DeviceAttached, link: object) -> None:
        """From now on the machine means `link` when it talks to this device."""
        assert isinstance(link, Link)
        self._links.speak(event.device, link)
        self._following.attached(event.device)

    def prepare(self, effect: Effect) -> object | None:
        """What to release after the commit; None when it concerns nobody."""
        if isinstance(effect, AssignTasks):
            link = self._links.of(effect.device)
            return None if link is None else _Letter(link, self._expander.expand(effect, link))
        if isinstance(effect, AckAttempts):
            link = self._links.of(effect.device)
            return None if link is None else _Letter(link, [Ack(effect.device, list(effect.attempts))])
        if isinstance(effect, Send):
            return self._prepare_send(effect)
        if isinstance(effect, Retire):
            # From now on the machine does not know the job, and the store does after the commit.
            self._views.retire(effect.job, effect.view)
        return effect

    def release(self, prepared: Sequence[object]) -> None:
        """Let these out, in order."""
        for each in prepared:
            if isinstance(each, _Letter):
                self._post(each)
            elif isinstance(each, PublishJob):
                self._hub.job_changed(each.job)
            elif isinstance(each, PublishTasks):
                self._hub.tasks_changed(each.job, each.stage, each.ranges)
                self._following.tasks_changed(each.job, each.stage, each.ranges)
            elif isinstance(each, PublishDevice):
                self._hub.device_changed(each.device)
            elif isinstance(each, Retire):
                self._hub.job_retired(each.job)
                self._following.job_retired(each.job)
                self._expander.forget(each.job)
            elif isinstance(each, Forget):
                self._hub.job_forgotten(each.job)

    def _prepare_send(self, effect: Send) -> _Letter | None:
        message = effect.message
        link = self._links.of(message.device)  # type: ignore[arg-type]  # on the wire a device id is a plain string
        if link is None:
            return None
        if isinstance(message, Release):
            link.forget_templates(message.device, message.job)  # type: ignore[arg-type]  # as above
        return _Letter(link, [message])

    def _post(self, letter: _Letter) -> None:
        outbox = letter.link.outbox
        if isinstance(letter.contents, Parcel):
            outbox.put(letter.contents)
            self._expander.begin(letter.contents)
            return
        for message in letter.contents:
            outbox.put(message)
