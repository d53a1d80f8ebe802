#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Says what a crash dump shows: which kernel crashed, when and why, whom the
out-of-memory killer had chosen, and the stack of the crashed CPU with the BPF
programs in it. Exits with 1 if the dump does not show one of these.
"""
import argparse
import bisect
import datetime
import os
import re
import sys
import tempfile
import typing

try:
    from drgn import FaultError, MissingDebugInfoError, Program, Symbol, SymbolBinding, SymbolKind, TypeKind
    from drgn import container_of
    from drgn.cli import run_interactive
    from drgn.helpers.linux.cgroup import cgroup_path
    from drgn.helpers.linux.list import list_for_each_entry
    from drgn.helpers.linux.percpu import percpu_counter_sum
    from drgn.helpers.linux.printk import get_printk_records
    from drgn.helpers.linux.sched import task_cpu
except ImportError as error:
    sys.exit(f"report.py: {error}: run it with scripts/enter, or install drgn 0.0.31 or newer")

# The checkout holds sources only.
sys.dont_write_bytecode = True

import orc

# The kernel's half of the address space.
KERNEL = 1 << 63

CHECKOUT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))

# How the kernel log says why: in the words of bpf_destructive, of panic() or of sysrq-c.
WHY = re.compile(r"bpf_destructive: bpf_\w+ by program |Kernel panic - not syncing|sysrq: Trigger a crash")
# What a program said on the console before.
SAID = "bpf_destructive: bpf_console_"


class Missing(Exception):
    """Something that the report needs: what it is, and what to do."""


def why(log):
    """The lines of the kernel log that give the reason of the crash, and what programs said before."""
    lines = [line for line in log if WHY.search(line)]
    if not any(SAID not in line for line in lines):
        raise Missing("the kernel log has neither an attribution line nor a panic line")
    return lines


def crash_time(vmcoreinfo):
    """The crash's wall-clock time, as the kernel noted it in VMCOREINFO."""
    noted = re.search(r"^CRASHTIME=(\d+)$", vmcoreinfo, re.MULTILINE)
    if not noted:
        raise Missing("VMCOREINFO has no CRASHTIME: this is an image of a kernel that did not crash")
    return datetime.datetime.fromtimestamp(int(noted[1]), datetime.timezone.utc)


def line_index(starts, address):
    """Which of the lines that start at the sorted addresses `starts` the address belongs to."""
    return max(bisect.bisect_right(starts, address) - 1, 0)


def relative(path, tops):
    """The path below the first of the directories `tops` that holds it."""
    for top in tops:
        if path.startswith(top + "/"):
            return path[len(top) + 1 :]
    return path.removeprefix("./")


def mib(size):
    return f"{size / (1 << 20):.1f} MiB"


class BpfText:
    """
    The code that the kernel's BPF JIT made: programs, trampolines, dispatchers.

    As a symbol finder it gives drgn their names, which no debugging
    information has. The stack walk needs no help: drgn follows the frame
    pointer where it knows of nothing better, and JITed code keeps one.
    """

    def __init__(self, prog):
        head = prog["bpf_kallsyms"].address_of_()
        self.ksyms = list(list_for_each_entry("struct bpf_ksym", head, "lnode"))
        prog.register_symbol_finder("bpf", self.find, enable_index=0)

    def find(self, _, name, address, one):
        """The symbols with this name, or at this address; see Program.register_symbol_finder()."""
        found = []
        for ksym in self.ksyms:
            start, end = ksym.start.value_(), ksym.end.value_()
            if address is not None and not start <= address < end:
                continue
            symbol = ksym.name.string_().decode()
            if name in (None, symbol):
                found.append(Symbol(symbol, start, end - start, SymbolBinding.GLOBAL, SymbolKind.FUNC))
        return found[:1] if one else found

    def program(self, address):
        """The struct bpf_prog_aux of the program that `address` lies in, or None."""
        for ksym in self.ksyms:
            if ksym.prog and ksym.start <= address < ksym.end:
                return container_of(ksym, "struct bpf_prog_aux", "ksym")
        return None


def program_line(aux, address):
    """File, number and text of the C line that a program's instruction came from."""
    first = aux.linfo_idx.value_()
    starts = [aux.jited_linfo[i].value_() for i in range(first, aux.nr_linfo.value_())]
    line = aux.linfo[first + line_index(starts, address)]

    def text(offset):
        return (aux.btf.strings + offset).string_().decode()

    return text(line.file_name_off), line.line_col.value_() >> 10, text(line.line_off).strip()


def modules_built(kernel):
    """The modules of this project that the kernel's build directory holds."""
    try:
        with open(os.path.join(kernel, "modules.order"), encoding="ascii") as order:
            objects = [line.strip() for line in order if line.startswith("kernel/bpf/")]
    except FileNotFoundError as error:
        raise Missing(f"{error.filename} does not exist: build the kernel first (make kernel)") from error
    return [os.path.join(kernel, os.path.splitext(name)[0] + ".ko") for name in objects]


def open_dump(vmcore, kernel, directory):
    """Opens the dump with the debugging information of its kernel and modules, kept in `directory`."""
    vmlinux, modules = os.path.join(kernel, "vmlinux"), modules_built(kernel)
    for path in [vmcore, vmlinux, *modules]:
        if not os.path.exists(path):
            raise Missing(f"{path} does not exist")
    prog = Program()
    try:
        prog.set_core_dump(vmcore)
    except Exception as error:
        raise Missing(f"{vmcore} is not a crash dump that drgn can read: {error}") from error
    try:
        prog.load_debug_info([orc.readable(path, directory) for path in [vmlinux, *modules]])
        prog["init_uts_ns"]
    except (MissingDebugInfoError, KeyError) as error:
        raise Missing(f"{vmcore} is of another kernel than {vmlinux}, or of another build of it") from error
    except ValueError as error:
        raise Missing(f"{vmlinux}: {error}") from error
    return prog


def oom_control(trace):
    """The struct oom_control of the out-of-memory killer that the stack has gone through."""
    for frame in trace:
        if "oc" not in frame.locals():
            continue
        oc = frame["oc"]
        if not oc.absent_:
            return oc[0] if oc.type_.kind == TypeKind.POINTER else oc
    raise Missing("the stack has not gone through the out-of-memory killer: there is no victim")


def victim(trace):
    """One line about the task to be killed and the cgroup that is out of memory."""
    oc = oom_control(trace)
    prog = oc.prog_
    page = prog["PAGE_SIZE"].value_()
    task = oc.chosen
    counters = [prog[name] for name in ("MM_ANONPAGES", "MM_FILEPAGES", "MM_SHMEMPAGES")]
    resident = sum(percpu_counter_sum(task.mm.rss_stat[i].address_of_()) for i in counters) * page
    line = f"{task.comm.string_().decode()} (pid {task.tgid.value_()}), {mib(resident)} resident"
    if not oc.memcg:
        return line + "; the whole system is out of memory"
    memory = oc.memcg.memory
    used, limit = memory.usage.counter.value_() * page, memory.max.value_() * page
    path = cgroup_path(oc.memcg.css.cgroup).decode()
    return line + f"; cgroup {path} uses {mib(used)} of {mib(limit)}"


class Frame(typing.NamedTuple):
    """One row of the stack: a function, where it was, and for a BPF program the text of that line."""

    name: str
    place: str
    text: typing.Optional[str] = None


def frames(trace, bpf, tops):
    """The rows of the stack, the innermost first."""
    for frame in trace:
        # A return address may already be the next line's or function's: the call is before it.
        address = frame.pc - (not frame.interrupted)
        aux = bpf.program(address)
        if aux is not None and aux.btf and aux.jited_linfo:
            path, line, text = program_line(aux, address)
            yield Frame(frame.name, f"{relative(path, tops)}:{line}", text)
        elif frame.pc < KERNEL:
            yield Frame(frame.name, "user space")
        else:
            try:
                path, line, _ = frame.source()
                yield Frame(frame.name, f"{relative(path, tops)}:{line}")
            except LookupError:
                yield Frame(frame.name, "")


def print_stack(rows):
    """Prints the rows in columns."""
    width = max(len(row.name) for row in rows)
    for number, row in enumerate(rows):
        print(f"{f'#{number}':>5}  {row.name:{width}}  {row.place}".rstrip())
        if row.text is not None:
            print(f"{'':5}  {'':{width}}    {row.text}")


def report(prog, bpf, vmcore, tops):
    """Prints the report, and raises at its end what it could not say."""
    records = get_printk_records(prog)
    thread = prog.crashed_thread()
    trace = thread.stack_trace()
    missing = []

    def row(name, say):
        try:
            print(f"{name:9}{say()}")
        except Missing as error:
            missing.append(str(error))

    def crashed():
        when = crash_time(prog["VMCOREINFO"].string_().decode())
        return f"{when:%Y-%m-%d %H:%M:%S} UTC, {records[-1].timestamp / 1e9:.1f} s after boot"

    def where():
        task = thread.object
        return f"CPU {task_cpu(task)}, task {task.comm.string_().decode()} (pid {task.pid.value_()})"

    def reason():
        return f"\n{'':9}".join(why([record.text.decode(errors="replace") for record in records]))

    row("vmcore", lambda: f"{vmcore}, {mib(os.path.getsize(vmcore))}")
    row("release", lambda: prog["init_uts_ns"].name.release.string_().decode())
    row("crashed", crashed)
    row("where", where)
    row("why", reason)
    row("victim", lambda: victim(trace))

    print("\nThe stack of the crashed CPU, innermost first:")
    print_stack(list(frames(trace, bpf, tops)))
    if not any(bpf.program(frame.pc - 1) for frame in trace):
        missing.append("there is no BPF program in the stack")
    if missing:
        raise Missing("; ".join(missing))


def main():
    parser = argparse.ArgumentParser(description="Says what a crash dump shows.")
    parser.add_argument("vmcore", nargs="?", default="build/run/vmcore", help="the dump [%(default)s]")
    parser.add_argument(
        "--kernel", metavar="DIR", default="build/linux", help="build directory of the kernel [%(default)s]"
    )
    parser.add_argument("--interactive", action="store_true", help="look round in the dump with drgn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        try:
            prog = open_dump(arguments.vmcore, arguments.kernel, directory)
            bpf = BpfText(prog)
            if arguments.interactive and not sys.stdin.isatty():
                raise Missing("--interactive needs a terminal")
            if arguments.interactive:
                run_interactive(prog)
            else:
                report(prog, bpf, arguments.vmcore, [os.path.realpath(arguments.kernel), CHECKOUT])
        except FaultError as error:
            sys.stdout.flush()
            sys.exit(f"report.py: {arguments.vmcore} was cut short, or filtered too much: {error}")
        except Missing as error:
            sys.stdout.flush()
            sys.exit(f"report.py: {error}")


if __name__ == "__main__":
    main()
