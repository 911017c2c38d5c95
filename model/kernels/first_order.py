"""Gradients that may not be differentiated again: they say so, where the result would be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def first_order_only(
    kernel: str, *inputs: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a gradient function raise when it is differentiated.

    Args:
        kernel: name for the message.
        *inputs: tensors that the function uses beside its arguments: it depends on them too.

    Returns:
        A decorator for functions of tensors.

    Raises:
        NotImplementedError: when a gradient of the function is asked for.
    """

    def decorate(gradients: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*_: Any) -> Any:
            raise NotImplementedError(
                f"kernel '{kernel}' has no second-order gradients; use kernel='scan', or set "
                "LENGTHWISE_KERNEL=scan"
            )

        def run(*upstream: Any) -> Any:
            @tf.custom_gradient
            def guarded(*_: Any) -> Any:
                return gradients(*upstream), refuse

            return guarded(*upstream, *inputs)

        return run

    return decorate
