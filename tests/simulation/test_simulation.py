"""A slice of random histories, and the proof that the simulator would see it if a guarantee broke."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import __main__ as program
from tests.simulation.actions import Arrive, Talk
from tests.simulation.clients import Violation
from tests.simulation.history import HEAL_MS, QUIET_MS, History, run
from tests.simulation.plan import Plan, draw
from tests.simulation.plants import PLANTS, SEARCH, Plant, found
from tests.simulation.report import play_all
from tests.simulation.shrink import explain, retrace, shrink, violation_of

SLICE = 100
KNOWN = 20
"""Seeds whose histories are compared with themselves."""


@pytest.mark.parametrize("first", range(0, SLICE, 10))
def test_histories_keep_the_guarantees(first: int) -> None:
    for seed in range(first, first + 10):
        happened = run(seed)
        assert happened["acks"] > 0
        assert happened["entries"] >= happened["acks"]


def test_a_slice_has_faults_of_every_kind() -> None:
    totals = list(play_all(0, SLICE, 1))[-1]
    assert [what for what, number in totals.lines() if not number and what != "resumes"] == []


# --- the same seed is the same history -----------------------------------------------------------------------------


def told(seed: int) -> list[str]:
    history = History(draw(seed), tracing=True)
    history.play()
    return [str(line) for line in history.lines]


def test_the_same_seed_is_the_same_history() -> None:
    for seed in range(KNOWN):
        assert told(seed) == told(seed)


def test_being_watched_changes_nothing() -> None:
    for seed in range(KNOWN):
        assert History(draw(seed), tracing=True).play() == run(seed)


def test_it_is_the_same_in_every_process_whatever_the_order_of_its_sets() -> None:
    digest = f"from tests.simulation.history import run; print([run(seed) for seed in range({KNOWN})])"
    here = str([run(seed) for seed in range(KNOWN)])
    for hash_seed in "1", "2":
        command = [sys.executable, "-c", digest]
        done = subprocess.run(command, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == here


def test_the_number_of_processes_changes_nothing() -> None:
    one, three = (list(play_all(0, 60, processes))[-1] for processes in (1, 3))
    assert one.counts == three.counts
    assert one.violations == three.violations
    assert one.histories == three.histories == 60


# --- the end of a history ------------------------------------------------------------------------------------------


def quiet_plan(*, patient: bool) -> Plan:
    actions = Arrive(at_ms=0, user=1), Talk(at_ms=100, user=1, pick=0.0, other=2)
    return Plan(7, 2, 2, ((1, (2, 3)),), patient, actions, (0, 1))


def test_a_history_ends_when_all_is_quiet_and_as_it_should_be() -> None:
    happened = History(quiet_plan(patient=False)).play()
    assert happened["acks"] == 1
    assert QUIET_MS <= happened["virtual ms"] <= QUIET_MS + 5_000


def test_a_patient_history_goes_on_to_its_end() -> None:
    assert History(quiet_plan(patient=True)).play()["virtual ms"] == 100 + HEAL_MS


def test_what_is_not_as_it_should_be_is_waited_for_and_then_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.gateway.Gateway.subscriptions_loaded", lambda *_: [])
    history = History(quiet_plan(patient=False))
    with pytest.raises(Violation, match=r"^seed 7, step \d+: user 1: never answered: u1m1$"):
        history.play()
    assert history.lasted_ms == 100 + HEAL_MS


def test_a_defect_of_the_machinery_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("room:1")

    monkeypatch.setattr("actors.host.Host.loaded", broken)
    with pytest.raises(Violation, match=r"^seed 7, step \d+: KeyError: 'room:1'$"):
        History(quiet_plan(patient=False)).play()


# --- planted bugs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_seen(plant: Plant) -> None:
    seeds, violation = found(plant)
    print(f"{plant.name}: {seeds} seeds: {violation}")
    assert seeds <= SEARCH
    assert plant.says in violation


def test_no_bug_is_left_planted() -> None:
    for plant in PLANTS:
        before = vars(plant.owner)[plant.attribute]
        with plant.planted():
            assert vars(plant.owner)[plant.attribute] is not before
        assert vars(plant.owner)[plant.attribute] is before


# --- a violation is explained --------------------------------------------------------------------------------------


@pytest.fixture
def forgetful() -> Plant:
    return next(plant for plant in PLANTS if plant.name == "forgotten re-attachment")


def test_a_failing_history_is_made_small(forgetful: Plant) -> None:
    with forgetful.planted():
        violation = violation_of(draw(0))
        assert violation is not None
        small = shrink(draw(0), violation)
        assert len(small.kept) < len(draw(0).kept) / 2
        assert violation_of(small) is not None
        for index in small.kept:
            rest = tuple(kept for kept in small.kept if kept != index)
            assert rest == () or "has seen" not in (violation_of(draw(0).only(rest)) or "")


def test_an_explanation_says_how_to_run_it_again(forgetful: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    with forgetful.planted():
        violation = violation_of(draw(0))
        assert violation is not None
        *said, command = explain(0, violation).splitlines()
        assert said[0] == violation
        assert command.startswith("run it again: python -m tests.simulation --first 0 --seeds 1 --only ")
        assert program.main(command.split()[6:]) == 1
    shown = capsys.readouterr().out
    assert said[1].removeprefix("made small: ") in shown
    assert "-- Arrive(" in shown


def test_a_trace_shows_nothing_of_other_conversations(forgetful: Plant) -> None:
    with forgetful.planted():
        trace = retrace(draw(0), "u1s2: has seen room:1 up to 2, its head is #3")
    assert "room:1" in trace
    lines = trace.split("what happened:")[1].splitlines()
    assert not any("commits room:2" in line or "commits dm:" in line or "shows u2" in line for line in lines)


# --- the program ---------------------------------------------------------------------------------------------------


def test_the_program_says_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = tmp_path / "about.json"
    assert program.main(["--seeds", "30", "--first", "40", "--processes", "2", "--json", str(about)]) == 0
    shown = capsys.readouterr().out
    assert "killed hosts" in shown
    figures = json.loads(about.read_text())
    assert figures["histories"] == 30
    assert figures["violations"] == []
    assert figures["acks"] == sum(run(seed)["acks"] for seed in range(40, 70))


def test_the_program_fails_with_a_violation(
    forgetful: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "EXPLAINED", 0)
    with forgetful.planted():
        assert program.main(["--seeds", "3", "--processes", "1", "--json", str(tmp_path / "about.json")]) == 1
    seeds = [violation["seed"] for violation in json.loads((tmp_path / "about.json").read_text())["violations"]]
    assert seeds == sorted(seeds)
    assert f"run it again: python -m tests.simulation --first {seeds[0]} --seeds 1" in capsys.readouterr().out
