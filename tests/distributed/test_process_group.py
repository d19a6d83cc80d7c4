"""The variables of launchers give each process its rank, and the processes communicate."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from support import processes, worker_process

from cpsam.errors import UserError
from cpsam.train.distributed import Distributed
from cpsam.train.launcher import FIRST_PORT, PORTS, first_host, read_launcher
from cpsam.train.rendezvous import rendezvous


def test_without_a_launcher_a_process_is_alone() -> None:
    assert read_launcher({"HOME": "/root", "SLURM_JOB_ID": "7"})[0] == Distributed()
    alone = Distributed()
    assert (
        alone.run_on_main(lambda: 3),
        alone.broadcast_bytes(b"ab"),
        alone.main_first(lambda: 5),
    ) == (
        3,
        b"ab",
        5,
    )


@pytest.mark.parametrize(
    ("variables", "expected", "address"),
    [
        (
            {
                "RANK": "1",
                "WORLD_SIZE": "4",
                "LOCAL_RANK": "0",
                "MASTER_ADDR": "head",
                "MASTER_PORT": "29400",
                "SLURM_PROCID": "9",
            },
            Distributed(1, 4, 0, True),
            ("head", 29400),
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_NTASKS": "8",
                "SLURM_LOCALID": "1",
                "SLURM_NODELIST": "gpu[003-007]",
            },
            Distributed(5, 8, 1, True),
            ("gpu003",),
        ),
        (
            {
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "8",
                "SLURM_STEP_NUM_TASKS": "2",  # a step of fewer tasks than the job has
                "SLURM_LOCALID": "1",
                "SLURM_JOB_NODELIST": "a1,b2",
                "SLURM_STEP_NODELIST": "b2",
                "MASTER_PORT": "1234",
            },
            Distributed(1, 2, 1, True),
            ("b2", 1234),
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},
            Distributed(),
            ("",),
        ),  # a batch script without srun
    ],
    ids=["torchrun", "srun", "step", "batch"],
)
def test_the_variables_of_launchers(
    variables: dict[str, str], expected: Distributed, address: tuple[str, int]
) -> None:
    found, *where = read_launcher(variables)
    assert found == expected
    assert tuple(where)[: len(address)] == address


def test_the_port_is_of_the_job_and_the_step() -> None:
    def port(job: str, step: str) -> int:
        names = {
            "SLURM_PROCID": "0",
            "SLURM_NTASKS": "2",
            "SLURM_LOCALID": "0",
            "SLURM_JOB_ID": job,
            "SLURM_STEP_ID": step,
        }
        return read_launcher(names)[2]

    ports = [port("1000", "0"), port("1000", "0"), port("1000", "1"), port("1001", "0")]
    assert ports[0] == ports[1] and len(set(ports)) == 3
    assert all(FIRST_PORT <= number < FIRST_PORT + PORTS for number in ports)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("", ""),
        ("one", "one"),
        ("n1,n2", "n1"),
        ("n[09-12,3]", "n09"),
        ("a[1,3]-ib,b", "a1-ib"),
        ("rack2-n[7],x", "rack2-n7"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


TORCHRUN = {
    "RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29400",
}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"RANK": "0"},
            "RANK is set and WORLD_SIZE is not: start with torchrun or srun, or unset RANK",
        ),
        (
            {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            "RANK, WORLD_SIZE, LOCAL_RANK must be whole numbers; got x, 2, 0",
        ),
        (
            {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            "RANK must be from 0 to below WORLD_SIZE; got 2 of 2",
        ),
        (
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
            "SLURM_PROCID is set and SLURM_LOCALID is not",
        ),
        ({**TORCHRUN, "WORLD_SIZE": "-3"}, "must be whole numbers; got 0, -3, 0"),
        ({**TORCHRUN, "WORLD_SIZE": "0"}, "WORLD_SIZE must be from 1 to 100,000; got 0"),
        (
            {**TORCHRUN, "WORLD_SIZE": "9" * 5000},
            "must be whole numbers; got 0, 99999999999999999999, 0",
        ),
        (
            {**TORCHRUN, "LOCAL_RANK": "9"},
            "LOCAL_RANK must be from 0 to below WORLD_SIZE; got 9 of 2",
        ),
        (
            {**TORCHRUN, "MASTER_PORT": "abc"},
            "MASTER_PORT must be a whole number from 1 to 65,535; got 'abc'",
        ),
        ({**TORCHRUN, "MASTER_PORT": "0"}, "MASTER_PORT must be"),
        ({**TORCHRUN, "MASTER_PORT": "65536"}, "MASTER_PORT must be"),
        (
            {**TORCHRUN, "MASTER_ADDR": "no such"},
            "MASTER_ADDR must be the name or the address of a machine; got 'no such'",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_launcher(variables)


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_what_the_processes_communicate(tmp_path: Path, launcher: str) -> None:
    variables = (
        {"SLURM_JOB_ID": str(processes.free_port()), "SLURM_NODELIST": "localhost"}
        if launcher == "srun"
        else {}
    )
    group = processes.launch(3, worker_process.communicate, tmp_path, **variables)
    assert [processes.end(process) for process in group] == [0, 0, 0]
    for rank in range(3):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["together"] == {"from": 0}
        assert bytes.fromhex(found["share"]) == b"\x00bytes"
        assert found["total"] == [3.0, 3.0]
        assert found["copied"] == [0.0]
        assert found["before"][0] >= min(rank, 1), "process 0 was first"
        assert found["error"] == ["no, says 0", rank > 0]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpsam.train.rendezvous.FIRST_REPORT_SECONDS", 0.1)
    monkeypatch.setattr("cpsam.train.rendezvous.GIVE_UP_SECONDS", 0.5)


@pytest.mark.parametrize(
    ("rank", "what"), [(0, "waiting for 1 of 2 processes at"), (1, "waiting for process 0 at")]
)
def test_a_missing_process_is_told_and_then_given_up(hasty: None, rank: int, what: str) -> None:
    port, said = processes.free_port(), []
    with pytest.raises(
        UserError,
        match=f"gave up {what} 127.0.0.1:{port}" if rank == 0 else r"gave up|did not meet",
    ):
        rendezvous(rank, 2, "127.0.0.1", port, said.append)
    assert said[0] == f"{what} 127.0.0.1:{port}"


def test_a_service_that_is_no_process_of_ours_is_told(hasty: None) -> None:
    said: list[str] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(UserError, match=r"gave up|did not meet"):
            rendezvous(1, 2, "127.0.0.1", listener.getsockname()[1], said.append)
    assert said[0].startswith("waiting for process 0 at")


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"MASTER_PORT: port {port} of this machine is in use"):
            rendezvous(0, 2, "127.0.0.1", port, lambda words: None)


def test_an_unknown_address_is_told() -> None:
    with pytest.raises(
        UserError, match=r"MASTER_ADDR: the address 'nowhere\.invalid' is not known"
    ):
        rendezvous(1, 2, "nowhere.invalid", 29500, lambda words: None)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_the_wait_at_once(rank: int) -> None:
    def strike(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before, started = signal.signal(signal.SIGTERM, strike), time.monotonic()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main_thread, signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            rendezvous(rank, 2, "127.0.0.1", processes.free_port(), lambda words: None)
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - started < 5
