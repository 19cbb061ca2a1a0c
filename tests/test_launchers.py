"""Which processes share a training, by the variables of torchrun, SLURM, MPI and of earlier programs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from emoface.errors import SettingsError
from emoface.learning.launchers import Processes, find_processes

TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
    **{"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5", "LOCAL_RANK": "1"},
}


def test_torchrun_and_fabric_share_one_training() -> None:
    assert find_processes(TORCHRUN) == Processes(rank=5, n_all=8, n_local=4)
    fabric = {**TORCHRUN, "LT_CLI_USED": "1"}
    assert find_processes(fabric) == Processes(rank=5, n_all=8, n_local=4, are_joined=True)


@pytest.mark.parametrize(
    "left_over",
    [
        {},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "4"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
        {"RANK": "3", "LOCAL_RANK": "3", "NODE_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "x"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "", "LOCAL_WORLD_SIZE": "4"},
    ],
)
def test_left_over_variables_train_in_one_process(left_over: dict[str, str]) -> None:
    assert find_processes(left_over) == Processes(rank=0, n_all=1, n_local=1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but neither torchrun nor 'fabric run' started this process"),
        ({"WORLD_SIZE": "two"}, "environment variable WORLD_SIZE is 'two', expected a whole number; unset it"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS is 4: srun started 4 processes"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2: mpirun started 2 processes"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR or MASTER_PORT is not set"),
        ({**TORCHRUN, "RANK": "8"}, "RANK is 8, LOCAL_WORLD_SIZE 4 and WORLD_SIZE 8, expected a rank below"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE 0 and WORLD_SIZE 8"),
    ],
)
def test_unclear_variables_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        find_processes(variables)
    assert message in str(refused.value)


def test_fabric_trains_in_one_process_among_the_variables_of_slurm() -> None:
    """In a batch job of 8 tasks, Fabric by itself stops with a traceback about --ntasks."""
    code = (
        "from emoface.jobs.train import build_fabric; fabric = build_fabric('cpu', '32'); "
        "print(fabric.world_size, fabric.global_rank, fabric.is_global_zero)"
    )
    left_over = {"SLURM_NTASKS": "8", "SLURM_PROCID": "2", "SLURM_JOB_NAME": "train", "RANK": "3", "NODE_RANK": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **left_over}, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "1 0 True\n"), answer.stderr
