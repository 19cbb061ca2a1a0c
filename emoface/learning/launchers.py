"""How many processes share a training, from the variables that launchers of processes leave in the environment.

``torchrun`` and ``fabric run`` start the processes of one training. Variables of other launchers, and those left over
from an earlier program, do not: a job in a batch system trains in one process as on a desk.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from emoface.errors import SettingsError

_HOW = "start the processes with 'torchrun --nproc-per-node N -m emoface train ...'"
_WATCH_SECONDS = 0.5
_TASKS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}
"""Variables that other launchers set in each of the processes that they start, with the number of processes."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a training.

    Attributes:
        rank: Number of this process among all, from 0.
        n_all: Number of processes.
        n_local: Number of processes on this machine.
        are_joined: Whether the launcher has joined the processes already, as ``fabric run`` does.
    """

    rank: int = 0
    n_all: int = 1
    n_local: int = 1
    are_joined: bool = False


def find_processes(environment: Mapping[str, str] | None = None) -> Processes:
    """Finds the processes that share this training.

    Args:
        environment: The environment variables; None reads those of this process.

    Raises:
        SettingsError: Another launcher started several processes, each of which would train on its own; or variables
            of a launcher are incomplete or no numbers.

    Example:
        >>> find_processes({"SLURM_NTASKS": "8", "RANK": "3", "WORLD_SIZE": "1"})
        Processes(rank=0, n_all=1, n_local=1, are_joined=False)
    """
    found = os.environ if environment is None else environment
    is_fabric = found.get("LT_CLI_USED") == "1"
    if _are_launched(found):
        if not found.get("MASTER_ADDR") or not found.get("MASTER_PORT"):
            raise SettingsError(
                f"MASTER_ADDR or MASTER_PORT is not set, though other variables of torchrun are; {_HOW}, or unset "
                "TORCHELASTIC_RUN_ID and LT_CLI_USED to train in one process"
            )
        n_all = _read_number(found, "WORLD_SIZE", 1)
        processes = Processes(
            rank=_read_number(found, "RANK", _read_number(found, "LOCAL_RANK", 0)),
            n_all=n_all,
            n_local=_read_number(found, "LOCAL_WORLD_SIZE", n_all),
            are_joined=is_fabric,
        )
        if not 0 <= processes.rank < n_all or not 1 <= processes.n_local <= n_all:
            raise SettingsError(
                f"RANK is {processes.rank}, LOCAL_WORLD_SIZE {processes.n_local} and WORLD_SIZE {n_all}, expected a "
                f"rank below the number of processes; {_HOW}"
            )
        return processes
    for name, launcher in _TASKS.items():
        if (n_tasks := _read_number(found, name, 1)) > 1:
            raise SettingsError(
                f"{name} is {n_tasks}: {launcher} started {n_tasks} processes, each of which would train on its own; "
                f"start one with {launcher} and in it {_HOW.removeprefix('start ')}"
            )
    if (n_all := _read_number(found, "WORLD_SIZE", 1)) > 1:
        raise SettingsError(
            f"WORLD_SIZE is {n_all}, but neither torchrun nor 'fabric run' started this process; {_HOW}, or unset "
            "WORLD_SIZE to train in one process"
        )
    return Processes()


def end_with_launcher() -> None:
    """Makes this process end when the launcher that started it has died, even by SIGKILL; nothing without launcher.

    Otherwise the processes would go on without anybody who could stop them, or wait forever for one that has failed,
    and hold the lock of their run. Every file is written in one step, so the training resumes from its last epoch.
    """
    if _are_launched(os.environ):
        threading.Thread(target=_end_with, args=(os.getppid(),), name="end with launcher", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:  # the process of an ended parent gets another one
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _are_launched(environment: Mapping[str, str]) -> bool:
    return environment.get("LT_CLI_USED") == "1" or "TORCHELASTIC_RUN_ID" in environment


def _read_number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise SettingsError(
            f"the environment variable {name} is '{text}', expected a whole number; unset it"
        ) from error
