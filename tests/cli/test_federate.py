"""The commands of a federation, as far as they need no network."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from retract.federation.flower import programs
from tests.cli.commands import Answer, retract, start, write_ratings


def make_node(tmp_path: Path, *options: object) -> Path:
    """A node, made as `client` makes it before it looks for a server."""
    from retract.data import load
    from retract.stores.node import NodeChoice, NodeFolder

    data = write_ratings(tmp_path / "ratings.csv")
    NodeFolder.create(tmp_path / "node", load(str(data)), NodeChoice(share=0.5))
    return tmp_path / "node"


def test_keys_are_made_once_and_are_for_their_owner_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = retract("federate", "keys", keys, "--host", "192.0.2.1", "--node", "anna", "--json").json["made"]
    assert {"ca.crt", "ca.key", "server.crt", "server.key", "runs.key", "nodes/anna.key", "nodes/anna.pub"} == set(made)
    for name in ("ca.key", "server.key", "runs.key", "nodes/anna.key"):
        assert stat.S_IMODE(os.stat(keys / name).st_mode) == 0o600, name
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    again = retract("federate", "keys", keys, "--node", "anna", "--node", "ben", "--json").json["made"]
    assert again == ["nodes/ben.key", "nodes/ben.pub"]
    assert all(path.read_bytes() == content for path, content in before.items())
    certificate = x509.load_pem_x509_certificate((keys / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "192.0.2.1" in {str(address) for address in names.get_values_for_type(x509.IPAddress)}


@pytest.mark.parametrize("name", ["../x", "a b", "", "a/b"])
def test_a_node_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    assert "node name" in retract("federate", "keys", tmp_path / "keys", "--node", name).refusal()
    assert not (tmp_path / "keys").exists()


def test_a_part_of_an_authority_is_no_authority(tmp_path: Path) -> None:
    retract("federate", "keys", tmp_path / "keys")
    (tmp_path / "keys" / "ca.key").unlink()
    assert "a part of an authority" in retract("federate", "keys", tmp_path / "keys").refusal()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_without_tls_only_this_machine_is_reached(tmp_path: Path, host: str) -> None:
    pytest.importorskip("flwr")
    told = retract("federate", "server", "--keys", tmp_path / "k", "--host", host, "--insecure").refusal()
    assert "--insecure is for this machine alone" in told
    node = make_node(tmp_path)
    told = retract("federate", "client", node, "--server", f"[{host}]:8000", "--insecure").refusal()
    assert "--insecure is for this machine alone" in told


@pytest.mark.parametrize("system", ["lightgcn", "receraser", "unlearnrec"])
def test_central_systems_are_refused_before_anything_is_asked(tmp_path: Path, system: str) -> None:
    told = retract("federate", "run", system, "--out", tmp_path / "m").refusal()
    assert f"{system} is central" in told
    assert not (tmp_path / "m").exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    run = ["federate", "run", "exact", "--out", tmp_path / "m"]
    assert "runs.key is missing" in retract(*run, "--keys", tmp_path / "none").refusal()
    assert "go together" in retract(*run, "--simulate", 2).refusal()
    assert "ca.crt" in retract("federate", "server", "--keys", tmp_path / "none").refusal()
    assert "is no node yet" in retract("federate", "client", tmp_path / "n", "--insecure").refusal()
    assert "give --ca and --key" in retract("federate", "client", tmp_path / "n").refusal()
    assert "is no address" in retract("federate", "client", tmp_path / "n", "--insecure", "--server", "x").refusal()
    for command in ("unshare", "erase", "recommend"):
        assert "is no node" in retract("federate", command, tmp_path / "n", "--user", "u1").refusal()
    assert "is no node" in retract("federate", "leave", tmp_path / "n").refusal()
    assert "no simulated nodes" in retract("federate", "unlearn", tmp_path / "n", "--simulate").refusal()


def test_data_without_users_or_without_a_word_on_sharing_makes_no_node(tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    empty = tmp_path / "empty.csv"
    empty.write_text("user,item\n")
    words = ["federate", "client", tmp_path / "n", "--insecure", "--server", "127.0.0.1:9"]
    assert "empty.csv" in retract(*words, "--data", empty).refusal()
    data = write_ratings(tmp_path / "ratings.csv")
    assert "what is shared is for the users to choose" in retract(*words, "--data", data).refusal()
    assert not (tmp_path / "n" / "node.json").exists()


def test_a_request_is_recorded_beside_the_data_and_tells_how_much(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    found = retract("federate", "erase", node, "--user", "u1", "--json").json
    assert (found["kind"], found["user"], found["count"]) == ("erase", "u1", 5)
    assert (node / "requests" / f"{found['request']}.json").exists()
    assert "nothing left to erase" in retract("federate", "erase", node, "--user", "u1").refusal()
    told = retract("federate", "unshare", node, "--user", "u01", "--suggest").refusal()
    assert "nearest known ids" in told
    assert "has got no model yet" in retract("federate", "recommend", node, "--user", "u2").refusal()


def test_a_node_that_leaves_asks_for_all_its_users(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    assert len(retract("federate", "leave", node, "--json").json["requests"]) == 12


def test_without_flower_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    for words in (["run", "exact", "--out", tmp_path / "m"], ["client", tmp_path / "n", "--insecure"]):
        told = retract("federate", *words, *(["--insecure", "--keys", tmp_path] if words[0] == "run" else [])).refusal()
        assert "pip install 'retract[flower]'" in told or "runs.key is missing" in told


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    import socket

    pytest.importorskip("flwr")
    retract("federate", "keys", tmp_path / "keys")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        told = retract("federate", "server", "--keys", tmp_path / "keys", "--port", port).refusal()
    assert f"port {port} of 127.0.0.1 cannot be used" in told


@pytest.mark.slow
def test_a_simulation_by_ray_lives_a_whole_life(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = write_ratings(tmp_path / "ratings.csv", 24)
    out = tmp_path / "m"
    words = ["--set=form=ease", "--set=count_private=true", "--share", "0.5", "--test", "0.2"]
    run = ["federate", "run", "exact", "--out", out, "--simulate", 3, "--data", data, *words, "--nodes", 3, "--json"]
    trained = ended(start(*run))
    assert (trained["nodes"], trained["users"], trained["rounds"]) == (3, 24, 1)
    assert retract("federate", "erase", tmp_path / "m-nodes" / "0", "--user", "u0", "--json").json["count"] == 5
    forgotten = ended(start("federate", "unlearn", out, "--simulate", "--nodes", 3, "--json"))
    assert (forgotten["requests"], forgotten["rounds"]) == (1, 1)


def ended(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a command printed; Ray takes its time."""
    with process:
        out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out.decode(), err.decode()).json
