"""Holds this project's code to the rules of Windows, on a system that has others; for tests, by way of PYTHONPATH.

To code of `lib/`, the steps and `demo/`, `sys.platform` is "win32", and modules and names that Windows lacks are not
there; the standard library and others' packages see the system as it is. To everybody, in this process and in those
that it starts: a file that is open can neither be removed nor renamed, nor can a file be removed that may not be
written; a rename onto a name that is taken fails; symbolic links take a privilege; names that Windows forbids cannot be
made. What this cannot show are back slashes, drives, case-insensitive names and what lies in Python's own ways there.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import re
import select
import signal
import socket
import stat
import sys
import time
import types
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
OURS = tuple(os.path.join(ROOT, name) for name in ("lib" + os.sep, "demo" + os.sep, *"01234567"))
PLACE = os.environ.get("WINDOWS_RULES_PLACE", "")  # the folder below which names are looked at

LACKING = {
    os: """
        fork forkpty getuid geteuid getgid getegid getgroups setuid setgid getpgid getpgrp setpgid setsid getsid killpg
        sched_getaffinity sched_setaffinity sched_yield sysconf sysconf_names O_NOFOLLOW O_DIRECTORY O_NONBLOCK
        O_CLOEXEC O_SYNC O_NOATIME O_TMPFILE O_PATH statvfs fstatvfs fchmod fchown chown lchown chroot mkfifo mknod
        posix_fadvise posix_fallocate posix_spawn pread pwrite preadv pwritev sendfile wait wait3 wait4 waitid WNOHANG
        WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG nice getloadavg uname sync syncfs fdatasync getpriority setpriority
        ctermid ttyname openpty memfd_create eventfd copy_file_range splice lockf pathconf getxattr setxattr listxattr
        removexattr set_blocking_ getresuid initgroups tcgetpgrp confstr register_at_fork fwalk
    """,
    signal: """
        SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE SIGSTOP SIGCONT SIGQUIT SIGTSTP SIGWINCH SIG_BLOCK
        SIG_UNBLOCK SIG_SETMASK pthread_sigmask pthread_kill setitimer alarm pause sigwait siginterrupt sigpending
    """,
    socket: "AF_UNIX SO_REUSEPORT MSG_DONTWAIT MSG_NOSIGNAL socketpair_ sethostname",
    time: "clock_gettime clock_gettime_ns clock_settime CLOCK_MONOTONIC CLOCK_BOOTTIME CLOCK_REALTIME tzset",
    select: "poll epoll kqueue",
}
LACKING_MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline", "posix"}
INSTEAD = {
    os: {
        "name": "nt",
        "supports_dir_fd": frozenset(),
        "supports_effective_ids": frozenset(),
        "supports_follow_symlinks": frozenset({os.stat}),
        "supports_fd": frozenset({os.stat, os.truncate}),
    },
    sys: {"platform": "win32"},
    signal: {"SIGBREAK": signal.SIGUSR2},
}
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .]$|^(?:con|prn|aux|nul|com[0-9]|lpt[0-9]) *(?:\.|$)', re.IGNORECASE)


def is_ours(depth: int = 2) -> bool:
    """True where the code that asks is the project's."""
    return sys._getframe(depth).f_code.co_filename.startswith(OURS)


def as_windows_has_it(module: types.ModuleType) -> None:
    lacking, instead = frozenset(LACKING.get(module, "").split()), INSTEAD.get(module, {})

    class Seen(types.ModuleType):
        def __getattribute__(self, name: str) -> object:
            if (name in lacking or name in instead) and is_ours():
                if name in instead:
                    return instead[name]
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} on Windows")
            return types.ModuleType.__getattribute__(self, name)

    module.__class__ = Seen


def without_posix_modules() -> None:
    real = builtins.__import__

    def import_as_windows_has_it(name, within=None, *more, **named):  # type: ignore[no-untyped-def]
        if name in LACKING_MODULES and str((within or {}).get("__file__", "")).startswith(OURS):
            raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
        return real(name, within, *more, **named)

    builtins.__import__ = import_as_windows_has_it


def with_msvcrt() -> None:
    """`msvcrt.locking` of a byte, which a system's lock of the whole file stands for."""
    import fcntl

    made = types.ModuleType("msvcrt")
    made.LK_NBLCK, made.LK_UNLCK = 2, 0  # type: ignore[attr-defined]

    def locking(handle: int, mode: int, length: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if mode == 2 else fcntl.LOCK_UN)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    made.locking = locking  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = made


def is_open(path: str) -> bool:
    """True where this process has the file open, or one below the folder."""
    path = os.path.realpath(os.path.dirname(path)) + os.sep + os.path.basename(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target == path or target.startswith(path + os.sep):
            return True
    return False


def refuse_open(path: str) -> None:
    if not path.startswith(PLACE):  # the standard library has ways of its own with its temporary files
        return
    if os.path.lexists(path) and is_open(path):
        raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", path)


def refuse_name(path: str) -> None:
    if PLACE and path.startswith(PLACE):
        for part in path[len(PLACE) :].split(os.sep):
            if FORBIDDEN.search(part):
                raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", path)


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.rmdir"):
        return
    paths = [os.path.abspath(os.fsdecode(a)) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
    if not paths:
        return
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & os.O_CREAT:
            refuse_name(paths[0])
        elif arguments[1] is None and is_ours() and os.path.isdir(paths[0]):
            raise PermissionError(errno.EACCES, "Permission denied", paths[0])
    elif event == "os.mkdir":
        refuse_name(paths[0])
    elif event == "os.symlink":
        refused = OSError(errno.EINVAL, "A required privilege is not held by the client", paths[-1])
        refused.winerror = 1314  # type: ignore[attr-defined]
        raise refused
    elif event in ("os.rename", "os.link"):
        refuse_name(paths[1])
        if event == "os.rename":
            refuse_open(paths[0])
            refuse_open(paths[1])
    elif event == "os.remove":
        refuse_open(paths[0])
        try:
            status = os.lstat(paths[0])
        except OSError:
            return
        if not stat.S_ISLNK(status.st_mode) and not status.st_mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, "Access is denied", paths[0])


def rename_refuses_taken_names() -> None:
    real = os.rename

    def rename(source, target, **more):  # type: ignore[no-untyped-def]
        if os.path.lexists(target) and not (os.path.exists(source) and os.path.samefile(source, target)):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
        real(source, target, **more)

    os.rename = rename


def without_loop_of_posix() -> None:
    for name in ("add_signal_handler", "add_reader", "add_writer", "connect_read_pipe"):
        for kind in (asyncio.SelectorEventLoop,):
            real = getattr(kind, name)

            def refused(self, *arguments, _real=real, **more):  # type: ignore[no-untyped-def]
                if is_ours():
                    raise NotImplementedError
                return _real(self, *arguments, **more)

            setattr(kind, name, refused)


rename_refuses_taken_names()
without_posix_modules()
without_loop_of_posix()
with_msvcrt()
for one in {*LACKING, *INSTEAD}:
    as_windows_has_it(one)
sys.addaudithook(watch)
