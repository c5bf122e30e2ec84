"""Short ways to say what the daemon would have seen."""

from greend.clock import NS
from greend.store.rollup import retain
from greend.store.writes import Batch, write
from greend.types import Component, Consumer, Job, Meter, Quality, Share

CPU = Component("cpu", "package-0")
GPU = Component("gpu", "gpu-0")
RAPL = Meter("rapl-package", "RAPL package", Quality.MEASURED, 0.05, "builtin 1")
MODEL = Meter("cpu-time", "CPU time × family table", Quality.MODELLED, 0.45, "builtin 1")
T0 = 1_780_012_800
"""A midnight of UTC."""


def job(id="j-1", name="train", signature="sig", started_s=T0, **fields):
    return Job(
        id=id,
        name=name,
        command=("python", "train.py"),
        signature=signature,
        uid=1000,
        pid=42,
        started_wall_ns=started_s * NS,
        **fields,
    )


def share(energy_j, consumer="idle", component=CPU, meter=RAPL):
    kind, _, name = consumer.partition(" ")
    return Share(component, Consumer(kind, name), energy_j, meter)


def shares(*rows, seconds=1.0):
    """A batch of (start_s, Share), each `seconds` long; a start may have quarters."""
    return Batch(
        shares=[
            (round(start_s * 4) * NS // 4, round(start_s * 4) * NS // 4 + round(seconds * NS), share)
            for start_s, share in rows
        ]
    )


def put(store, batch):
    with store.write() as connection:
        write(connection, batch)


def forget(store, now_s, seconds_keep_s, minutes_keep_s):
    """Retain until nothing is left to go; return how many rows went."""
    gone = 0
    while True:
        with store.write() as connection:
            some = retain(connection, now_s, seconds_keep_s, minutes_keep_s)
        gone += some
        if not some:
            return gone
