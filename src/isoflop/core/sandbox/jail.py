"""The first program of a jailed process: locks itself in, then runs what it was given.

Started by `run.py` as a script, in Python's isolated mode, without Isoflop on its path: it may
import the standard library alone. Not to be imported.

What is refused by the kernel is refused to any machine code. System call numbers are those of
Linux's tables for each architecture; where there is no entry, that layer is left out, and
`__protections__` tells the program's reader which ones hold.
"""

import builtins
import contextlib
import ctypes
import json
import os
import platform
import resource
import struct
import sys
import traceback
from typing import Any

# --- seccomp: no sockets, no processes -------------------------------------------------------

# fmt: off
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {
    "x86_64": (
        # sockets
        41, 42, 43, 44, 49, 50, 53, 288,
        # clone, fork, vfork, execve, execveat, clone3
        56, 57, 58, 59, 322, 435,
        # kill, tkill, tgkill, ptrace, process memory, pidfd_open
        62, 200, 234, 101, 310, 311, 434,
        # limits: setrlimit, prlimit64
        160, 302,
        # shared memory and messages, memfd_create
        29, 64, 68, 319,
        # mount and its kin, namespaces, modules, keys, bpf, perf, userfaultfd, io_uring
        165, 166, 155, 161, 272, 308, 175, 313, 246, 320, 169, 167, 248, 249, 250, 321, 298, 323,
        425, 426, 427,
    ),
    "aarch64": (
        198, 199, 200, 201, 202, 203, 206, 242,
        220, 221, 281, 435,
        129, 130, 131, 117, 270, 271, 434,
        164, 261,
        194, 190, 186, 279,
        40, 39, 41, 51, 97, 268, 105, 273, 104, 294, 142, 224, 217, 218, 219, 280, 241, 282,
        425, 426, 427,
    ),
}
# fmt: on
_EPERM = 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Have the kernel answer the refused calls with "not permitted", for good."""
    machine = platform.machine()
    if machine not in _REFUSED:
        return False
    refused = _REFUSED[machine]
    steps = [
        (_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]  # fmt: skip
    if machine == "x86_64":  # the numbers of the x32 form, which would pass by the list
        steps += [(_IF_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]
    for place, number in enumerate(refused):
        steps.append((_IF_EQUAL, len(refused) - place, 0, number))
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    filters = ctypes.create_string_buffer(program)
    head = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(filters))
    given = ctypes.create_string_buffer(head)
    return int(libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, given, 0, 0)) == 0


# --- landlock: no files but its own ----------------------------------------------------------

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_CHANGES = {1: 0x1FF0, 2: 0x3FF0, 3: 0x7FF0}  # removing and making, by version of the interface
_O_PATH = 0o10000000


def _landlock(libc: ctypes.CDLL, own: str) -> bool:
    """Have the kernel keep all files out of reach but those in `own`, and Python's to read."""
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = _EXECUTE | _WRITE_FILE | _READ_FILE | _READ_DIR | _CHANGES[min(version, 3)]
    network = 3 if version >= 4 else 0
    wanted = struct.pack("QQ", handled, network) if version >= 4 else struct.pack("Q", handled)
    rules = libc.syscall(_CREATE, ctypes.create_string_buffer(wanted), len(wanted), 0)
    if rules < 0:
        return False
    reading = _READ_FILE | _READ_DIR
    readable = {sys.prefix, sys.base_prefix, *_LIBRARIES}
    allowed = [(path, reading | _EXECUTE) for path in sorted(readable)]
    for path, what in [*allowed, ("/dev/null", _READ_FILE | _WRITE_FILE), (own, handled)]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(path):
                what &= _EXECUTE | _WRITE_FILE | _READ_FILE
            there = os.open(path, _O_PATH | os.O_CLOEXEC)
            rule = ctypes.create_string_buffer(struct.pack("=Qi", what, there))
            if libc.syscall(_ADD, rules, 1, rule, 0) != 0:
                return False
            os.close(there)
    held = int(libc.syscall(_RESTRICT, rules, 0)) == 0
    os.close(rules)
    return held


_LIBRARIES = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/dev/urandom",
)  # fmt: skip

# --- the audit hook: what Python itself can refuse, on any system ------------------------------

_FORBIDDEN = (
    "socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.spawn",
    "os.kill", "os.chmod", "os.chown", "os.putenv", "os.setxattr", "ctypes.", "pty.", "signal.",
    "shutil.chown", "webbrowser.", "ftplib.", "http.", "urllib.", "smtplib.", "sqlite3.connect",
    "mmap.", "resource.setrlimit", "resource.prlimit", "syslog.", "winreg.", "gc.get_objects",
)  # fmt: skip
_ON_PATHS = {
    "open": 1, "os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2,
    "os.symlink": 2, "os.truncate": 1, "os.utime": 1, "shutil.rmtree": 1, "os.listdir": 1,
    "os.scandir": 1, "os.chdir": 1,
}  # fmt: skip


def _audit(own: str) -> None:
    inside = os.path.realpath(own) + os.sep
    readable = tuple(
        os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, *_LIBRARIES)
    )

    def allowed(path: object, may_read: bool) -> bool:
        if isinstance(path, int):
            return True  # opened before, and allowed then
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        real = os.path.realpath(str(path)) + os.sep
        return real.startswith(inside) or (may_read and real.startswith(readable))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"{event} is not allowed here")
        if event in _ON_PATHS:
            reads = event in ("os.listdir", "os.scandir", "os.chdir")
            if event == "open":
                mode, flags = arguments[1] or "", arguments[2] or 0
                writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                reads = not (set(str(mode)) & set("wax+") or writing)
            for path in arguments[: _ON_PATHS[event]]:
                if path is not None and not allowed(path, reads):
                    raise PermissionError(f"{event} is not allowed for {path!r}")

    sys.addaudithook(hook)


# --- the whole ---------------------------------------------------------------------------------


def _lock(limits: dict[str, Any], own: str) -> list[str]:
    seconds = int(limits["seconds"]) + 1
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # some systems know no such limit
            resource.setrlimit(what, (most, most))
    held = ["limits"]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            held += ["landlock"] if _landlock(libc, own) else []
            held += ["seccomp"] if _seccomp(libc) else []
    _audit(own)
    held.insert(1, "audit")
    return held


def _main() -> None:
    verdict = int(sys.argv[1])
    limits, source = json.loads(sys.stdin.buffer.read().decode("utf-8", "surrogatepass"))
    sys.argv = ["program"]
    namespace = {"__name__": "__main__", "__builtins__": builtins}
    namespace["__protections__"] = _lock(limits, os.getcwd())
    try:
        exec(compile(source, "program", "exec"), namespace)
        sys.stdout.flush()
        said = "ok:"
    except MemoryError:
        said = "memory:asked for more memory than it may have"
    except SystemExit:
        said = "failed:left before its end"
    except BaseException as error:  # noqa: BLE001 - whatever the program does is its result
        said = "failed:" + traceback.format_exception_only(error)[-1].strip()[:500]
    os.write(verdict, said.encode("utf-8", "replace"))


if __name__ == "__main__":
    _main()
