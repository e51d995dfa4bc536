"""Work of PyTorch beside the inference thread: loading a model, warming it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T]) -> T:
    """What `work` gives, run on a thread that ends with it.

    GNU OpenMP keeps helpers for each thread that has ever multiplied, until that one ends. With more of all these than
    cores it takes the cores for crowded, and lets threads of a pass sleep instead of waiting for each other
    (`gomp_managed_threads`, libgomp): beside an idle pool thread that had warmed the model up, a pass of 27 tokens took
    19 ms and not 13, one of 157 tokens 38 ms and not 33 (two Intel cores).
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="model")
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    finally:
        threads.shutdown(wait=False)
