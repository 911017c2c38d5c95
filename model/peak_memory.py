"""How much memory a piece of work takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from lengthwise.dataset import UsageError


class Memory(Protocol):
    """A memory whose use can be measured."""

    def held(self) -> int:
        """Bytes in use now."""
        ...

    def needed_by(self, work: Callable[[], Any]) -> int:
        """Runs `work`; the most bytes that were in use meanwhile, beyond those before."""
        ...


class DeviceMemory:
    """The tensors that TensorFlow holds on a device, to the byte.

    On a CPU there is more in a process than that: the interpreter, libraries, graphs, arrays.

    Args:
        device: by default the first GPU, else the CPU.

    Raises:
        UsageError: this TensorFlow does not count the memory of the device.
    """

    def __init__(self, device: str | None = None) -> None:
        gpus = tf.config.list_physical_devices("GPU")
        self.device = device or ("GPU:0" if gpus else "CPU:0")
        try:
            self.held()
        except ValueError:
            # TensorFlow counts on a CPU only where it is built with oneDNN.
            raise UsageError(
                f"this TensorFlow does not count the memory of {self.device}: give `memory`"
            ) from None

    def held(self) -> int:
        return int(tf.config.experimental.get_memory_info(self.device)["current"])

    def needed_by(self, work: Callable[[], Any]) -> int:
        tf.config.experimental.reset_memory_stats(self.device)
        before = self.held()
        work()
        return int(tf.config.experimental.get_memory_info(self.device)["peak"]) - before
