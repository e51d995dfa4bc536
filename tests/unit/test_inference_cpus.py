from __future__ import annotations

import os
from pathlib import Path

import pytest

from router_extproc.inference.cpus import available_cores

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", HERE),
        ("100000 100000", 1),
        ("150000 100000", min(2, HERE)),
        ("1000 100000", 1),
        ("rubbish", HERE),
    ],
)
def test_the_containers_quota_counts(tmp_path: Path, limit: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert available_cores(tmp_path) == cores


def test_the_older_layout_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cores(tmp_path) == HERE


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == HERE
