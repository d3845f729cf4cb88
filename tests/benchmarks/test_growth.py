"""Every stage of the growth table runs, on a set that is small."""

from pathlib import Path

from benchmarks.growth import COUNT, make_archives, make_folder, power
from benchmarks.growth_stages import STAGES


def test_every_stage_runs(tmp_path: Path) -> None:
    size = COUNT + 100
    make_folder(tmp_path / "pictures", size)
    make_archives(tmp_path / "archives", size)
    for stage in STAGES.values():
        stage(tmp_path, size)()


def test_the_power_of_growth() -> None:
    rows = [{"samples": 10, "seconds": 9.0}, {"samples": 100, "seconds": 2.0}]
    assert power(rows, "seconds") is not None
    rows.append({"samples": 1000, "seconds": 20.0})
    assert power(rows, "seconds") == 1.0
    assert power(rows[:1], "seconds") is None
