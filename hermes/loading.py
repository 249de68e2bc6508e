"""Loading code without the garbage collector: what a module makes lives as long as the process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import modules inside; nothing is collected meanwhile, and what was loaded is never walked again.

    Collections during an import find nothing and walk everything, again and again: a tenth of a start's CPU time, and for
    the model library, which is imported by a worker thread, steps of 50 ms and more on the loop.

    Lifetime: process-wide; exit = collections are back, over what is made from then on.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
