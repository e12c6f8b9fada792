"""Tasks as Slurm array jobs: a script for `sbatch`, and waiting for it; not for Slurm's options.

Partition, account, memory and time limit are taken from sbatch's own variables (`SBATCH_PARTITION`,
`SBATCH_ACCOUNT`, `SBATCH_MEM_PER_CPU`, `SBATCH_TIMELIMIT`). All machines must see the working
folder and the sources under the same paths.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from isoflop.core.artifact import write_atomic, write_json
from isoflop.core.engine.placement import ATTEMPTS, killed
from isoflop.core.engine.task import Task, read_output, run_task
from isoflop.core.errors import IsoflopError, RunError

DEFAULT_JOBS = 64
_POLL_SECONDS = 0.5
_ERROR = "error.json"


class Slurm:
    """Each stage an array of at most `jobs` jobs, each with its share of the tasks.

    Args:
        folder: The working folder; scripts, logs and lists of tasks go to `slurm/` in it.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder, self._jobs = folder / "slurm", jobs

    def run(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run the tasks.

        Raises:
            RunError: There is no `sbatch`, a task was lost `ATTEMPTS` times, or one failed.
        """
        waiting = list(tasks)
        for attempt in range(ATTEMPTS):
            if not waiting:
                return
            self._submit(waiting, attempt, done)
            waiting = [task for task in waiting if read_output(task) is None]
        if waiting:
            raise killed(waiting[0], self._folder)

    def _submit(self, tasks: list[Task], attempt: int, done: Callable[[Task], None]) -> None:
        """Submit an array and wait until it ends."""
        folder = self._folder / f"{tasks[0].stage}-{attempt}"
        shutil.rmtree(folder, ignore_errors=True)
        jobs = min(self._jobs, len(tasks))
        for job in range(jobs):
            write_json(folder / f"{job}.json", [asdict(task) for task in tasks[job::jobs]])
        script = folder / "job.sh"
        name = f"isoflop-{tasks[0].stage}-{uuid.uuid4().hex[:8]}"
        write_atomic(script, _script(folder, name, jobs))
        unseen = tasks
        with _submitted(script, name) as waiter:
            while waiter.poll() is None:
                time.sleep(_POLL_SECONDS)
                unseen = _tell(unseen, done)
                self._raise_failure(folder)
        _tell(unseen, done)
        self._raise_failure(folder)

    def _raise_failure(self, folder: Path) -> None:
        for path in sorted(folder.glob(f"*.{_ERROR}")):
            said = json.loads(path.read_text("utf-8"))
            raise RunError(said["what"], where=said["where"], fix=said["fix"])


@contextmanager
def _submitted(script: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """`sbatch` waiting for the array; the jobs are cancelled if this block fails."""
    try:
        waiter = subprocess.Popen(["sbatch", "--wait", str(script)], stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise RunError(
            "there is no `sbatch` here",
            where="--placement slurm",
            fix="Run this on a login node of a Slurm cluster, or choose another placement",
        ) from None
    try:
        yield waiter
    except BaseException:
        with suppress(FileNotFoundError):
            subprocess.run(["scancel", f"--name={name}"], check=False)
        waiter.terminate()
        raise
    finally:
        waiter.wait()


def _script(folder: Path, name: str, jobs: int) -> str:
    python = shlex.join([sys.executable, "-m", "isoflop.core.engine.on_slurm", str(folder)])
    return (
        "#!/bin/bash\n"
        f"#SBATCH --job-name={name}\n"
        f"#SBATCH --array=0-{jobs - 1}\n"
        "#SBATCH --ntasks=1\n"
        "#SBATCH --cpus-per-task=1\n"
        f"#SBATCH --output={folder}/%a.log\n"
        f'exec {python} "$SLURM_ARRAY_TASK_ID"\n'
    )


def _tell(tasks: list[Task], done: Callable[[Task], None]) -> list[Task]:
    """Report the tasks that have finished; returns the others."""
    unseen = []
    for task in tasks:
        if read_output(task) is None:
            unseen.append(task)
        else:
            done(task)
    return unseen


def run_job(folder: Path, job: int) -> int:
    """What one job of an array does: its share of the tasks, one after the other."""
    for item in json.loads((folder / f"{job}.json").read_text("utf-8")):
        task = Task(**{**item, "inputs": tuple(item["inputs"])})
        try:
            run_task(task)
        except IsoflopError as error:
            said = {"what": error.what, "where": error.where, "fix": error.fix}
            write_json(folder / f"{job}.{_ERROR}", said)
            return 1
        except OSError as error:
            said = {"what": str(error), "where": task.label, "fix": f"See {folder}/{job}.log"}
            write_json(folder / f"{job}.{_ERROR}", said)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(run_job(Path(sys.argv[1]), int(sys.argv[2])))
