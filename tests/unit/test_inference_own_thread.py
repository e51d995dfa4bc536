"""What PyTorch does beside the inference thread leaves no thread behind."""

import asyncio
import threading

import pytest

from router_extproc.inference.engine import Engine
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.testing import FakeModel


def model_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("model")]


async def all_gone() -> bool:
    async with asyncio.timeout(30):
        while model_threads():  # noqa: ASYNC110 - a thread that ends tells nobody
            await asyncio.sleep(0.001)
    return True


async def test_the_thread_ends_with_its_work() -> None:
    seen = await in_own_thread(threading.current_thread)
    assert seen.name.startswith("model")
    assert await all_gone()


async def test_what_the_work_raises_is_raised_and_the_thread_ends() -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        await in_own_thread(broken)
    assert await all_gone()


async def test_a_model_is_warmed_up_on_a_thread_that_is_gone_when_it_serves() -> None:
    class Warmed(FakeModel):
        on = ""

        def warm_up(self) -> None:
            self.on = threading.current_thread().name

    model = Warmed({}, {"intent": ("chat", "code")})
    engine = Engine(model)
    await engine.start()
    assert model.on.startswith("model")
    assert await all_gone()
    await engine.aclose()
