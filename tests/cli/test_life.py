"""The life of a trained folder, command by command."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from retract import __version__
from retract.cli.output import size
from retract.stores import status as stores_status
from tests.cli.commands import SETTINGS, Answer, in_process_of_its_own, on_disk, retract
from tests.stores.folders import TINY, load, served

METRICS = {"recall@20", "ndcg@20"}
TRAINED = {
    "system",
    "seconds",
    "prepare_seconds",
    "peak_mb",
    "metrics",
    "memory_bytes",
    "bytes_up",
    "bytes_down",
    "rounds",
    "resumed_at",
    "client_updates_per_second",
}
MEASURED_IN_TIME = {"seconds", "peak_mb", "client_updates_per_second"}


def train(data: Path, out: Path, *options: object) -> Answer:
    return retract("train", "fedshare", "--data", data, "--out", out, "--json", *SETTINGS, *options)


def shared_items(folder: Path, user: str) -> list[str]:
    held = load(folder)
    return [str(held.catalog.item_ids[item]) for item in held.trained.shared.items_of(held.catalog.user(user))]


@pytest.mark.slow
def test_every_command_answers_with_the_keys_that_scripts_rely_on(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = train(ratings, out).json
    assert trained.keys() >= TRAINED
    assert trained["metrics"].keys() >= METRICS
    assert (trained["rounds"], trained["resumed_at"]) == (int(TINY["rounds"]) + int(TINY["start_rounds"]), None)
    best = retract("recommend", out, "--user", "u1", "-k", 3, "--json").json
    assert best["user"] == "u1"
    assert [line.keys() for line in best["items"]] == [{"item", "title", "score"}] * 3
    asked = retract("unshare", out, "--user", "u1", "--json").json
    assert asked.keys() >= {"request", "kind", "user", "count", "pending"}
    status = retract("status", out, "--json").json
    assert status.keys() >= {"system", "version", "users", "items", "shared", "private", "pending", "applied"}
    assert (status["system"], status["version"], status["users"], status["items"]) == ("fedshare", 1, 12, 15)
    done = retract("unlearn", out, "--json").json
    assert done.keys() >= {"requests", "forgotten", "seconds", "rounds", "metrics", "memory_bytes"}
    assert done["metrics"].keys() >= METRICS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unshare", "erase"])
@pytest.mark.parametrize("part", ["some", "half", "all"])
def test_a_request_waits_and_changes_nothing_until_it_is_applied(folder: Path, kind: str, part: str) -> None:
    items = shared_items(folder, "u1")
    choice = {"some": ["--items", ",".join(items)], "half": ["--fraction", "0.5"], "all": ["--all"]}[part]
    everything = len(items) if kind == "unshare" else 5
    count = {"some": len(items), "half": everything // 2, "all": everything}[part]
    recommended = retract("recommend", folder, "--user", "u1", "--json").json
    before = retract("status", folder, "--json").json

    asked = retract(kind, folder, "--user", "u1", *choice, "--json").json
    assert (asked["kind"], asked["user"], asked["count"], asked["pending"]) == (kind, "u1", count, 1)
    waiting = retract("status", folder, "--json").json
    assert (waiting["pending"], waiting["applied"], waiting["shared"]) == (1, 0, before["shared"])
    assert [(one["id"], one["status"]) for one in waiting["requests"]] == [(asked["request"], "pending")]
    assert retract("recommend", folder, "--user", "u1", "--json").json == recommended

    done = retract("unlearn", folder, "--json").json
    assert (done["requests"], done["forgotten"]) == (1, count)
    after = retract("status", folder, "--json").json
    assert (after["pending"], after["applied"]) == (0, 1)
    assert after["requests"][0]["status"] == "completed"
    assert after["version"] == before["version"] + 1
    moved = before["shared"] - after["shared"]
    if kind == "unshare":
        assert (moved, after["private"]) == (count, before["private"] + count)
        had = {line["item"] for line in retract("recommend", folder, "--user", "u1", "--json").json["items"]}
        assert not had & set(items)  # the user's own client still knows them
    elif part == "all":
        assert after["users"] == before["users"] - 1
        assert "unknown user 'u1'" in retract("recommend", folder, "--user", "u1").refusal()

    whole = on_disk(folder)
    assert retract("unlearn", folder, "--json").json["requests"] == 0
    assert on_disk(folder) == whole


@pytest.mark.slow
def test_people_are_told_what_was_done_and_what_comes_next(ratings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for arguments, told in (
        (["train", "fedshare", "--data", ratings, "--out", out, *SETTINGS], f"Next: retract recommend {out}"),
        (["status", out], "0 pending, 0 applied"),
        (["recommend", out, "--user", "u2"], " 10 "),
        (["erase", out, "--user", "u2"], f"Next: retract unlearn {out}"),
        (["status", out], "erase"),
        (["unlearn", out], "1 request(s) applied: 5 interactions forgotten"),
        (["unlearn", out], f"Nothing is pending in {out}: nothing was changed."),
        (["status", out], "0 pending, 1 applied"),
    ):
        answer = retract(*arguments)
        assert (answer.code, answer.err) == (0, ""), arguments
        assert told in answer.out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_folder_and_figures(ratings: Path, tmp_path: Path) -> None:
    def life(name: str, seed: int) -> tuple[dict[str, str], list[dict[str, object]]]:
        out = tmp_path / name
        trained = train(ratings, out, "--seed", seed).json
        for kind in ("unshare", "erase"):
            retract(kind, out, "--user", f"u{len(kind)}", "--fraction", 0.5, "--seed", seed)
        figures = [trained, retract("unlearn", out, "--seed", seed, "--json").json]
        files: dict[str, str] = {}
        for half in ("server", "devices"):
            found = json.loads((served(out, half) / "manifest.json").read_bytes())["files"]
            files |= {f"{half}/{name}": digest for name, digest in found.items()}
        # Those say how long it took, and which run and withdrawal it was.
        named = {"server/log.jsonl", "server/config.json"}
        stable = {name: digest for name, digest in files.items() if name not in named}
        return stable, [{key: value for key, value in one.items() if key not in MEASURED_IN_TIME} for one in figures]

    first, again, other = life("a", 3), life("b", 3), life("c", 4)
    assert first == again
    assert first[0]["server/model.safetensors"] != other[0]["server/model.safetensors"]
    assert first[1] != other[1]


@pytest.mark.slow
def test_a_request_is_there_for_the_next_process_and_stdout_is_its_answer_alone(folder: Path) -> None:
    answer = in_process_of_its_own("unshare", folder, "--user", "u1", "--json")
    assert answer.err == ""
    assert [request["id"] for request in retract("status", folder, "--json").json["requests"]] == [
        answer.json["request"]
    ]


def test_what_is_odd_but_allowed_is_said_on_stderr(ratings: Path, tmp_path: Path) -> None:
    rows = ratings.read_text().splitlines()
    data = tmp_path / "odd.csv"
    data.write_text("\n".join([*rows, *rows[1:4], "lone,never seen again,4"]))
    answer = train(data, tmp_path / "run")
    assert answer.json["notes"] == [line.removeprefix("note: ") for line in answer.err.splitlines()]
    assert "3 duplicate interactions left out: the mean of its ratings counts" in answer.json["notes"]
    assert "1 user has a single interaction: it is never held out" in answer.json["notes"]
    assert retract("status", tmp_path / "run", "--json").json["users"] == 13
    assert retract("erase", tmp_path / "run", "--user", "lone", "--json").json["count"] == 1


def test_an_item_that_nobody_touches_in_training_is_kept_and_said(tmp_path: Path) -> None:
    data = tmp_path / "folds.csv"
    data.write_text("user,item,fold\na,x,train\na,y,train\nb,y,train\nb,z,test\n")
    answer = train(data, tmp_path / "run")
    assert answer.err == "note: items that nobody touches in the training part, kept all the same: 1 of 3\n"
    assert answer.json["items"] == 3
    left = retract("recommend", tmp_path / "run", "--user", "b", "--json").json  # more than ten are not there
    assert {line["item"] for line in left["items"]} == {"x"}


def test_columns_that_are_not_found_can_be_named(tmp_path: Path) -> None:
    data = tmp_path / "odd.csv"
    data.write_text("who,what\n" + "".join(f"{user},{item}\n" for user in "ab" for item in "xyz"))
    assert train(data, tmp_path / "run", "--user-col", "who", "--item-col", "what").json["users"] == 2


@pytest.mark.parametrize("debug", [False, True])
def test_our_own_fault_is_one_line_and_a_traceback_for_those_who_ask(
    folder: Path, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(stores_status, "status", broken)
    monkeypatch.setenv("RETRACT_DEBUG", str(int(debug)))
    code, out, err = retract("status", folder)
    assert (code, out) == (1, "")
    assert err.endswith("error: RuntimeError: two lines. This is our fault; RETRACT_DEBUG=1 shows where it happened\n")
    assert (err.count("\n") > 1, "Traceback" in err) == (debug, debug)


HEAVY = {"torch", "polars", "scipy", "matplotlib", "pandas", "sympy"}
QUICK = """
import sys
from retract.cli import main
code = main(sys.argv[1:])
sys.exit(code or ", ".join({heavy} & {{name.partition(".")[0] for name in sys.modules}}) or None)
"""


def quick(*arguments: object) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command in a process of its own that ends badly where it loaded anything heavy, and its seconds of work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", QUICK.format(heavy=HEAVY), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize("command", ["help", "status"])
def test_help_and_status_are_quick_for_they_load_nothing_that_computes(folder: Path, command: str) -> None:
    arguments = {"help": ["--help"], "status": ["status", folder]}[command]
    runs = [quick(*arguments) for _ in range(3)]
    for done, _ in runs:
        assert (done.returncode, done.stderr) == (0, "")
    assert min(seconds for _, seconds in runs) <= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["train", "-h"], ["audit", "--help"], ["--version"]])
def test_every_help_loads_nothing_that_computes(arguments: list[str]) -> None:
    done, _ = quick(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_every_command() -> None:
    done = retract("--help")
    made, used = ["demo", "train", "tune"], ["recommend", "extend", "ship", "status"]
    names = [*made, *used, "unshare", "erase", "unlearn", "verify", "audit", "compare", "keys"]
    places = [done.out.index(f" {name} ") for name in names]
    assert places == sorted(places)
    assert done.err == ""
    assert retract("--version").out == f"retract {__version__}\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (999_999, "1 MB"), (1_234_567, "1.23 MB"), (5 * 10**13, "50 TB")]
)
def test_bytes_are_told_in_three_digits(count: int, text: str) -> None:
    assert size(count) == text
