"""Replicas have names of their own that last, and NCCL takes containers apart that share a host's name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.identity import name_nccl_host, nccl_host

NAME = (
    "import sys; from pathlib import Path; from services.identity import replica_name;"
    "print(replica_name(Path(sys.argv[1])), flush=True)"
)


def start(folder: Path, *, stays: bool = False) -> "subprocess.Popen[str]":
    program = f"{NAME}; input()" if stays else NAME
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def name_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_replica_that_starts_again_has_its_name_and_one_beside_it_has_another(tmp_path: Path) -> None:
    first = start(tmp_path, stays=True)
    name = name_of(first)
    second = start(tmp_path, stays=True)
    beside = name_of(second)
    assert beside != name
    first.kill()
    first.wait()
    again = start(tmp_path)
    assert name_of(again) == name
    again.communicate()
    second.communicate("\n")
    first.communicate()


def test_containers_with_folders_of_their_own_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    names = []
    for folder in ("a", "b", "not there/at all"):
        process = start(tmp_path / folder)
        names.append(name_of(process))
        process.communicate()
    assert len(set(names)) == 3


def test_names_are_kept_where_caches_are(tmp_path: Path) -> None:
    code = "from services.identity import replica_name; print(replica_name())"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    name = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    [kept] = tmp_path.glob("ratchet-replicas-*/0")
    assert name.strip().endswith(kept.read_text(encoding="ascii"))


def test_one_host_is_what_shares_memory_and_process_ids(tmp_path: Path) -> None:
    assert nccl_host() == nccl_host()
    assert nccl_host(shared_memory=tmp_path) != nccl_host()
    assert nccl_host(processes=tmp_path) != nccl_host()
    assert nccl_host(shared_memory=tmp_path / "absent").count("none") == 1


def test_what_the_operator_has_set_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_HOSTID", "mine")
    name_nccl_host()
    assert os.environ["NCCL_HOSTID"] == "mine"
    monkeypatch.delenv("NCCL_HOSTID")
    name_nccl_host()
    assert os.environ["NCCL_HOSTID"] == nccl_host()
    monkeypatch.delenv("NCCL_HOSTID")
