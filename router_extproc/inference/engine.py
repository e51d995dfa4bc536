"""The inference thread: windows cross to it under one lock, a batch comes back with one wake-up of the event loop.

The thread takes a batch whenever it is idle; there is no timer and nothing waits for a fuller batch. While a batch
runs, the next one gathers in the queue, so batches grow with the load by themselves.

Windows that have been read are remembered for a while. A text that is classified again while it grows, because its
body is still arriving, thus only has its new windows read; and a text that comes again costs nothing. A window that is
just being read is waited for, not read twice. What other replicas remember is asked for while a window waits. Whichever
answer comes first counts, for all who wait for the same window; nobody waits for the other.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router_extproc.inference.base import (
    Classified,
    DeadlineExceeded,
    InferenceError,
    Model,
    ModelFailed,
    Overloaded,
    Prompt,
    UnusableModel,
)
from router_extproc.inference.memory import Elsewhere, Labels, WindowMemory, key_for, keys_of
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.inference.pooling import combine
from router_extproc.inference.queue import BatchQueue, Job
from router_extproc.inference.reading import Part, Reading
from router_extproc.inference.stats import Counters, EngineStats
from router_extproc.inference.windows import Window, cut, reading_order

log = logging.getLogger(__name__)

PATIENCE_SHARE = 3
"""A batch takes at most this part of the time that the newest text has, or that its caller says texts have as a rule:
one over the whole deadline makes late not only itself, but all that come while it runs."""
LEAST_BATCH_TOKENS = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Swap:
    model: Model
    taken: asyncio.Future[None]


class Engine:
    """The classifier that serves: one model, one thread, one queue. All methods are called on one event loop.

    `max_queued` bounds the windows that wait, `max_queued_bytes` their text, `max_batch_tokens` one batch (default:
    what the model finds best for its device), `max_windows` how much of a very long text is read: its beginning, its
    end and evenly spread windows between. `remembered_windows` (about 20 KB each) are kept with their answers, and
    `elsewhere` has what other replicas keep.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_queued: int = 512,
        max_queued_bytes: int = 16 * 1024 * 1024,
        max_batch_tokens: int | None = None,
        max_windows: int = 64,
        remembered_windows: int = 1024,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._model = model
        self._labels = model.labels
        self._version = model.version
        self._folds = model.folds
        self._max_batch_tokens = max_batch_tokens
        self._max_windows = max_windows
        self._memory = WindowMemory(remembered_windows)
        self._elsewhere = elsewhere
        self._asking: set[asyncio.Task[None]] = set()
        self._wake = threading.Condition()
        self._queue: BatchQueue[Part] = BatchQueue(max_jobs=max_queued, max_bytes=max_queued_bytes)
        self._running: list[Job[Part]] = []
        # What is queued or running, by the key of the text as it stands: the answer for one that only folds to the same
        # may have spans. `max_queued` also bounds those who wait for one running window instead of queueing their own.
        self._asked: dict[bytes, dict[Job[Part], None]] = {}
        self._max_followers = max_queued
        # Admission: texts get one window each in turn, so the first windows of those that wait stand before a newcomer.
        # Whom they would make late is told so at once, instead of waiting for nothing. The first batch sets the pace;
        # nobody is refused while nobody waits, so that one slow batch cannot shut the door for good.
        self._waiting_tokens = 0
        self._pace = math.inf
        self._patience = math.inf
        self._swap: _Swap | None = None
        self._swapping = asyncio.Lock()
        self._open = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone = asyncio.Event()
        self._counters = Counters()

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head of the model that serves now."""
        return self._labels

    @property
    def version(self) -> str:
        """Version of the model that serves now."""
        return self._version

    def stats(self) -> EngineStats:
        """Counters since the start, and how much waits now."""
        return self._counters.snapshot(queued=len(self._queue), queued_bytes=self._queue.queued_bytes)

    async def start(self) -> None:
        """Warms the model up on a thread, then serves. Raises UnusableModel when the warm-up fails."""
        if self._thread is not None:
            raise RuntimeError("the engine was started before")
        self._loop = asyncio.get_running_loop()
        await _warm_up(self._model)
        self._open = True
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Refuses new texts, fails those that wait, lets the batch in flight finish, and ends the thread."""
        self._open = False
        with self._wake:
            left = self._queue.clear()
            self._wake.notify()
        for job in left:
            self._fail(job.payload.reading, ModelFailed("the classifier is shutting down"))
        for asking in self._asking:
            asking.cancel()
        if self._thread is not None:
            await self._gone.wait()
            self._thread.join()

    async def classify(self, prompt: Prompt, deadline: float, patience: float = math.inf) -> Classified:
        """See `inference.base.Classifier.classify`. Overloaded also when the turn would come after the deadline.

        Where the queue is full, a text of which something has been read is answered by that.
        """
        if not self._open:
            raise ModelFailed("the classifier is not running")
        now = time.monotonic()
        if deadline <= now:
            self._counters.late += 1
            raise DeadlineExceeded("no time left to classify")
        self._patience = min(deadline - now, patience)
        loop = asyncio.get_running_loop()
        windows = cut(prompt.text, limit=self._max_windows)
        reading = Reading(loop.create_future(), len(prompt.text), len(windows))
        follows: list[tuple[Job[Part], Window]] = []
        for index in reading_order(len(windows)):
            window = windows[index]
            part = Prompt(window.text, prompt.context)
            keys = keys_of(self._version, part, folds=self._folds)
            known = self._memory.recall(keys)
            running = self._running_now(keys[-1]) if known is None else None
            if known is not None:
                self._counters.remembered += 1
                reading.add(window, known)
            elif running is not None:
                self._counters.remembered += 1
                follows.append((running, window))
            else:
                self._counters.unknown += 1
                reading.jobs.append(reading.job(window, part, keys, self._version, deadline, now))
        if len(reading.done) == reading.windows:
            self._counters.texts += 1
            self._finish(reading)
            return reading.future.result()
        leading = reading.jobs[0].tokens if reading.jobs else 0
        accepted = not reading.jobs
        # A text of which something has been read has an answer, whatever becomes of the rest.
        late = self._waiting_tokens > 0 and self._waiting_tokens + leading > self._pace * (deadline - now)
        hopeless = late and not reading.done
        if reading.jobs and not hopeless:
            with self._wake:
                accepted = self._queue.offer(reading.jobs)
                if accepted:
                    self._wake.notify()
        if not accepted:
            self._counters.refused += 1
            # One with more time than texts have as a rule was begun early, and is asked for again: there may be room.
            if reading.done and deadline - now <= patience:
                self._finish(reading)
                reading.jobs.clear()
                return reading.future.result()
            raise Overloaded("its turn would come too late" if hopeless else "the classifier's queue is full")
        self._counters.texts += 1
        for job in reading.jobs:
            self._asked.setdefault(job.payload.keys[-1], {})[job] = None
        for running, window in follows:
            running.payload.followers.append((reading, window))
        self._waiting_tokens += leading
        timer = loop.call_later(deadline - now, self._expire, reading)
        if self._elsewhere is not None and reading.jobs:
            asking = loop.create_task(self._ask(self._elsewhere, list(reading.jobs), self._version, self._labels))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        try:
            return await reading.future
        except asyncio.CancelledError:
            self._counters.cancelled += 1
            raise
        finally:
            self._waiting_tokens -= leading
            timer.cancel()
            self._drop(reading)

    async def swap(self, model: Model) -> None:
        """Warms `model` up beside the one that serves, then lets it take over between two batches.

        Raises UnusableModel when the warm-up fails; the old model goes on serving then.
        """
        async with self._swapping:
            await _warm_up(model)
            if not self._open:
                raise UnusableModel("the classifier is not running")
            swap = _Swap(model, asyncio.get_running_loop().create_future())
            with self._wake:
                self._swap = swap
                self._wake.notify()
            await swap.taken

    # On the event loop.

    async def _ask(self, elsewhere: Elsewhere, jobs: Sequence[Job[Part]], version: str, labels: Labels) -> None:
        """Takes over what another replica has read, of the windows that are still to be read here."""
        answers = await elsewhere.recall([job.payload.keys for job in jobs], version, labels)
        for job, answer in zip(jobs, answers, strict=True):
            keys = job.payload.keys
            if answer is not None:
                self._memory.keep(key_for(answer, keys), answer)
            if answer is not None and self._answer(keys[-1], answer):
                self._counters.shared += 1
            else:
                self._counters.unshared += 1

    def _answer(self, key: bytes, answer: Classified) -> bool:
        """Gives what was said of a window to all who still wait for it. Returns whether anybody did.

        Those of them that are queued need not run any more. One that is running does, for nobody: its answer is late.
        """
        jobs = self._asked.pop(key, {})
        with self._wake:
            for job in jobs:
                self._queue.drop(job)
        waited = False
        for job in jobs:
            for reading, window in job.payload.waiting():
                if reading.future.done() or window.start in reading.read:
                    continue
                waited = True
                reading.add(window, answer)
                if len(reading.done) == reading.windows:
                    self._finish(reading)
        return waited

    def _deliver(self, finished: Sequence[tuple[Job[Part], Classified | InferenceError]]) -> None:
        for job, outcome in finished:
            part = job.payload
            if isinstance(outcome, InferenceError):
                self._forget(job)
                for reading, window in part.waiting():
                    if not reading.future.done() and window.start not in reading.read:
                        self._counters.failed += 1
                        self._fail(reading, outcome)
                continue
            # A model that was swapped in meanwhile has other keys and labels.
            if outcome.version == part.version:
                key = key_for(outcome, part.keys)
                self._memory.keep(key, outcome)
                if self._elsewhere is not None and outcome.version == self._version:
                    self._elsewhere.keep(key, outcome, self._labels)
            self._answer(part.keys[-1], outcome)

    def _expire(self, reading: Reading) -> None:
        """The deadline has come: what has been read of a long text is an answer, nothing is not."""
        if reading.future.done():
            return
        if reading.done:
            self._counters.partial += 1
            self._finish(reading)
        else:
            self._counters.late += 1
            self._fail(reading, DeadlineExceeded("not classified in time"))

    def _finish(self, reading: Reading) -> None:
        reading.of_one_version()
        try:
            pooled = combine(reading.in_order(), coverage=reading.coverage())
            if len(reading.done) < reading.windows:
                pooled = replace(pooled, cut_short=True)
        except Exception as error:
            log.exception("the windows of a text could not be pooled")
            self._fail(reading, ModelFailed(f"pooling failed: {type(error).__name__}"))
        else:
            reading.future.set_result(pooled)

    def _fail(self, reading: Reading, error: InferenceError) -> None:
        if not reading.future.done():
            reading.future.set_exception(error)

    def _drop(self, reading: Reading) -> None:
        if len(reading.done) < reading.windows:
            with self._wake:
                for job in reading.jobs:
                    self._queue.drop(job)
            for job in reading.jobs:
                if not job.taken:
                    self._forget(job)
        # The jobs know their reading: emptying it here spares the garbage collector a cycle per request.
        reading.jobs.clear()

    def _running_now(self, key: bytes) -> Job[Part] | None:
        """The job that is reading this window now, if one is that can be followed."""
        for job in self._asked.get(key, ()):
            if job.taken and len(job.payload.followers) < self._max_followers:
                return job
        return None

    def _forget(self, job: Job[Part]) -> None:
        """Nobody can follow this job any more, and no answer to another one is for it."""
        key = job.payload.keys[-1]
        asked = self._asked.get(key, {})
        asked.pop(job, None)
        if not asked:
            self._asked.pop(key, None)

    def _taken_over(self, swap: _Swap) -> None:
        self._labels = swap.model.labels
        self._version = swap.model.version
        self._folds = swap.model.folds
        if not swap.taken.done():
            swap.taken.set_result(None)

    def _worker_gone(self) -> None:
        """The thread has ended; on purpose, or by something that no batch may survive (then nobody may wait for it)."""
        self._open = False
        with self._wake:
            left = self._queue.clear() + self._running
            swap, self._swap = self._swap, None
        for job in left:
            for reading, _ in job.payload.waiting():
                self._fail(reading, ModelFailed("the inference thread has ended"))
        if swap is not None and not swap.taken.done():
            swap.taken.set_exception(UnusableModel("the inference thread has ended"))
        self._gone.set()

    # On the inference thread.

    def _work(self) -> None:
        assert self._loop is not None
        try:
            while True:
                with self._wake:
                    while self._open and self._swap is None and not len(self._queue):
                        self._wake.wait()
                    if not self._open:
                        return
                    swap, self._swap = self._swap, None
                    if swap is None:
                        self._running = self._queue.take(self._budget(), time.monotonic())
                if swap is not None:
                    self._model = swap.model
                    self._loop.call_soon_threadsafe(self._taken_over, swap)
                elif self._running:
                    finished = self._run(self._running)
                    self._loop.call_soon_threadsafe(self._deliver, finished)
                    self._running = []
        except BaseException:
            log.critical("the inference thread has ended", exc_info=True)
            raise
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._worker_gone)

    def _budget(self) -> int:
        """Padded tokens of the next batch: what is best for the device, less where the cores are busy with others."""
        best = self._max_batch_tokens or self._model.batch_tokens
        affordable = self._pace * self._patience / PATIENCE_SHARE
        return best if affordable >= best else max(min(best, LEAST_BATCH_TOKENS), int(affordable))

    def _run(self, batch: Sequence[Job[Part]]) -> list[tuple[Job[Part], Classified | InferenceError]]:
        """One forward pass. A batch that raises is run again one by one, so that only what is to blame fails."""
        started = time.monotonic()
        try:
            results = self._model.run([job.payload.prompt for job in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} texts")
        except Exception as error:
            if len(batch) > 1:
                log.warning("a batch of %d failed (%s); running its texts one by one", len(batch), error)
                return [outcome for job in batch for outcome in self._run([job])]
            log.warning("a text could not be classified", exc_info=True)
            return [(batch[0], ModelFailed(f"the forward pass failed: {type(error).__name__}"))]
        run_ms = (time.monotonic() - started) * 1e3
        pace = sum(job.tokens for job in batch) / max(run_ms / 1e3, 1e-6)
        self._pace = pace if self._pace == math.inf else 0.8 * self._pace + 0.2 * pace
        self._counters.batch(
            [result.tokens for result in results], [started - job.payload.queued_at for job in batch], run_ms
        )
        return [
            (
                job,
                replace(
                    result,
                    queue_ms=(started - job.payload.queued_at) * 1e3,
                    run_ms=run_ms,
                    batch_size=len(batch),
                ),
            )
            for job, result in zip(batch, results, strict=True)
        ]


async def _warm_up(model: Model) -> None:
    try:
        await in_own_thread(model.warm_up)
    except Exception as error:
        raise UnusableModel(f"model {model.version} fails its warm-up: {error}") from error
