"""Runs acts, each in a fork of its own, and prints what became of them; the same text inside and outside the wall.

Read as a text by the driver and given to `python3 -c`; standard input holds the facts and the acts as JSON.
"""

import ctypes
import errno
import fcntl  # noqa: F401 - for the acts
import json
import os
import signal
import socket
import struct
import sys
import tempfile
import time  # noqa: F401 - for the acts

FDS = sorted(int(name) for name in os.listdir("/proc/self/fd"))  # before anything below opens one
TEXT = json.load(sys.stdin)
F = TEXT["facts"]
INSIDE = F["side"] == "inside"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
HARNESS = os.getpid()
ACT_DEADLINE_S = 5
VICTIMS = []
REPORT = []


class Held(Exception):
    """The act did not get what it wanted."""


class Absent(Exception):
    """This kernel has nothing to attack."""


def need(path):
    """End the control as absent where the host has no such file."""
    if not INSIDE and not os.path.exists(path):
        raise Absent(path)


def able(capability):
    """End the control as absent where the caller's own root lacks a capability."""
    if not INSIDE:
        with open("/proc/self/status", encoding="ascii") as status:
            effective = next(line for line in status if line.startswith("CapEff"))
        if not int(effective.split()[1], 16) >> capability & 1:
            raise Absent(capability)


def held(why="held"):
    raise Held(why)


def escaped(got):
    """End the act as held unless it got something."""
    if not got:
        held()


def sc(name, *arguments):
    """Make a system call by name or number."""
    number = F["nr"][name] if isinstance(name, str) else name
    ctypes.set_errno(0)
    words = [
        one if one is None or isinstance(one, bytes | ctypes.Array | ctypes.Structure) else ctypes.c_long(one)
        for one in arguments
    ]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def buf(size=4096, content=b""):
    return ctypes.create_string_buffer(content, size)


def victim():
    """Return a process to attack: the host's from inside, one of the act's own outside."""
    if INSIDE:
        return F["victim"]
    return child()


def init():
    """Return the sandbox's init from inside, a victim outside."""
    return 1 if INSIDE else victim()


def child():
    """Return a child of the act itself, on both sides."""
    pid = os.fork()
    if pid == 0:
        os.close(REPORT[0])  # or the reader would wait for this process too
        signal.alarm(2 * ACT_DEADLINE_S)
        signal.pause()
        os._exit(0)
    VICTIMS.append(pid)
    return pid


def clone(flags):
    """Make a raw clone that ends at once."""
    pid = sc("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def write_file(path, content=b"x", flags=0):
    handle = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


def read_file(path, size=65536):
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(handle, size)
    finally:
        os.close(handle)


def bpf_allow_all(flags=0):
    """Put a filter that allows everything on top of those there are."""
    code = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    block = ctypes.create_string_buffer(code, 8)
    program = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(block))
    sc("prctl", 38, 1, 0, 0, 0)
    sc("seccomp", 1, flags, buf(16, program))


def fresh():
    """Return a new folder that the act may write in."""
    return tempfile.mkdtemp(dir=F["base"])


def run(act):
    """Return what became of one act: OK, an errno's name, HELD, or how its process ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(ACT_DEADLINE_S)
        os.setsid()  # a terminal of the caller must not be hung up by an act
        os.close(read)
        REPORT.append(write)
        os.write(write, perform(act).encode())
        for one in VICTIMS:
            try:
                os.kill(one, signal.SIGKILL)
            except OSError:
                continue
        os._exit(0)
    os.close(write)
    said = os.read(read, 4096).decode()
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if said:
        return said
    return f"signal {status & 127}" if status & 127 else f"exit {status >> 8}"


def perform(act):
    body = "def attack():\n" + "".join(f"    {line}\n" for line in act.strip().splitlines())
    try:
        exec(compile(body, "<act>", "exec"), globals())
        globals()["attack"]()
    except Held:
        return "HELD"
    except Absent:
        return "ABSENT"
    except TimeoutError:
        return "HELD"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except Exception as error:  # noqa: BLE001 - a broken act must be seen, not end the others
        return f"broken: {error!r}"
    return "OK"


if not INSIDE:
    F["system"] = tempfile.mkdtemp(dir=F["base"])
    F["file"] = F["system"] + "/file"
    os.mkdir(F["system"] + "/folder")
    with open(F["file"], "w", encoding="ascii") as out:
        out.write("content")
    os.chmod(F["file"], 0o755)
if F["side"] == "jail":
    with open("/proc/sys/net/ipv4/ping_group_range", "w", encoding="ascii") as out:
        out.write("0 0")
sock = socket.socket
outcomes = [run(act) for act in TEXT["acts"]]
sys.stdout.write("\n" + TEXT["token"] + json.dumps(outcomes))
