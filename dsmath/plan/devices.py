"""Accelerators by their data sheets."""

import dataclasses

from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Device:
    """One chip.

    Attributes:
      title: as people call it.
      memory: bytes, of the data sheet's decimal gigabytes. The chip has about 7 % more, in binary ones: that is what
        the runtime and fragmentation may take.
      flops: bfloat16 operations a second, dense.
      bandwidth: of the memory, bytes a second.
      interconnect: bytes a second that the chip can send to its neighbours, all links together, one way.
      island: chips that this interconnect joins; None: all of them.
      network: bytes a second that a chip can send beyond its island.
    """

    title: str
    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    island: int | None = None
    network: float = 0.0


# TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "key specifications"; of the two-way bandwidth of the links, half.
# GPUs: NVIDIA's data sheets of the A100 (SXM), H100 (SXM5) and H200 (SXM), without sparsity; of NVLink's two-way
# bandwidth, half. Eight chips share a host; beyond it each has one port of its DGX (DGX A100 and DGX H100 data sheets:
# eight of 200 and of 400 Gbit/s).
DEVICES = {
    "v4": Device("TPU v4", 32e9, 275e12, 1228e9, 300e9),
    "v5e": Device("TPU v5e", 16e9, 197e12, 819e9, 200e9),
    "v5p": Device("TPU v5p", 95e9, 459e12, 2765e9, 600e9),
    "v6e": Device("TPU v6e", 32e9, 918e12, 1638e9, 400e9),
    "a100-40": Device("A100 40 GB", 40e9, 312e12, 1555e9, 300e9, island=8, network=25e9),
    "a100-80": Device("A100 80 GB", 80e9, 312e12, 2039e9, 300e9, island=8, network=25e9),
    "h100": Device("H100 80 GB", 80e9, 989e12, 3350e9, 450e9, island=8, network=50e9),
    "h200": Device("H200 141 GB", 141e9, 989e12, 4800e9, 450e9, island=8, network=50e9),
}


def find_device(name: str) -> Device:
    """The device of this name, a key of `DEVICES`.

    Raises:
      InputError: an unknown name.
    """
    if name not in DEVICES:
        raise InputError(f"--device: {name!r} is none of {', '.join(DEVICES)}")
    return DEVICES[name]
