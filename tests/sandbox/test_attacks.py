"""What the jail must not let through; each attack is seen to work without the jail where that is harmless.

A probe prints THROUGH where it succeeds, and raises or is silent where it does not. The names in capitals are filled
in: SECRET_FILE and FOLDER of the host, PORT, PATH and ABSTRACT that servers of the host listen at, VICTIM a process of
the host, INHERITED a descriptor that a child may inherit, HOST the host's name, CLONE and others numbers of calls.
"""

import contextlib
import http.server
import os
import platform
import re
import socket
import subprocess
import sys
import threading

import pytest

_CTYPES = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
_THROUGH = "print('THROUGH')"

# Each of them works in plain Python as any user: that is tested too.
FAMILIAR = {
    # files
    "read a file of the host": "print(open('SECRET_FILE').read())",
    "list a folder of the host": f"import os; os.listdir('FOLDER'); {_THROUGH}",
    "write into a folder of the host": f"open('FOLDER/written', 'w').close(); {_THROUGH}",
    "read through a symbolic link": "import os; os.symlink('SECRET_FILE', 'link'); print(open('link').read())",
    "read through a relative path": "import os; print(open('../' * 40 + 'SECRET_FILE').read())",
    "read through a hard link": "import os; os.link('SECRET_FILE', 'hard'); print(open('hard').read())",
    "read through /proc/self/root": "print(open('/proc/self/root/SECRET_FILE').read())",
    "read through a descriptor of a folder": """
import os
folder = os.open('FOLDER', os.O_PATH)
print(open(os.open('secret', os.O_RDONLY, dir_fd=folder)).read())
""",
    "read the users": f"open('/etc/passwd').read(); {_THROUGH}",
    "read a descriptor of the host": "import os; print(os.pread(INHERITED, 99, 0))",
    "change a package": f"import mpmath; open(mpmath.__file__, 'r+'); {_THROUGH}",
    "leave a file outside the scratch folder": f"import os; os.close(os.open('FOLDER/left', os.O_CREAT)); {_THROUGH}",
    "use shared memory by name": "import os; p = '/dev/shm/dsmath-probe'; open(p, 'w'); os.unlink(p); print('THROUGH')",
    "read a device": f"open('/dev/zero', 'rb').read(1); {_THROUGH}",
    "make a pipe with a name": f"import os; os.mkfifo('fifo'); {_THROUGH}",
    "write a huge file": f"import os; f = os.open('big', os.O_CREAT | os.O_RDWR); os.ftruncate(f, 1 << 31); {_THROUGH}",
    "fill the disk": f"for i in range(80): open(f'f{{i}}', 'wb').write(bytes(1 << 20))\n{_THROUGH}",
    "use up the inodes": f"for i in range(5000): open(f'f{{i}}', 'w').close()\n{_THROUGH}",
    "open many files": f"import os; [os.dup(0) for _ in range(100)]; {_THROUGH}",
    # secrets and other processes
    "read the environment": "import os; print('THROUGH' if os.environ.get('DSMATH_SECRET') else '')",
    "read the environment in /proc": "print('THROUGH' if b'sesame' in open('/proc/self/environ', 'rb').read() else '')",
    "read the process table": "import os; print('THROUGH' if [n for n in os.listdir('/proc') if n.isdigit()] else '')",
    "read its own memory in /proc": f"open('/proc/self/mem', 'rb'); {_THROUGH}",
    "read another's command in /proc": f"open('/proc/VICTIM/cmdline').read(); {_THROUGH}",
    "see the machine's name": "import os; print('THROUGH' if os.uname().nodename == 'HOST' else '')",
    "reach another process by a signal": f"import os; os.kill(VICTIM, 0); {_THROUGH}",
    "reach all processes by a signal": f"import os; os.kill(-1, 0); {_THROUGH}",
    "reach the parent by a signal": f"import os; os.getppid() and [os.kill(os.getppid(), 0), {_THROUGH}]",
    "limit another process": f"import resource; resource.prlimit(VICTIM, resource.RLIMIT_NOFILE); {_THROUGH}",
    "hold another process": f"import os; os.pidfd_open(VICTIM); {_THROUGH}",
    "be traced": f"{_CTYPES}assert libc.ptrace(0, 0, 0, 0) == 0; {_THROUGH}",
    "copy memory between processes": f"""{_CTYPES}
class Piece(ctypes.Structure):
    _fields_ = (('base', ctypes.c_void_p), ('size', ctypes.c_size_t))
here, there = ctypes.create_string_buffer(8), ctypes.create_string_buffer(b'THROUGH')
pieces = [Piece(ctypes.addressof(b), 8) for b in (here, there)]
libc.process_vm_readv(os.getpid(), ctypes.byref(pieces[0]), 1, ctypes.byref(pieces[1]), 1, 0)
print(here.value.decode())
""",
    # the network
    "connect by TCP": f"import socket; socket.create_connection(('127.0.0.1', PORT)); {_THROUGH}",
    "fetch a page": f"from urllib import request; request.urlopen('http://127.0.0.1:PORT/'); {_THROUGH}",
    "send by UDP": f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9)); {_THROUGH}",
    "listen": f"import socket; socket.create_server(('127.0.0.1', 0)); {_THROUGH}",
    "connect by IPv6": f"import socket; socket.socket(socket.AF_INET6); {_THROUGH}",
    "connect to a socket with a path": f"import socket; socket.socket(socket.AF_UNIX).connect('PATH'); {_THROUGH}",
    "connect to an abstract socket": f"import socket; socket.socket(1).connect('\\0' + 'ABSTRACT'); {_THROUGH}",
    "make a pair of datagram sockets": f"import socket; socket.socketpair(type=socket.SOCK_DGRAM); {_THROUGH}",
    "make a pair of packet sockets": f"import socket; socket.socketpair(type=socket.SOCK_SEQPACKET); {_THROUGH}",
    "pass a descriptor": f"import socket; a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0]); {_THROUGH}",
    "take a descriptor": f"""
import socket
a, b = socket.socketpair()
a.send(b'x')
socket.recv_fds(b, 1, 1); {_THROUGH}
""",
    "send out of band": f"import socket; a, b = socket.socketpair(); a.send(b'x', socket.MSG_OOB); {_THROUGH}",
    "peek": f"import socket; a, b = socket.socketpair(); a.send(b'x'); b.recv(1, socket.MSG_PEEK); {_THROUGH}",
    "rename a socket": f"import socket; socket.socketpair()[0].bind('x'); {_THROUGH}",
    "widen a socket": f"import socket; socket.socketpair()[0].setsockopt(1, socket.SO_SNDBUF, 1 << 17); {_THROUGH}",
    "ask who is at a socket": f"import socket; socket.socketpair()[0].getsockopt(1, 17, 12); {_THROUGH}",
    "wait by epoll": f"import select; select.epoll(); {_THROUGH}",
    "ask the kernel by netlink": f"import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); {_THROUGH}",
    # processes and memory
    "fork": f"import os; os.fork() or os._exit(0); {_THROUGH}",
    "clone by its number": f"{_CTYPES}assert (libc.syscall(CLONE, 17, 0, 0, 0, 0) or os._exit(0)) > 0; {_THROUGH}",
    "spawn": f"import os, sys; os.posix_spawn(sys.executable, ['python', '-c', ''], {{}}); {_THROUGH}",
    "run a program": f"import subprocess; subprocess.run(['/usr/bin/env']); {_THROUGH}",
    "become a program": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', \"print('THROUGH')\"])",
    "start a thread": f"import threading; threading.Thread(target=print).start(); {_THROUGH}",
    "start a pool": f"import multiprocessing; multiprocessing.Pool(1).map(abs, [1]); {_THROUGH}",
    "take memory": f"x = b'x' * (600 << 20); {_THROUGH}",
    "take memory in pieces": f"x = [bytearray(1 << 20) for _ in range(600)]; {_THROUGH}",
    "take shared memory": f"import mmap; mmap.mmap(-1, 600 << 20); {_THROUGH}",
    "take memory as a file": f"import os; os.memfd_create('x'); {_THROUGH}",
    "take memory of System V": f"{_CTYPES}assert libc.shmctl(libc.shmget(0, 4096, 0o600), 0, 0) == 0; {_THROUGH}",
    "raise its limits": f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); {_THROUGH}
""",
    "lock a file": "import fcntl; fcntl.lockf(open('mine', 'w'), fcntl.LOCK_EX); print('THROUGH')",
    "lock a library of the host": f"import fcntl, json; fcntl.flock(open(json.__file__), fcntl.LOCK_EX); {_THROUGH}",
    "widen a pipe": f"import fcntl, os; fcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 1 << 17); {_THROUGH}",
    "choose its processor": f"import os; os.sched_setaffinity(0, os.sched_getaffinity(0)); {_THROUGH}",
}

# Plain Python does not reach them everywhere, or must not: some need root, or a kernel that has them.
PRIVILEGED = {
    "become root": f"import os; os.setuid(0); os.setgid(0); {_THROUGH}",
    "be root": "import os; print('THROUGH' if 0 in (os.getuid(), os.geteuid(), os.getgid()) else '')",
    "own namespaces": f"{_CTYPES}assert libc.unshare(0x10000000) == 0; {_THROUGH}",
    "mount": f"{_CTYPES}assert libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, 0) == 0; {_THROUGH}",
    "unmount the scratch folder": f"{_CTYPES}assert libc.umount2(b'/tmp', 2) == 0; {_THROUGH}",
    "change the root": f"import os; os.chroot('.'); {_THROUGH}",
    "enter a namespace": f"{_CTYPES}assert libc.setns(0, 0) == 0; {_THROUGH}",
    "make a device": f"import os; os.mknod('null', 0o20666, os.makedev(1, 3)); {_THROUGH}",
    "read the kernel's log": f"{_CTYPES}assert libc.klogctl(3, bytes(64), 64) >= 0; {_THROUGH}",
    "send raw packets": f"import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); {_THROUGH}",
    "use the kernel's ciphers": f"import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); {_THROUGH}",
    "talk to the hypervisor": f"import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); {_THROUGH}",
    "send to an address through a pair": f"{_CTYPES}import socket\na, b = socket.socketpair()\n"
    f"assert libc.sendto(a.fileno(), b'x', 1, 0, bytes([1, 0]) + b'PATH', 110) == 1; {_THROUGH}",
    "pair network sockets": f"import socket; socket.socketpair(socket.AF_INET); {_THROUGH}",
    "use io_uring": f"{_CTYPES}assert libc.syscall(425, 1, bytes(120)) >= 0; {_THROUGH}",
    "load a program into the kernel": f"{_CTYPES}assert libc.syscall(BPF, 0, bytes(72), 72) >= 0; {_THROUGH}",
    "hold a key": f"{_CTYPES}assert libc.syscall(KEYCTL, 0, -3, 1) >= 0; {_THROUGH}",
    "shut the machine down": f"{_CTYPES}assert libc.reboot(0) == 0; {_THROUGH}",  # an unknown command
    "set the clock": f"import time; time.clock_settime(time.CLOCK_REALTIME, time.time()); {_THROUGH}",
    "give a file away": f"import os; open('x', 'w').close(); os.chown('x', 0, 0); {_THROUGH}",
    "change the mode of a device": f"import os; os.chmod('/dev/null', 0o666); {_THROUGH}",
    "change the times of a device": f"import os; os.utime('/dev/null'); {_THROUGH}",
    "change the mode of Python": f"import os, sys; os.chmod(sys.executable, 0o755); {_THROUGH}",
    "change the root folder": f"import os; os.chmod('/', 0o755); {_THROUGH}",
    "regain its capabilities": f"{_CTYPES}assert libc.prctl(47, 2, 21, 0, 0) == 0; {_THROUGH}",
    "change Python's own library": f"import json; open(json.__file__, 'r+'); {_THROUGH}",
    "change what started it": f"open('/template.py', 'r+'); {_THROUGH}",
    "read the packages' neighbours": "import os; print('THROUGH' if 'dsmath' in os.listdir('/packages') else '')",
}

_NUMBERS = {"x86_64": {"CLONE": 56, "BPF": 321, "KEYCTL": 250}, "aarch64": {"CLONE": 220, "BPF": 280, "KEYCTL": 219}}


@pytest.fixture(scope="module")
def host(tmp_path_factory, pool):
    """What the host has that a probe could reach: the names in capitals."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "secret").write_text("THROUGH", encoding="utf-8")
    numbers = _NUMBERS.get(platform.machine(), dict.fromkeys(("CLONE", "BPF", "KEYCTL"), -1))
    with contextlib.ExitStack() as stack:
        handler = http.server.SimpleHTTPRequestHandler
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        stack.callback(server.shutdown)
        abstract = f"dsmath-{os.getpid()}"
        for address in (str(folder / "socket"), "\0" + abstract):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen(100)
        victim = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
        stack.callback(victim.kill)
        inherited = os.open(folder / "secret", os.O_RDONLY)
        stack.callback(os.close, inherited)
        os.set_inheritable(inherited, True)
        yield {
            "SECRET_FILE": str(folder / "secret"),
            "FOLDER": str(folder),
            "PORT": server.server_port,
            "PATH": str(folder / "socket"),
            "ABSTRACT": abstract,
            "VICTIM": victim.pid,
            "INHERITED": inherited,
            "HOST": os.uname().nodename,
            **numbers,
        }


def _fill(code: str, host: dict) -> str:
    return re.sub("|".join(rf"\b{name}\b" for name in host), lambda match: str(host[match[0]]), code)


@pytest.mark.parametrize("attack", FAMILIAR | PRIVILEGED)
def test_no_attack_gets_through(run, host, attack):
    before = os.listdir(host["FOLDER"])
    result = run(_fill((FAMILIAR | PRIVILEGED)[attack], host))
    assert os.listdir(host["FOLDER"]) == before
    assert "THROUGH" not in result.stdout + str(result.value)
    assert result.kind in ("done", "raised", "memory", "died")
    assert result.kind != "raised" or not re.match("SyntaxError|NameError|AttributeError|ImportError", result.error)


@pytest.mark.parametrize("attack", FAMILIAR)
def test_the_attack_works_without_the_jail(host, tmp_path, attack):
    code = _fill(FAMILIAR[attack], host)
    python = [sys.executable, "-c", code]
    done = subprocess.run(
        python,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        close_fds=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "THROUGH" in done.stdout, done.stderr
