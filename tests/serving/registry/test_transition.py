"""Transitions: in which order, what a failure leaves, and what the next call makes of a kill."""

import pytest

from data.errors import EngineError, ExperimentError, MoveRefusedError, RegistryError
from serving.registry.aliases import move_alias, read_ledger
from serving.registry.journal import journals, open_journal
from serving.registry.transition import STEPS, Tools, carry_out, recover, turn_first
from serving.registry.versions import resolve

NAME = "sentiment"


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class FakeRoutes:
    """Who answers everybody, and every turn that was asked for."""

    def __init__(self):
        self.turns = []
        self.error = None

    def turn(self, deployment_id, arm, *, by, reason):
        if self.error is not None:
            raise self.error
        self.turns.append((deployment_id, arm, by, reason))


@pytest.fixture
def routes():
    return FakeRoutes()


@pytest.fixture
def tools(tmp_path, routes):
    def make(kill_at=None, **changes):
        seen = []

        def checkpoint(instant):
            seen.append(instant)
            if instant == kill_at:
                raise Killed

        made = {"models": tmp_path / "fetched", "turn": routes.turn, "checkpoint": checkpoint}
        return Tools(**(made | changes))

    return make


def named(registry, alias):
    found = resolve(registry, NAME, alias)
    return None if found is None else found.version


def ends(registry):
    return [(journal.plan.kind, journal.end) for journal in journals(registry.state)]


def test_a_promotion_fetches_warms_up_moves_and_turns(compared, plan, tools, routes):
    warmed = []

    def warm_up(folder):
        assert named(compared, "champion") == "1"
        warmed.append((folder / "signature.json").is_file())

    journal = carry_out(compared, plan("promote"), tools(warm_up=warm_up))
    assert (journal.end, journal.steps) == ("finished", list(STEPS["promote"]))
    assert warmed == [True]
    assert (named(compared, "champion"), named(compared, "challenger")) == ("2", None)
    assert routes.turns == [("d1", "challenger", "verdict", "구간이 그렇다고 한다")]


def test_a_second_call_does_nothing(compared, plan, tools, routes):
    carry_out(compared, plan("promote"), tools())
    before = read_ledger(compared, NAME)
    assert carry_out(compared, plan("promote"), tools()).end == "finished"
    assert read_ledger(compared, NAME) == before
    assert len(routes.turns) == 1


def test_a_rollback_sends_everybody_to_the_champion_first(compared, plan, tools, routes):
    with pytest.raises(Killed):
        carry_out(compared, plan("roll_back"), tools("before challenger"))
    assert routes.turns == [("d1", "champion", "verdict", "구간이 그렇다고 한다")]
    assert named(compared, "challenger") == "2"
    assert [journal.end for journal in recover(compared, tools())] == ["finished"]
    assert named(compared, "challenger") is None
    tags = compared.client.get_model_version(NAME, "2").tags
    assert tags["rolled_back_by"] == "d1"


def test_a_former_champion_answers_before_the_registry_is_asked(compared, plan, tools, routes):
    carry_out(compared, plan("promote"), tools())
    turn_first(compared.state, plan("restore"), tools())
    assert routes.turns[-1][:2] == ("d1", "champion")
    assert named(compared, "champion") == "2"
    journal = carry_out(compared, plan("restore"), tools())
    assert named(compared, "champion") == "1"
    assert journal.steps == list(STEPS["restore"])


@pytest.mark.parametrize("kill_at", ["before fetch", "after commit", "champion: champion set"])
def test_a_promotion_that_was_killed_is_completed(compared, plan, tools, routes, kill_at):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools(kill_at))
    assert ends(compared) == [("promote", None)]
    [journal] = recover(compared, tools(), name=NAME)
    assert journal.end == "finished"
    assert (named(compared, "champion"), named(compared, "challenger")) == ("2", None)
    assert recover(compared, tools()) == []
    assert [entry.phase for entry in read_ledger(compared, NAME)] == ["moving", "moved"] * 4


def test_another_models_transitions_are_left_alone(compared, plan, tools):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("after commit"))
    assert recover(compared, tools(), name="other") == []
    assert ends(compared) == [("promote", None)]


def test_a_model_that_does_not_warm_up_is_not_promoted(compared, plan, tools, routes):
    def fails(_folder):
        raise EngineError("the graph does not load")

    with pytest.raises(EngineError, match="does not load"):
        carry_out(compared, plan("promote"), tools(warm_up=fails))
    [journal] = journals(compared.state)
    assert (journal.end, journal.reason) == ("refused", "the graph does not load")
    assert (named(compared, "champion"), routes.turns) == ("1", [])
    assert carry_out(compared, plan("promote"), tools()).end == "finished"  # mended, it may


def test_a_model_altered_in_the_store_is_not_promoted(compared, plan, tools, routes):
    for stored in compared.state.glob("artifacts/*/*/artifacts/models/*/evidence.json"):
        stored.write_text("{}")
    with pytest.raises(RegistryError, match="Hash mismatch"):
        carry_out(compared, plan("promote"), tools())
    assert (named(compared, "champion"), routes.turns) == ("1", [])
    assert ends(compared) == [("promote", "refused")]


def test_an_alias_moved_by_hand_before_it_refuses(compared, plan, tools, register, tmp_path):
    compared.client.set_registered_model_alias(NAME, "champion", "2")
    with pytest.raises(MoveRefusedError, match="by hand"):
        carry_out(compared, plan("promote"), tools())
    assert ends(compared) == [("promote", "refused")]
    assert not (tmp_path / "fetched").exists()


def test_an_alias_moved_by_hand_while_it_was_killed_refuses(
    compared, plan, tools, register, make_model, tmp_path
):
    make_model(tmp_path / "model-3", weight=3.0)
    register(tmp_path / "model-3", key="v3", evidence_id="e3")
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("before champion"))
    compared.client.set_registered_model_alias(NAME, "champion", "3")
    [journal] = recover(compared, tools())
    assert journal.end == "refused"
    assert "by hand" in journal.reason
    assert named(compared, "champion") == "3"


def test_a_store_that_is_away_before_the_commit_ends_it(compared, plan, tools, routes):
    routes.error = ExperimentError("the store is away")
    with pytest.raises(ExperimentError, match="away"):
        carry_out(compared, plan("roll_back"), tools())
    assert ends(compared) == [("roll_back", "refused")]
    assert named(compared, "challenger") == "2"


def test_a_store_that_is_away_after_the_commit_leaves_it_for_the_next_call(
    compared, plan, tools, routes
):
    routes.error = ExperimentError("the store is away")
    for _ in range(2):
        with pytest.raises(ExperimentError, match="away"):
            carry_out(compared, plan("promote"), tools())
    assert ends(compared) == [("promote", None)]
    routes.error = None
    assert [journal.end for journal in recover(compared, tools())] == ["finished"]
    assert len(routes.turns) == 1


def test_traffic_is_not_turned_without_a_store(compared, plan, tools):
    with pytest.raises(RegistryError, match="it needs the store of routes"):
        carry_out(compared, plan("roll_back"), tools(turn=None))
    assert carry_out(compared, plan("promote", deployment_id=None), tools(turn=None)).end


def test_bringing_back_ends_a_promotion_that_was_killed(compared, plan, tools, routes):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("champion: champion set"))
    carry_out(compared, plan("restore"), tools())
    assert ends(compared) == [("promote", "superseded"), ("restore", "finished")]
    assert (named(compared, "champion"), named(compared, "challenger")) == ("1", None)
    assert [turn[1] for turn in routes.turns] == ["champion"] * 2  # never to the challenger
    moved = [e.to_version for e in read_ledger(compared, NAME) if e.phase == "moved"]
    assert moved == ["1", "2", "2", None, "1"]
    with pytest.raises(MoveRefusedError, match="not done any more: version '1' was brought back"):
        carry_out(compared, plan("promote"), tools())


def test_bringing_back_leaves_a_promotion_that_never_counted_undone(compared, plan, tools):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("after warm_up"))
    carry_out(compared, plan("restore"), tools())
    assert ends(compared) == [("promote", "superseded"), ("restore", "finished")]
    assert (named(compared, "champion"), named(compared, "challenger")) == ("1", "2")
    assert len(read_ledger(compared, NAME)) == 4


def test_a_promotion_leaves_the_traffic_of_a_champion_that_was_brought_back_elsewhere(
    compared, plan, tools, routes
):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("before traffic"))
    back = plan("restore").evidence  # by another machine, whose journal is not here
    move_alias(compared, NAME, "champion", "1", evidence=back, expected_version="2")
    assert [journal.end for journal in recover(compared, tools())] == ["finished"]
    assert routes.turns == []


def test_traffic_that_does_not_turn_first_ends_the_return(compared, plan, tools, routes):
    carry_out(compared, plan("promote"), tools())
    routes.error = ExperimentError("the store is away")
    with pytest.raises(ExperimentError, match="away"):
        turn_first(compared.state, plan("restore"), tools())
    assert ends(compared) == [("promote", "finished"), ("restore", "refused")]
    assert recover(compared, tools()) == []
    routes.error = None
    turn_first(compared.state, plan("restore"), tools())
    assert carry_out(compared, plan("restore"), tools()).end == "finished"


def test_a_return_that_failed_after_the_traffic_still_ends_what_was_killed_before(
    compared, plan, tools, routes
):
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("champion noted"))

    def fails(_folder):
        raise EngineError("the graph does not load")

    with pytest.raises(EngineError):
        carry_out(compared, plan("restore"), tools(warm_up=fails))
    assert ends(compared) == [("promote", None), ("restore", "refused")]
    assert [journal.end for journal in recover(compared, tools())] == ["superseded"]
    assert [turn[1] for turn in routes.turns] == ["champion"]
    assert (named(compared, "champion"), named(compared, "challenger")) == ("2", None)


def test_an_alias_moved_by_hand_to_the_former_champion_is_not_taken_for_ours(compared, plan, tools):
    carry_out(compared, plan("promote"), tools())
    compared.client.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(MoveRefusedError, match="by hand"):
        carry_out(compared, plan("restore"), tools())
    anew = plan("restore").evidence.model_copy(update={"artifact_digest": "OPS-2"})
    carry_out(compared, plan("restore", expected=None, evidence=anew), tools())
    last = read_ledger(compared, NAME)[-1]
    assert (last.from_version, last.to_version, last.phase) == ("1", "1", "moved")


def test_a_person_can_bring_back_from_what_was_moved_by_hand_after_a_kill(
    compared, plan, tools, register, make_model, tmp_path
):
    make_model(tmp_path / "model-3", weight=3.0)
    register(tmp_path / "model-3", key="v3", evidence_id="e3")
    with pytest.raises(Killed):
        carry_out(compared, plan("promote"), tools("champion: champion set"))
    compared.client.set_registered_model_alias(NAME, "champion", "3")
    carry_out(compared, plan("restore", expected=None), tools())
    assert named(compared, "champion") == "1"
    assert ends(compared) == [("promote", "superseded"), ("restore", "finished")]


def test_what_was_promoted_meanwhile_is_not_rolled_back(compared, plan, tools, routes):
    carry_out(compared, plan("promote"), tools())
    with pytest.raises(MoveRefusedError, match=r"it is the champion.*make rollback"):
        carry_out(compared, plan("roll_back"), tools())
    assert len(routes.turns) == 1


def test_a_champion_that_never_was_is_not_brought_back(compared, plan, tools, routes):
    why = plan("restore").evidence.model_copy(update={"evidence_id": "e2"})
    with pytest.raises(MoveRefusedError, match="only an earlier champion comes back"):
        carry_out(compared, plan("restore", version="2", expected="1", evidence=why), tools())
    assert open_journal(compared.state, plan("restore", version="2", evidence=why)).end == "refused"
