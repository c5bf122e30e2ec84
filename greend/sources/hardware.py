"""What the machine is made of, as far as coefficients are scaled by it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from greend.types import Hardware

CPUINFO = Path("/proc/cpuinfo")


def hardware(cpuinfo: Path = CPUINFO) -> Hardware:
    """Return hardware threads, GB of memory (2**30 bytes, as modules are sold) and the CPU's name."""
    return Hardware(
        threads=psutil.cpu_count() or 1,
        dram_gb=psutil.virtual_memory().total / 2**30,
        cpu_model=cpu_model(cpuinfo),
    )


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """Return the CPU's name as the kernel gives it, with family, model and stepping on x86; "" if unknown.

    The numbers are there because virtual machines give names that name no model ("AMD EPYC", "Intel(R)
    Xeon(R) CPU @ 2.20GHz"), and family 25 model 17 still says Genoa.
    """
    fields = _first_processor(cpuinfo)
    name = fields.get("model name") or fields.get("Model") or ""
    if {"cpu family", "model", "stepping"} <= fields.keys():
        name += f" family {fields['cpu family']} model {fields['model']} stepping {fields['stepping']}"
    return re.sub(r"\s+", " ", name).strip()


def is_virtual(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU says that a hypervisor runs it (x86 only; other machines say no)."""
    return "hypervisor" in _first_processor(cpuinfo).get("flags", "").split()


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return {}
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}
