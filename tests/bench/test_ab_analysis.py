import numpy as np
import pandas as pd
import pytest

from bench import ab_analysis, ab_archive
from serving.experiments.archive_units import units_of_archive


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setattr(ab_archive, "HOME", tmp_path)
    return tmp_path


def test_both_figures_are_measured_with_what_they_were_measured_on(home):
    said = []
    figures = ab_analysis.measure(said.append, exposures=20_000)
    assert set(figures) == {"analysis_10m_s", "analysis_10m_gib"}
    seconds, gib = figures["analysis_10m_s"], figures["analysis_10m_gib"]
    assert (seconds.bar, gib.bar) == ("<= 30", "<= 2")
    assert 0.05 < gib.value < 2.0
    assert gib.met
    assert seconds.met == (seconds.value <= 30.0)
    assert "20,000 exposures" in seconds.conditions
    assert "verdict" in seconds.conditions
    assert len(said) == 3


def test_an_archive_is_made_once_and_what_is_outdated_goes(home):
    folder = ab_archive.make(2_000)
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert ab_archive.make(2_000) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    other = ab_archive.make(3_000)
    assert [path.name for path in home.iterdir()] == [other.name]


def test_the_units_are_those_that_pandas_finds(home):
    folder = ab_archive.make(50_000)
    deployed = ab_archive.deployment()
    found = units_of_archive(folder, deployed.experiment_id, deployed.deployment_id, window_days=2)

    shown = pd.read_parquet(folder / "exposures.parquet")
    said = pd.read_parquet(folder / "outcomes.parquet").rename(columns={"created_at": "said_at"})
    both = said.merge(shown, left_on="exposure_event_id", right_on="event_id")
    both = both[both.said_at <= both.created_at + pd.Timedelta(days=2)]
    latest = both.sort_values("said_at").groupby("exposure_event_id").reward.last()
    shown["reward"] = shown.event_id.map(latest)
    units = shown.groupby(["unit", "arm"]).agg(
        first=("created_at", "min"),
        answers=("reward", "size"),
        outcomes=("reward", "count"),
        reward=("reward", "mean"),
    )
    units = units.reset_index().sort_values(["first", "unit"])
    assert found.unit.tolist() == units.unit.tolist()
    assert found.met("challenger").tolist() == (units.arm == "challenger").tolist()
    assert found.exposures.tolist() == units.answers.tolist()
    assert found.outcomes.tolist() == units.outcomes.tolist()
    assert found.labelled.tolist() == units.outcomes.tolist()
    np.testing.assert_allclose(found.reward, units.reward, rtol=1e-12)
    assert 0 < int((found.outcomes == 0).sum()) < len(found.unit) / 2
    assert int((found.exposures > 1).sum()) > 1_000
