from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_extproc.inference.queue import BUCKETS, BatchQueue, Job

FOREVER = 1e9
TOKENS = st.integers(1, 700)


def job(tokens: int, name: str = "", *, size: int = 1, deadline: float = FOREVER) -> Job[str]:
    return Job(name, tokens, size, deadline)


def queue(max_jobs: int = 1000, max_bytes: int = 10**9) -> BatchQueue[str]:
    return BatchQueue(max_jobs=max_jobs, max_bytes=max_bytes)


def drain(waiting: BatchQueue[str], budget: int, now: float = 0.0) -> list[list[Job[str]]]:
    batches = []
    while batch := waiting.take(budget, now):
        batches.append(batch)
    return batches


@given(st.lists(st.lists(TOKENS, min_size=1, max_size=9), max_size=20), st.integers(1, 4096))
def test_every_job_runs_once_and_no_batch_is_over_budget(texts: list[list[int]], budget: int) -> None:
    waiting = queue()
    offered = [[job(tokens) for tokens in text] for text in texts]
    for jobs in offered:
        assert waiting.offer(jobs)
    batches = drain(waiting, budget)
    ran = [job for batch in batches for job in batch]
    assert len(ran) == len(set(map(id, ran)))
    assert {id(job) for job in ran} == {id(job) for jobs in offered for job in jobs}
    for batch in batches:
        assert len(batch) == 1 or max(job.tokens for job in batch) * len(batch) <= budget
    assert len(waiting) == 0
    assert waiting.queued_bytes == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.lists(TOKENS, min_size=1, max_size=6)),
            st.tuples(st.just("drop"), st.integers(0, 50)),
            st.tuples(st.just("take"), st.integers(1, 2048)),
        ),
        max_size=60,
    )
)
def test_bounds_hold_and_accounting_is_exact_through_any_history(history: list[tuple[str, object]]) -> None:
    waiting = queue(max_jobs=20, max_bytes=60)
    wanted: list[Job[str]] = []
    for action, argument in history:
        match action, argument:
            case "offer", list(lengths):
                jobs = [job(tokens, size=3) for tokens in lengths]
                before = len(wanted)
                accepted = waiting.offer(jobs)
                assert accepted == (before == 0 or (before + len(jobs) <= 20 and 3 * (before + len(jobs)) <= 60))
                if accepted:
                    wanted += jobs
            case "drop", int(index) if index < len(wanted):
                waiting.drop(wanted.pop(index))
            case "take", int(budget):
                batch = waiting.take(budget, 0.0)
                assert bool(batch) == bool(wanted)
                for taken in batch:
                    wanted.remove(taken)
            case _:
                pass
        assert len(waiting) == len(wanted)
        assert waiting.queued_bytes == 3 * len(wanted)
    assert {id(job) for job in waiting.clear()} == {id(job) for job in wanted}


@given(st.lists(TOKENS, min_size=2, max_size=40), st.integers(1, 2048))
def test_texts_of_one_length_bucket_run_in_order_of_arrival(lengths: list[int], budget: int) -> None:
    waiting = queue()
    for number, tokens in enumerate(lengths):
        waiting.offer([job(tokens, str(number))])
    ran = [int(job.payload) for batch in drain(waiting, budget) for job in batch]
    for bucket in range(len(BUCKETS)):
        low = BUCKETS[bucket - 1] if bucket else 0
        high = BUCKETS[bucket] if bucket < len(BUCKETS) - 1 else 10**9
        same = [number for number in ran if low < lengths[number] <= high]
        assert same == sorted(same)


def test_a_long_text_does_not_hold_up_short_ones_that_come_later() -> None:
    waiting = queue()
    waiting.offer([job(250, "long") for _ in range(64)])
    waiting.take(256, 0.0)
    for _ in range(20):
        waiting.offer([job(20, "short")])
    ahead = 0
    while (batch := waiting.take(512, 0.0))[0].payload == "long":
        ahead += len(batch)
    assert ahead <= 2
    assert len(batch) == 20


def test_a_long_text_is_not_starved_by_short_ones_that_keep_coming() -> None:
    waiting = queue()
    waiting.offer([job(250, "long") for _ in range(8)])
    served = []
    for _ in range(200):
        waiting.offer([job(60, "short")])
        served += [job.payload for job in waiting.take(250, 0.0)]
    assert served.count("long") == 8


def test_short_windows_top_up_a_batch_of_longer_ones_but_not_the_reverse() -> None:
    waiting = queue()
    waiting.offer([job(100, "first")])
    waiting.offer([job(10, "short")])
    waiting.offer([job(400, "longer")])
    assert [job.payload for job in waiting.take(4096, 0.0)] == ["first", "short"]
    assert [job.payload for job in waiting.take(4096, 0.0)] == ["longer"]


def test_expired_and_dropped_jobs_never_run() -> None:
    waiting = queue()
    expired, dropped, kept = job(10, deadline=5.0), job(10), job(10)
    for each in (expired, dropped, kept):
        waiting.offer([each])
    waiting.drop(dropped)
    waiting.drop(dropped)
    assert waiting.take(4096, 5.0) == [kept]
    assert len(waiting) == 0


def test_a_full_queue_takes_all_windows_of_a_text_or_none() -> None:
    waiting = queue(max_jobs=4)
    assert waiting.offer([job(1) for _ in range(3)])
    assert not waiting.offer([job(1), job(1)])
    assert len(waiting) == 3
    assert waiting.offer([job(1)])


def test_a_storm_of_dropped_jobs_leaves_nothing_behind() -> None:
    waiting = queue(max_jobs=10)
    for _ in range(10_000):
        gone = job(10)
        assert waiting.offer([gone])
        waiting.drop(gone)
    assert sum(len(heap) for heap in waiting._heaps) <= 65
    assert waiting.take(4096, 0.0) == []
