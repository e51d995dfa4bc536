"""The admin page in a real browser: what a person sees, by keyboard, in light and dark, with hostile texts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.browser import CHROMIUM, Page, browsing
from tests.watched import Watched, watched

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed: apt-get install chromium"
)

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&amp;"
CTRL = 2


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browsing(tmp_path / "profile") as tab:
        page = await tab()
        yield page
        assert page.dialogs == 0
        assert page.console == []


async def picture(page: Page, name: str) -> None:
    """Kept for people where SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(await page.screenshot())


def traffic(sidecar: Watched) -> None:
    for number in range(40):
        sidecar.exchange(f"c{number}")
    for number in range(22):
        sidecar.exchange(f"s{number}", "hello", model="small", route="chat", duration_seconds=0.3)
    for number in range(6):
        sidecar.exchange(f"p{number}", model="premium", route="default", band="default", attempts=2)
    sidecar.exchange("failed", status=503, usage=None, model="premium", attempts=3, flags="UF")
    sidecar.books.ledger.flush()


async def test_a_person_sees_what_was_saved_and_why(page: Page) -> None:
    async with watched() as sidecar:
        traffic(sidecar)
        await page.go(f"{sidecar.url}/")
        await page.until("document.querySelectorAll('#rows > tr').length === 69")
        await page.until("document.querySelector('#count').innerText === '69'")
        shown = sidecar.books.ledger.savings()["total"]
        assert (await page.text("#saved")).replace("$", "") == f"{float(shown['saved']):.6f}".rstrip("0")
        assert f"{shown['saved_percent']:.1f} %" in await page.text("#percent")
        assert "had premium answered everything" in await page.text("#baseline")
        assert (await page.text("#share")).split("\n")[0] == "coder"
        assert "recommended" in await page.text("#bands")
        assert "half of 69 within 4" in await page.text("#latency-note")
        assert "generation 1" in await page.text("#serving")
        sidecar.exchange("live", "hello", model="small")
        await page.until("document.querySelectorAll('#rows > tr').length === 70")
        await page.value("document.querySelector('#rows .open').click()")
        await page.until("document.querySelector('.why dl') !== null")
        why = await page.text(".why")
        assert "code_generation, confidence 0.970" in why
        assert "matched: intent=code_generation" in why
        assert "coder → small → premium" in why
        assert "small, status 200, 1 attempt(s)" in why
        await page.value("document.querySelector('.verdicts button').click()")
        await page.until("document.querySelector('.verdicts').innerText.includes('noted: Good')")
        assert sidecar.feedback() == {("good", "code", ""): 1}
        assert await page.value("document.documentElement.scrollWidth <= innerWidth")
        assert all(url.startswith((sidecar.url, "data:")) for url in page.requested if url != "about:blank")
        await picture(page, "light")
        await page.dark(True)
        await picture(page, "dark")
        await page.call("Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=1, mobile=True)
        await picture(page, "narrow")


async def test_a_prompt_is_tried_by_keyboard_alone(page: Page) -> None:
    async with watched() as sidecar:
        await page.go(f"{sidecar.url}/")
        await page.until("document.querySelectorAll('#model option').length === 4")
        await page.press("Tab", 9)
        assert await page.value("document.activeElement.className") == "skip"
        while await page.value("document.activeElement.id") != "prompt":
            await page.press("Tab", 9)
        await page.write("write code")
        await page.press("Enter", 13, "\r", CTRL)
        await page.until("document.querySelector('#tried dl') !== null")
        found = await page.text("#tried")
        assert "matched: intent=code_generation" in found
        assert "coder → small → premium" in found
        assert sidecar.books.recent.last() == []


async def test_hostile_texts_stay_texts(page: Page) -> None:
    async with watched(prompts=True) as sidecar:
        await page.go(f"{sidecar.url}/")
        await page.until("document.querySelector('#count').innerText === '0'")
        sidecar.exchange("evil", EVIL, model=EVIL, route=EVIL, band=EVIL, flags=EVIL, details=EVIL)
        await page.until("document.querySelectorAll('#rows > tr').length === 1")
        assert EVIL in await page.text("#rows")
        await page.value("document.querySelector('#rows .open').click()")
        await page.until("document.querySelector('.why dl') !== null")
        assert EVIL in await page.text(".why")
        await page.value(
            f"document.querySelector('#prompt').value = {EVIL!r}; document.querySelector('#try').requestSubmit()"
        )
        await page.until("document.querySelector('#tried dl') !== null")
        sidecar.runtimes.reject("configuration", EVIL)
        await page.until("!document.querySelector('#problem').hidden")
        assert EVIL in await page.text("#problem")
        assert await page.value("document.querySelectorAll('img, main script').length") == 0


async def test_prompts_are_hidden_unless_turned_on(page: Page) -> None:
    async with watched() as sidecar:
        sidecar.exchange("hidden", "a very private question")
        await page.go(f"{sidecar.url}/")
        await page.until("document.querySelectorAll('#rows > tr').length === 1")
        await page.value("document.querySelector('#rows .open').click()")
        await page.until("document.querySelector('.why dl') !== null")
        assert "private" not in await page.value("document.documentElement.outerHTML")


async def test_the_token_is_asked_for_and_kept_for_the_session(page: Page) -> None:
    async with watched(host="0.0.0.0", token="s3cret") as sidecar:
        await page.go(f"{sidecar.url}/")
        await page.until("!document.querySelector('#login').hidden")
        await page.write("s3cret")
        await page.press("Enter", 13, "\r")
        await page.until("document.querySelector('#count').innerText === '0'")
        await page.go(f"{sidecar.url}/")
        await page.until("document.querySelector('#count').innerText === '0'")
        # The refusal that asked for the token is the only error.
        assert len(page.console) == 1
        assert "401" in page.console.pop()
        # It would ask again, and complain, when the sidecar has gone.
        await page.go("about:blank")
