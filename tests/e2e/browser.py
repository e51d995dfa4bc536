"""A real headless Chromium, driven over its DevTools protocol with what is installed anyway."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientSession, ClientWebSocketResponse

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "--window-size=1280,1700", "--hide-scrollbars"),
)


class Page:
    """One tab."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []
        """Errors: exceptions, failed loads, violations of the content security policy."""
        self.requested: list[str] = []
        self.dialogs = 0

    async def read(self) -> None:
        """Takes what the browser says until it is closed."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            parameters = said.get("params", {})
            match said["method"]:
                case "Runtime.exceptionThrown":
                    self.console.append(str(parameters["exceptionDetails"]))
                case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                    self.console.append(parameters["entry"]["text"])
                case "Network.requestWillBeSent":
                    self.requested.append(parameters["request"]["url"])
                case "Page.javascriptDialogOpening":
                    self.dialogs += 1

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        said = await answer
        assert "error" not in said, said
        return dict(said["result"])

    async def go(self, url: str) -> Self:
        """Opens a page."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")
        return self

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def text(self, selector: str) -> str:
        """The text that a person sees there."""
        return str(await self.value(f"document.querySelector({selector!r})?.innerText ?? ''"))

    async def until(self, expression: str) -> None:
        """Waits for a condition; the test's timeout bounds it."""
        while not await self.value(expression):  # noqa: ASYNC110 - another process: no event to wait for
            await asyncio.sleep(0.02)

    async def press(self, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
        """A key goes down and up."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def write(self, text: str) -> None:
        """Types text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def dark(self, on: bool) -> None:
        """Sets the system's colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self) -> bytes:
        """A picture of the whole page, as PNG."""
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])


@contextlib.asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Callable[[], Any]]:
    """Starts the browser; the value opens tabs."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    readers: list[asyncio.Task[None]] = []
    try:
        found = None
        while found is None:
            line = (await process.stderr.readline()).decode(errors="replace")
            assert line, "chromium ended"
            found = re.search(r"ws://(127\.0\.0\.1:\d+)/", line)
        readers.append(asyncio.create_task(_swallow(process.stderr)))
        async with ClientSession() as session:

            async def tab() -> Page:
                async with session.put(f"http://{found[1]}/json/new?about:blank") as answer:
                    target = await answer.json()
                socket = await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
                page = Page(socket)
                readers.append(asyncio.create_task(page.read()))
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                return page

            yield tab
    finally:
        for reader in readers:
            reader.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _swallow(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
