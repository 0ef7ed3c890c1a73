"""The system calls that a solution may make, as a filter for the kernel, compiled by libseccomp.

What is not listed is refused with EPERM: sockets, new processes and threads, programs, mounts and namespaces, tracing,
shared memory, keys, devices, io_uring. A solution is one thread that computes and uses its files. Of sockets it has
pairs of connected streams, which reach nobody else and by which an event loop of asyncio wakes itself: no address, no
flag (out-of-band data had holes in kernels), no message with descriptors.
"""

import ctypes
import errno
import tempfile

from dsmath.runs.errors import InputError

_FILES = """
    read write readv writev pread64 pwrite64 open openat close close_range stat fstat lstat newfstatat statx statfs
    fstatfs lseek access faccessat faccessat2 dup dup2 dup3 pipe pipe2 ftruncate truncate getdents
    getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat symlink symlinkat
    readlink readlinkat chmod fchmod fchmodat umask utimensat fsync fdatasync fadvise64 select pselect6 poll ppoll
"""
_MEMORY = "mmap mprotect munmap mremap madvise brk msync mincore membarrier"
_ITSELF = """
    getpid gettid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid getrusage
    times getrlimit setrlimit prlimit64 getpriority sched_getaffinity sched_yield getcpu sysinfo uname getrandom
    arch_prctl set_tid_address set_robust_list rseq futex wait4 waitid exit exit_group restart_syscall
"""
_SIGNALS = """
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack kill tkill tgkill
    pause alarm setitimer getitimer
"""
_TIME = "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time"
# The requests of two calls that do many things. Python asks each file that it opens whether it is a terminal.
_REQUESTS = {
    "ioctl": (0x5401, 0x5421, 0x5451),  # TCGETS, FIONBIO, FIOCLEX
    "fcntl": (0, 1, 2, 3, 4, 1030),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
}
_STREAMS = (1, 0x80001)  # SOCK_STREAM, and with SOCK_CLOEXEC

_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL = 4


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("value", ctypes.c_uint64), ("other", ctypes.c_uint64))


def make_filter() -> bytes:
    """The filter for this machine, an array of BPF instructions of 8 bytes.

    Raises:
      InputError: libseccomp is not installed.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise InputError("sandbox: libseccomp is not installed; install it: apt-get install libseccomp2") from error
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE)))
    try:
        for name in f"{_FILES} {_MEMORY} {_ITSELF} {_SIGNALS} {_TIME}".split():
            _allow(library, rules, name)
        for name, requests in _REQUESTS.items():
            for request in requests:
                _allow(library, rules, name, _Comparison(1, _EQUAL, request, 0))
        for kind in _STREAMS:
            domain = _Comparison(0, _EQUAL, 1, 0)  # AF_UNIX
            _allow(library, rules, "socketpair", domain, _Comparison(1, _EQUAL, kind, 0), _Comparison(2, _EQUAL, 0, 0))
        for name in ("sendto", "recvfrom"):
            _allow(library, rules, name, _Comparison(3, _EQUAL, 0, 0), _Comparison(4, _EQUAL, 0, 0))  # flags, address
        with tempfile.TemporaryFile() as file:
            if library.seccomp_export_bpf(rules, file.fileno()):
                raise InputError("sandbox: libseccomp cannot write a filter for this machine")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(rules)


def _allow(library: ctypes.CDLL, rules: ctypes.c_void_p, name: str, *comparisons: _Comparison) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # this kind of processor has no such call
        return
    array = (_Comparison * len(comparisons))(*comparisons)
    if library.seccomp_rule_add_array(rules, ctypes.c_uint32(_ALLOW), number, len(comparisons), array):
        raise InputError(f"sandbox: libseccomp refuses a rule for {name}")
