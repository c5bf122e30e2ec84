"""Who holds which control, what it replaced, and until when. Whatever ends a lease puts the control back."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from itertools import count

import msgspec

from greend.actuator.cgroup import PREFIX, group_of
from greend.actuator.control import Control, Setting, clamp, say, turn
from greend.actuator.controls import Controls
from greend.actuator.ledger import Ledger, Undo
from greend.actuator.messages import ControlInfo, Held, SetLimit
from greend.actuator.verify import CapCheck, grown
from greend.clock import Instant
from greend.errors import ControlError, ControlHeld, GreendError

log = logging.getLogger("greend.actuator")

CONTESTED_S = 600.0
"""So long a control is left to whoever turned it under our hands: two that each set it anew help nobody."""
LEAST_TTL_S, MOST_TTL_S = 1.0, 600.0


@dataclass(frozen=True, slots=True)
class Owner:
    """The connection that a lease belongs to, and the process behind it."""

    connection: int
    pid: int
    uid: int
    started: int
    """Start of the process in clock ticks since boot: with the pid, who it is."""

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


@dataclass(slots=True)
class Lease:
    """One control, turned for one owner."""

    id: int
    control: Control
    owner: Owner
    before: Setting
    """Where the control stood, and will stand again."""
    asked: float
    setting: Setting
    ttl_s: float
    heard: Instant
    check: CapCheck
    meter: tuple[Instant, tuple[float, float]] | None = None

    def held(self, lost: str = "") -> Held:
        """Return it as the owner is told."""
        return Held(self.id, self.control.name, self.asked, self.setting.value, lost, self.check.words())


class LeaseBook:
    """All leases of this machine's controls, one owner per control. No clock of its own, and no thread."""

    def __init__(self, controls: Controls, ledger: Ledger) -> None:
        self._controls = controls
        self._ledger = ledger
        self._leases: dict[str, Lease] = {}
        self._lost: dict[int, list[Held]] = {}
        """By connection: leases that ended before they were released, until the owner has heard of it."""
        self._contested: dict[str, tuple[Instant, str]] = {}
        self._ids = count(1)

    @property
    def idle(self) -> bool:
        """Whether no control is turned, and none is still to be put back."""
        return not self._leases and not self._ledger.entries()

    def recover(self) -> list[str]:
        """Put back what an actuator before us left turned; return what was done, in words."""
        return [self._put_back(undo) for undo in self._ledger.entries()]

    def infos(self) -> tuple[list[ControlInfo], dict[str, str]]:
        """Return the devices' controls and the groups that are held; and why there are none of a kind."""
        found = {control.name: control for control in self._controls.find()}
        found |= {name: lease.control for name, lease in self._leases.items()}
        return [self._info(control) for control in found.values()], self._controls.problems

    def set(self, owner: Owner, ask: SetLimit, now: Instant) -> Held:
        """Turn a control for its owner, who holds it from then on.

        Raises ControlHeld, ControlError, and GreendError when the undo record cannot be written.
        """
        name = ask.control
        if not 0 < ask.value < math.inf or not (ask.window_s is None or 0 < ask.window_s < 1000):
            raise ControlError(f"set {name} to {ask.value:g}: a limit is a finite number above 0")
        lease = self._leases.get(name)
        if lease is not None and lease.owner != owner:
            raise ControlHeld(f"set {name}: {lease.owner} holds it at {self._value(lease)}")
        control = lease.control if lease is not None else self._free(owner, name, now)
        stands = control.read()
        if lease is not None and stands.raw != lease.setting.raw:
            said = self._give_up(lease, stands, now)
            self._tell(lease, said)
            raise ControlHeld(f"set {name}: {said}")
        before = lease.before if lease is not None else stands
        setting = self._turn(control, before, owner, ask, now)
        self._leases[name] = Lease(
            id=lease.id if lease is not None else next(self._ids),
            control=control,
            owner=owner,
            before=before,
            asked=ask.value,
            setting=setting,
            ttl_s=min(max(ask.ttl_s, LEAST_TTL_S), MOST_TTL_S),
            heard=now,
            check=CapCheck.of(setting.value or ask.value, setting.window_s),
        )
        return self._leases[name].held()

    def renew(self, owner: Owner, now: Instant) -> list[Held]:
        """Go on with an owner's leases; return them, and those that have ended since it last heard."""
        mine = [lease for lease in self._leases.values() if lease.owner == owner]
        for lease in mine:
            lease.heard = now
        return [lease.held() for lease in mine] + self._lost.pop(owner.connection, [])

    def release(self, owner: Owner, lease_id: int) -> str:
        """Put a control back; return what was done. Raises ControlError when it is not the owner's."""
        for lease in self._leases.values():
            if (lease.id, lease.owner) == (lease_id, owner):
                return self._end(lease)
        raise ControlError(f"release lease {lease_id}: {owner} holds none of that number")

    def leave(self, owner: Owner) -> None:
        """Put back all that an owner holds: its connection has closed, or it has died."""
        for lease in [lease for lease in self._leases.values() if lease.owner == owner]:
            log.info("%s has gone: %s", owner, self._end(lease))
        self._lost.pop(owner.connection, None)

    def look(self, now: Instant) -> None:
        """End leases that were not renewed, notice who else turns a control, and whether devices obey."""
        for lease in list(self._leases.values()):
            silent_s = now.seconds_since(lease.heard)
            if silent_s > lease.ttl_s:
                said = f"nothing was heard of {lease.owner} for {silent_s:.0f} s: {self._end(lease)}"
                log.warning("%s", said)
                self._tell(lease, said)
                continue
            try:
                stands = lease.control.read()
            except ControlError as error:
                log.warning("%s", error)
                continue
            if stands.raw != lease.setting.raw:
                self._tell(lease, self._give_up(lease, stands, now))
            else:
                self._verify(lease, now)
        for undo in self._ledger.entries():
            if undo.control not in self._leases:
                self._put_back(undo)

    def close(self) -> None:
        """Put everything back."""
        for lease in list(self._leases.values()):
            log.info("%s", self._end(lease))

    def _free(self, owner: Owner, name: str, now: Instant) -> Control:
        """Return a control that nobody holds."""
        until, why = self._contested.get(name, (now, ""))
        if now < until:
            raise ControlHeld(
                f"set {name}: {why}; it can be asked for again in {until.seconds_since(now):.0f} s"
            )
        owed = self._ledger.get(name)
        if owed is not None:
            said = self._put_back(owed)
            if self._ledger.get(name) is not None:
                raise ControlError(f"set {name}: {said}")
        groups = (group_of("self"), group_of(owner.pid))
        return self._controls.get(name, frozenset(group for group in groups if group))

    def _turn(self, control: Control, before: Setting, owner: Owner, ask: SetLimit, now: Instant) -> Setting:
        wanted = clamp(ask.value, *control.range(before))
        raw = control.words(wanted, ask.window_s, before)
        undo = Undo(control.name, before.raw, raw, False, owner.pid, owner.uid, ask.reason, now.wall_ns)
        self._ledger.put(undo)
        try:
            setting = turn(control, raw, wanted)
            self._ledger.put(msgspec.structs.replace(undo, ours=setting.raw, settled=True))
        except GreendError as error:
            lease = self._leases.pop(control.name, None)
            if lease is not None:
                self._tell(lease, str(error))
            log.warning("%s", self._put_back(undo))
            raise
        log.info("set %s to %s for %s%s", control.name, say(setting.value, control.unit), owner,
                 f" ({ask.reason})" if ask.reason else "")  # fmt: skip
        return setting

    def _end(self, lease: Lease) -> str:
        self._leases.pop(lease.control.name, None)
        undo = self._ledger.get(lease.control.name)
        return self._put_back(undo) if undo is not None else f"{lease.control.name} is as it was"

    def _give_up(self, lease: Lease, stands: Setting, now: Instant) -> str:
        """Leave a control to whoever turned it under our hands; return what happened, in words."""
        name, unit = lease.control.name, lease.control.unit
        said = (
            f"another program set {name} to {say(stands.value, unit)} (greend had set {self._value(lease)}); "
            "greend leaves it so"
        )
        self._contested[name] = (now.after(CONTESTED_S), said)
        self._leases.pop(name, None)
        self._strike(name)
        log.warning("%s", said)
        return said

    def _put_back(self, undo: Undo) -> str:
        """Put a control back as it was, unless somebody else has turned it since; return what was done.

        What cannot be done now stays in the ledger, and is tried again at the next look.
        """
        name = undo.control
        try:
            control = self._controls.get(name)
        except ControlError as error:
            if not name.startswith(PREFIX):
                return f"{name} cannot be put back yet: {error}"
            self._strike(name)
            return f"{name} has ended, and its quota with it"
        try:
            stands = control.read()
            if stands.raw == undo.previous:
                said = f"{name} is as it was"
            elif undo.settled and stands.raw != undo.ours:
                other = say(stands.value, control.unit)
                said = f"{name} was set to {other} by another program; greend leaves it so"
            else:
                back = turn(control, undo.previous, None)
                said = f"{name} was put back to {say(back.value, control.unit)}"
        except ControlError as error:
            return f"{name} cannot be put back yet: {error}"
        self._strike(name)
        return said

    def _strike(self, name: str) -> None:
        """Take a record out of the ledger: the control is as it was, or somebody else's."""
        try:
            self._ledger.drop(name)
        except GreendError as error:
            # A full disk. The record stays, and at the next look the control is found to need nothing.
            log.error("%s", error)

    def _verify(self, lease: Lease, now: Instant) -> None:
        """Hold the device's own meter against the cap."""
        read = lease.control.energy_j()
        if read is None:
            return
        if lease.meter is not None:
            since, before = lease.meter
            honoured = not lease.check.words()
            lease.check = lease.check.observe(grown(before, read), now.seconds_since(since))
            if honoured and lease.check.words():
                log.warning("%s: %s", lease.control.name, lease.check.words())
        lease.meter = (now, read)

    def _tell(self, lease: Lease, why: str) -> None:
        self._lost.setdefault(lease.owner.connection, []).append(lease.held(why))

    def _info(self, control: Control) -> ControlInfo:
        lease = self._leases.get(control.name)
        info = ControlInfo(control.name, control.kind, control.device, control.unit)
        if lease is not None:
            info = msgspec.structs.replace(info, holder=str(lease.owner), problem=lease.check.words())
        try:
            stands = control.read()
            least, most = control.range(lease.before if lease is not None else stands)
        except ControlError as error:
            return msgspec.structs.replace(info, problem=str(error))
        return msgspec.structs.replace(
            info, value=stands.value, window_s=stands.window_s, least=least, most=most
        )

    @staticmethod
    def _value(lease: Lease) -> str:
        return say(lease.setting.value, lease.control.unit)
