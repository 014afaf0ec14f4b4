"""Give one command while one thing is wrong, judge what it does, mend the thing, give it again.

The rule is one for all faults. While the fault is there the command ends by itself with a
documented exit code, without a traceback, and its error names the file or setting; or it succeeds
and its result is the undisturbed one, or it says by the file's name why it is another (a run goes
back to the checkpoint before a damaged one). Once the fault is gone, the same command gives the
undisturbed result: nothing is lost.

Commands run in forks of this process, which has imported everything: a fault costs a fraction of a
second.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.workspace import Task, snapshot, stage

DOCUMENTED = {0, 1, 2, 3, 4, 129, 130, 141, 143}
TIMEOUT_SECONDS = 60.0

Undo = Callable[[], None]


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong while one command runs."""

    kind: str
    name: str
    task: Task
    strike: Callable[[Path], object] | None = None
    """Alters the workspace before the command."""
    undo: Callable[[Path], object] | None = None
    """Mends the workspace after it; by default nothing is left to mend."""
    inside: Callable[[], object] = _nothing
    """Done in the command's process, before the command."""
    names: tuple[str, ...] = ()
    """One of these stands in the error; empty: any words will do."""
    arguments: tuple[str, ...] | None = None
    """In place of the task's."""
    file: str = ""
    """Files that the fault itself alters: where nobody reads them, they may stay as they are."""
    must_refuse: bool = False
    """Success is a fault: nobody can do what was asked."""
    again: bool = True
    """If true, a command that failed is given once more when the fault is gone."""
    deaths: tuple[int, ...] = ()
    """Signals that may end the process; the fault sends them."""


@dataclass(frozen=True)
class Ended:
    """The end of a command."""

    code: int
    """The exit code, or minus the signal."""
    out: str
    err: str
    seconds: float
    timed_out: bool = False


@dataclass
class Verdict:
    """The effect of a fault."""

    fault: Fault
    problems: dict[str, str] = field(default_factory=dict)
    """Kind of failure (traceback, unnamed, silent, lost, hang) to what was seen."""
    code: int = 0


@dataclass(frozen=True)
class Bench:
    """Where faults are tried: the undisturbed folders, and the path that commands work in."""

    reference: Path
    work: Path
    results: dict[str, dict[str, str]]
    """The result of each task when nothing is wrong."""
    changes: dict[str, int]
    """The number of times that each task changes the file system (``instants``)."""

    def try_out(self, fault: Fault) -> Verdict:
        """Run one fault through the rule."""
        verdict = Verdict(fault)
        stage(self.reference, self.work, fault.task)
        if fault.strike is not None:
            fault.strike(self.work)
        arguments = fault.arguments or fault.task.arguments
        ended = run(arguments, self.work, fault.inside)
        verdict.code = ended.code
        _judge_end(fault, ended, verdict)
        if ended.code == 0:
            expected = self.results[fault.task.name]
            if fault.must_refuse:
                verdict.problems["silent"] = "it succeeded"
            elif (
                fault.arguments is None
                and differing(fault, result_of(self.work, fault.task, ended), expected)
                and not any(name in ended.err for name in fault.names[:1])
            ):
                verdict.problems["silent"] = "it succeeded with another result, and said nothing"
        if fault.undo is not None:
            fault.undo(self.work)
        if ended.code != 0 and fault.again and fault.task.makes:
            self._again(fault, verdict)
        return verdict

    def _again(self, fault: Fault, verdict: Verdict) -> None:
        """Give the command again: it succeeds, and its result is the undisturbed one."""
        ended = run(fault.task.arguments, self.work)
        if ended.code != 0:
            verdict.problems["lost"] = f"given again: exit {ended.code}: {ended.err.strip()[-600:]}"
        elif others := differing(
            fault, result_of(self.work, fault.task, ended), self.results[fault.task.name]
        ):
            verdict.problems["lost"] = f"given again: other results in {others[:4]}"


def differing(fault: Fault, found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the names of results that are not the undisturbed ones."""
    names = sorted(found.keys() | expected)
    return [name for name in names if name != fault.file and found.get(name) != expected.get(name)]


def result_of(work: Path, task: Task, ended: Ended) -> dict[str, str]:
    """Return digests of what a task made, or what it printed."""
    return {"printed": ended.out} if task.prints else snapshot(work, task.makes)


def _judge_end(fault: Fault, ended: Ended, verdict: Verdict) -> None:
    problems = verdict.problems
    if ended.timed_out:
        problems["hang"] = f"no end after {TIMEOUT_SECONDS:.0f} s"
        return
    killed = ended.code < 0 and -ended.code in fault.deaths
    if "Traceback" in ended.err or "please report" in ended.err:
        problems["traceback"] = ended.err.strip()[-900:]
    elif ended.code not in DOCUMENTED and not killed:
        problems["traceback"] = f"exit {ended.code}: {ended.err.strip()[-300:]}"
    said = ended.err + (ended.out if ended.code == 1 else "")
    refused = ended.code in (1, 2, 3, 4)
    if refused and fault.names and not any(name in said for name in fault.names):
        problems["unnamed"] = f"exit {ended.code}: {said.strip()[-400:]}"


def run(
    arguments: tuple[str, ...],
    work: Path,
    inside: Callable[[], object] = _nothing,
    modules: Path | None = None,
) -> Ended:
    """Run a feldspar command in a fork of this process.

    The names of all that is imported in the end go into the file ``modules``.
    """
    began = time.monotonic()
    (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        for descriptor, number in ((out_write, 1), (err_write, 2)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        _become_the_command(arguments, work, inside, modules)
    os.close(out_write)
    os.close(err_write)
    texts, timed_out = _read(pid, (out_read, err_read), began)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, *texts, time.monotonic() - began, timed_out)


def _become_the_command(
    arguments: tuple[str, ...], work: Path, inside: Callable[[], object], modules: Path | None
) -> None:
    """Never returns: this fork is the command from here on."""
    code = 70
    try:
        os.setsid()
        os.chdir(work)
        from feldspar.cli.main import run_with

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        inside()
        code = run_with(list(arguments))
        if modules is not None:
            modules.write_text("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        import traceback

        if isinstance(error, SystemExit) and isinstance(error.code, int):
            code = error.code
        else:
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _read(pid: int, pipes: tuple[int, int], began: float) -> tuple[tuple[str, str], bool]:
    parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    unread = list(pipes)
    timed_out = False
    while unread:
        left = TIMEOUT_SECONDS - (time.monotonic() - began)
        ready, _, _ = select.select(unread, [], [], max(left, 0))
        if not ready:
            timed_out = True
            os.kill(pid, signal.SIGKILL)
            break
        for pipe in ready:
            data = os.read(pipe, 1 << 16)
            if data:
                parts[pipe].append(data)
            else:
                unread.remove(pipe)
    for pipe in pipes:
        os.close(pipe)
    out, err = (b"".join(parts[pipe]).decode("utf-8", "replace") for pipe in pipes)
    return (out, err), timed_out


def spread(count: int, wanted: int) -> Iterator[int]:
    """Yield at most ``wanted`` numbers from 0 to ``count`` - 1, evenly, the ends among them."""
    if count <= wanted:
        yield from range(count)
        return
    yield from dict.fromkeys(round(i * (count - 1) / (wanted - 1)) for i in range(wanted))
