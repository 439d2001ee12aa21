"""The command of experiments, as a person types it."""

import json
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from serving.experiments.assignment import unit_hash
from serving.experiments.store import ExperimentStore, Exposure
from serving.registry.experiment import app
from serving.registry.phases import live_id
from serving.registry.rollback import Wish, roll_back
from serving.registry.versions import get_version, register_version, resolve

README = Path(__file__).parents[3] / "README.md"
NOWHERE = "http://127.0.0.1:9"
WRITES = ("start", "advance", "reallocate", "pause", "resume", "rollback", "abandon", "promote")


class Terminal:
    """Types commands; ``tracking`` is where the registry is."""

    def __init__(self, store, live, work):
        self.options = ["--store", store, "--live", str(live), "--models", str(work)]
        self.tracking = NOWHERE
        self.live = live

    def __call__(self, *arguments, fails=False):
        arguments = [str(one) for one in arguments]
        if arguments[0] in WRITES:
            arguments += [] if "--reason" in arguments else ["--reason", "이유 [b]"]
        done = CliRunner().invoke(app, [*self.options, "--tracking", self.tracking, *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert (done.exit_code != 0) == fails, done.output
        return done.stderr if fails else done.stdout


@pytest.fixture
def type_(store_address, tmp_path):
    return Terminal(store_address, tmp_path / "live", tmp_path / "work")


@pytest.fixture
def at_registry(type_, versions):
    """The same, with a registry that has versions 1, 2 and 3."""
    type_.tracking = versions.uri
    return type_


@pytest.fixture
def written(tmp_path, experiment_values):
    """Writes the experiment's file, changed."""

    def write(changes=None):
        path = tmp_path / "experiment.yaml"
        text = yaml.safe_dump(experiment_values(changes), allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_from_a_file_to_a_champion(at_registry, written, versions, catalogue):
    type_ = at_registry
    assert "no experiment yet" in type_("list")
    assert "lighter  version 1, " in type_("new", written())
    assert "lighter  version 1, " in type_("new", written())
    assert "draft" in type_("show", "lighter")
    started = type_("start", "lighter", "--by", "kim")
    assert "running, phase 1 shadow" in started
    assert "가벼운 모델도 똑같이 답한다 🙂" in started
    assert "이유 [b]" in started  # not rich's markup
    for expected, *command in (
        ("phase 2 canary", "advance", "lighter"),
        ("now 0.8  lighter 0.2", "reallocate", "lighter", "now=0.8", "lighter=0.2"),
        ("everybody is answered by now", "pause", "lighter"),
        ("running, phase 3 canary", "resume", "lighter"),
        ("running, phase 4 ab", "advance", "lighter"),
    ):
        assert expected in type_(*command)
    promoted = type_("promote", "lighter", "--anyway")
    assert "everybody is answered by 'lighter'" in promoted
    assert "sentiment/2 is champion now, version '1' was" in promoted
    assert resolve(versions, "sentiment", "champion").version == "2"
    assert "sentiment/2 is champion now" in type_(
        "promote", "lighter", "--anyway"
    )  # again, as after a kill
    assert "promoted" in type_("list")
    actions = [one.event.action for one in catalogue.get("lighter").history]
    assert actions == ["start", "advance", "reallocate", "pause", "resume", "advance", "promote"]
    assert catalogue.get("lighter").history[0].event.by == "kim"


@pytest.mark.parametrize(
    ("command", "state"), [("rollback", "rolled_back"), ("abandon", "abandoned")]
)
def test_what_stops_an_experiment_needs_no_registry(at_registry, written, command, state):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    type_.tracking = NOWHERE
    assert f"{state}, phase 1 shadow; everybody is answered by now" in type_(command, "lighter")
    assert "nothing: it has ended" in type_("show", "lighter")
    assert "everybody is answered by now" in type_("route")
    refused = type_("resume", "lighter", fails=True)
    assert f"cannot 'resume' experiment 'lighter': it is '{state}'" in refused


def test_a_promotion_turns_the_traffic_though_the_registry_is_away(at_registry, written, catalogue):
    type_, phases = at_registry, [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}]
    type_("new", written({"phases": phases}))
    type_("start", "lighter")
    there, type_.tracking = type_.tracking, NOWHERE
    assert "MLflow does not answer" in type_("promote", "lighter", "--anyway", fails=True)
    assert "everybody is answered by lighter" in type_("route")
    type_.tracking = there
    assert "sentiment/2 is champion now" in type_("promote", "lighter", "--anyway")


def test_an_alias_that_was_moved_by_hand_is_told(at_registry, written, versions):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    versions.client.set_registered_model_alias("sentiment", "champion", "3")
    told = type_("advance", "lighter")
    assert "sentiment@champion names version '3' by now; arm 'now' stays '1'" in told
    type_("advance", "lighter")
    told = type_("promote", "lighter", "--anyway")
    assert "sentiment@champion names version '3', not the control's '1'" in told
    assert resolve(versions, "sentiment", "champion").version == "3"


def test_a_command_applies_what_a_killed_one_had_committed(at_registry, written):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    serving = live_id(type_.live)
    (type_.live / "deployment.json").unlink()
    assert "an earlier command was cut off" in type_("list")
    assert live_id(type_.live) == serving


def test_units_answers_and_failures_of_each_arm_are_shown(
    at_registry, written, store_address, catalogue
):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    type_("advance", "lighter")
    store = ExperimentStore(store_address)
    for number, (arm, status) in enumerate(
        [("now", "ok"), ("now", "ok"), ("now", "failed"), ("lighter", "ok")]
    ):
        store.write(
            [
                Exposure(
                    request_id=f"r{number}",
                    item=0,
                    experiment_id="lighter",
                    deployment_id=live_id(type_.live),
                    unit=unit_hash("salt", f"u{min(number, 1)}"),
                    arm=arm,
                    model_version="sentiment/1",
                    text_sha256="0" * 64,
                    prediction=b"{}",
                    latency_ms=1.0,
                    created_at_us=1,
                    status=status,
                )
            ]
        )
    store.close()
    [one] = json.loads(type_("list", "--json"))
    counts = {arm["name"]: (arm["units"], arm["answers"], arm["failed"]) for arm in one["arms"]}
    assert counts == {"now": (2, 2, 1), "lighter": (1, 1, 0)}
    shown = json.loads(type_("show", "lighter", "--json"))
    assert shown["specification"]["hypothesis"] == "가벼운 모델도 똑같이 답한다 🙂"
    assert shown["arms"][1]["serves"] == "sentiment/2"
    assert "salt" not in type_("show", "lighter", "--json")


def test_a_unit_is_told_what_it_meets_and_why(at_registry, written, catalogue):
    type_ = at_registry
    type_("new", written())
    hashed = unit_hash(catalogue.salt(), "user-7")
    assert f"unit_hash {hashed}" in type_("unit", "lighter", "user-7")
    assert "will meet now: dealt by its bucket" in type_("unit", "lighter", "user-7")
    type_("new", written({"overrides": {hashed: "lighter"}}))
    type_("start", "lighter")
    type_("advance", "lighter")
    assert "meets lighter: an override names it" in type_("unit", "lighter", "user-7")
    type_("pause", "lighter")
    told = type_("unit", "lighter", "user-7")
    assert "meets now: everybody does" in told


def test_the_query_of_the_assignment_runs(at_registry, written, store_address, tmp_path):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    query = type_("sql", "lighter")
    assert live_id(type_.live) in query
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute(query).fetchall() == []
    assert "ASCII(" in type_("sql", "lighter", "--dialect", "postgresql")


def test_a_file_is_checked_and_planned_without_a_store(type_, written, tmp_path):
    told = type_(
        "check", written(), "--baseline", "0.8", "--lift", "0.02", "--units-per-day", "1000"
    )
    assert "valid; not kept" in told
    # (z of 0.975 + z of 0.8)^2 * (0.8 * 0.2 + 0.82 * 0.18) / 0.02^2 = 6,036 an arm
    assert "needs 12,072 units (6,036 of the control" in told
    assert "12.1 days" in told
    assert not (tmp_path / "store.db").exists()
    told = type_("check", written(), "--baseline", "0.8", fails=True)
    assert "takes all three of them" in told
    told = type_(
        "check",
        written(),
        "--baseline",
        "1.8",
        "--lift",
        "0.02",
        "--units-per-day",
        "9",
        fails=True,
    )
    assert "control_rate=1.8" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"phases": [{"kind": "ab", "allocation": {"now": 0.8, "lighter": 0.3}}]},
            "adds up to 1.1; make it 1",
        ),
        ({"hypothesis": "길다 " * 33_334}, "at most 2000 characters"),
        ({"hypothesis": ""}, "at least 1 character"),
        ({"name": "🙂"}, "name="),
        ({"unit": "session"}, "unit='session'"),
        ({"colour": "red"}, "colour='red'"),
        (
            {
                "arms": [
                    {"name": "now", "model": "models:/sentiment/1"},
                    {"name": "lighter", "model": "models:/sentiment/1"},
                ]
            },
            "are the same model",
        ),
    ],
)
def test_a_file_that_says_no_experiment_is_refused_in_one_short_message(
    type_, written, changes, told
):
    for command in ("check", "new"):
        said = type_(command, written(changes), fails=True)
        assert told in said
        assert len(said) < 2_000
    assert "no experiment yet" in type_("list")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name: [", "is not YAML"),
        (b"\xff\xfe\x00", "cannot read the experiment"),
        (b"- a\n- b\n", "valid dictionary"),
        (b"", "Field required"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(type_, tmp_path, content, told):
    (tmp_path / "odd.yaml").write_bytes(content)
    assert told in type_("new", tmp_path / "odd.yaml", fails=True)
    assert "cannot read the experiment" in type_("new", tmp_path / "absent.yaml", fails=True)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("show", "nobody"), "no experiment 'nobody'"),
        (("start", "nobody"), "no experiment 'nobody'"),
        (("unit", "nobody", "u"), "no experiment 'nobody'"),
        (("sql", "nobody"), "no experiment 'nobody'"),
        (("rollback", "nobody"), "no experiment 'nobody'"),
        (("promote", "lighter"), "cannot 'promote' experiment 'lighter': it is 'draft'"),
        (("promote", "lighter", "--arm", "heavier"), "cannot 'promote'"),
        (("reallocate", "lighter", "now:0.5"), "'now:0.5' is not ARM=SHARE"),
        (("reallocate", "lighter", "now=0.5", "now=0.5"), "stands twice"),
        (("reallocate", "lighter", "now=nan", "lighter=1"), "allocation"),
        (("start", "lighter", "--reason", ""), "reason=''"),
        (("start", "lighter", "--by", "a" * 201), "at most 200 characters"),
        (("start", "lighter"), "MLflow does not answer"),
        (("advance", "lighter"), "cannot 'advance' experiment 'lighter': it is 'draft'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_message(type_, written, command, told):
    type_("new", written())
    said = type_(*command, fails=True)
    assert told in said
    assert "Traceback" not in said
    assert "draft" in type_("show", "lighter")


def test_shares_that_do_not_add_up_open_no_phase(at_registry, written, catalogue):
    type_ = at_registry
    type_("new", written())
    type_("start", "lighter")
    type_("advance", "lighter")
    for shares, told in (
        (("now=0.8", "lighter=0.3"), "adds up to 1.1; make it 1"),
        (("now=1.0",), "give each arm a share"),
        (("now=0.95", "lighter=0.05"), "is what 'lighter' has already"),
    ):
        said = type_("reallocate", "lighter", *shares, fails=True)
        assert told in said
        assert "pydantic" not in said
    assert len(catalogue.get("lighter").lifecycle.opened) == 2


def test_of_several_challengers_the_winner_is_named(type_, written):
    arms = [{"name": name, "model": f"models:/sentiment/{n}"} for n, name in enumerate("abc", 1)]
    phases = [{"kind": "ab", "allocation": {"a": 0.5, "b": 0.25, "c": 0.25}}]
    type_("new", written({"arms": arms, "phases": phases}))
    assert "--arm, one of ['b', 'c']" in type_("promote", "lighter", "--anyway", fails=True)


def test_a_store_that_cannot_be_opened_is_told(type_, tmp_path):
    type_.options[1] = f"sqlite:///{tmp_path}"
    assert "cannot open the experiment store" in type_("list", fails=True)
    type_.options[1] = "redis://there"
    assert "keeps nothing" in type_("list", fails=True)


def test_the_report_is_printed_and_written(at_registry, written, tmp_path):
    type_ = at_registry
    type_("new", written())
    assert "never began" in type_("report", "lighter", fails=True)
    type_("start", "lighter")
    told = type_("report", "lighter", "--lang", "ko", "--out", tmp_path / "out" / "report.html")
    assert told.startswith("invalid  phase 1 (shadow)")
    assert "응답한 기록이 없어" in told
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "가벼운 모델도 똑같이 답한다 🙂" in page
    type_("report", "lighter", "--out", tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (said["experiment"], said["decision"]) == ("lighter", "invalid")
    assert "numbered from 1" in type_("report", "lighter", "--phase", "9", fails=True)


def test_a_promotion_against_the_report_takes_a_word_more_and_is_kept(
    at_registry, written, catalogue
):
    type_, phases = at_registry, [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}]
    type_("new", written({"phases": phases}))
    type_("start", "lighter")
    told = type_("promote", "lighter", fails=True)
    assert "the report on 'lighter' says invalid" in told
    assert catalogue.get("lighter").lifecycle.state == "running"
    type_("promote", "lighter", "--reason", "급해요", "--anyway")
    reason = catalogue.get("lighter").history[-1].event.reason
    assert reason.startswith("급해요 (although the report on 'lighter' says invalid")


def test_after_a_promotion_the_former_champion_may_be_brought_back(
    at_registry, written, versions, store_address
):
    type_, phases = at_registry, [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}]
    type_("new", written({"phases": phases}))
    type_("start", "lighter")
    type_("promote", "lighter", "--anyway")
    assert "with `make rollback`" in type_("rollback", "lighter", fails=True)
    told = []
    wish = Wish(model="sentiment", by="tester", reason="불만이 늘었다")
    roll_back(wish, tracking_uri=versions.uri, store_url=store_address, say=told.append)
    assert told == ["everybody is sent to 'now', version '1'; now the alias"]
    assert "everybody is answered by now" in type_("route")
    assert resolve(versions, "sentiment", "champion").version == "1"
    assert "it stays there" in type_("promote", "lighter", "--anyway")


def test_what_readme_says_is_what_one_types(at_registry, register, versions, tmp_path, monkeypatch):
    for number in (1, 2):
        register_version(
            versions,
            name="matjip-sentiment",
            folder=tmp_path / f"model-{number}",
            tags={"evidence_id": f"e{number}", "gate_verdict": "pass"},
            description="",
            run_id=get_version(versions, "sentiment", "1").run_id,
            idempotency_key=f"readme-{number}",
        )
        alias = "champion" if number == 1 else "challenger"
        versions.client.set_registered_model_alias("matjip-sentiment", alias, str(number))
    block = README.read_text(encoding="utf-8").split("<!-- experiments -->")[1]
    (tmp_path / "serving").symlink_to(README.parent / "serving")
    monkeypatch.chdir(tmp_path)
    for line in block.split("<!-- /experiments -->")[0].strip("`\n").splitlines():
        make, target, arguments = shlex.split(line)
        assert (make, target) == ("make", "experiment")
        shown = at_registry(*shlex.split(arguments.removeprefix("ARGS=")))
        assert "sentiment-int8" in shown or "phase 4 (ab)" in shown
    assert "rolled_back" in shown
