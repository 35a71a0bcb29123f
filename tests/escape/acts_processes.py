"""Acts against processes of the host: seen, signalled, traced, read, or changed by number, guessed or known."""

from __future__ import annotations

from escape_case import HOST, JAIL, ROOT, Case

GONE = "ESRCH|EPERM|ENOENT|EACCES"

_ON_VICTIM = [
    ("ended by SIGTERM", "os.kill({pid}, signal.SIGTERM)"),
    ("ended by SIGKILL", "os.kill({pid}, signal.SIGKILL)"),
    ("stopped by SIGSTOP", "os.kill({pid}, signal.SIGSTOP)"),
    ("asked for with signal 0", "os.kill({pid}, 0)"),
    (
        "sent a queued signal",
        "sc('rt_sigqueueinfo', {pid}, signal.SIGWINCH, buf(128, struct.pack('=iii', signal.SIGWINCH, 0, -1)))",
    ),
    ("sent a signal by its thread's number", "sc('tgkill', {pid}, {pid}, signal.SIGWINCH)"),
    ("sent a signal by the old thread call", "sc('tkill', {pid}, signal.SIGWINCH)"),
    ("sent a signal by pidfd", "sc('pidfd_send_signal', sc('pidfd_open', {pid}, 0), signal.SIGWINCH, None, 0)"),
    ("robbed of a descriptor", "sc('pidfd_getfd', sc('pidfd_open', {pid}, 0), 0, 0)"),
    ("attached to by ptrace", "sc('ptrace', 16, {pid}, 0, 0)"),
    ("seized by ptrace", "sc('ptrace', 0x4206, {pid}, 0, 0)"),
    (
        "read by process_vm_readv",
        "area = buf(8)\nhere = struct.pack('=QQ', ctypes.addressof(area), 8)\nsc('process_vm_readv', {pid}, buf(16, here), 1, buf(16, here), 1, 0)",
    ),
    (
        "written by process_vm_writev",
        "area = buf(8)\nhere = struct.pack('=QQ', ctypes.addressof(area), 8)\nsc('process_vm_writev', {pid}, buf(16, here), 1, buf(16, here), 1, 0)",
    ),
    ("limited by prlimit", "import resource\nresource.prlimit({pid}, resource.RLIMIT_NOFILE, (64, 64))"),
    ("slowed by setpriority", "os.setpriority(os.PRIO_PROCESS, {pid}, 19)"),
    ("pinned to a processor", "os.sched_setaffinity({pid}, {{0}})"),
    ("made idle by the scheduler", "os.sched_setscheduler({pid}, os.SCHED_IDLE, os.sched_param(0))"),
    ("given another I/O priority", "sc('ioprio_set', 1, {pid}, 3 << 13)"),
    ("killed as its group", "pid = {pid}\nif not INSIDE:\n    os.setpgid(pid, pid)\nos.killpg(pid, signal.SIGWINCH)"),
    ("read through /proc/PID/mem", "os.close(os.open(f'/proc/{{{pid}}}/mem', os.O_RDWR))"),
    ("asked for its environment", "escaped(F['canary'] in read_file(f'/proc/{{{pid}}}/environ', 1 << 20).decode())"),
    ("asked for its open files", "escaped(os.listdir(f'/proc/{{{pid}}}/fd'))"),
    ("asked for its memory map", "escaped(read_file(f'/proc/{{{pid}}}/maps'))"),
    ("entered through /proc/PID/root", "escaped(os.listdir(f'/proc/{{{pid}}}/root/'))"),
    ("entered through /proc/PID/cwd", "escaped(os.listdir(f'/proc/{{{pid}}}/cwd/'))"),
    ("asked for its program", "os.readlink(f'/proc/{{{pid}}}/exe')"),
    ("asked for its namespaces", "os.readlink(f'/proc/{{{pid}}}/ns/mnt')"),
    ("given a score for the memory killer", "write_file(f'/proc/{{{pid}}}/oom_score_adj', b'1000')"),
    ("renamed", "write_file(f'/proc/{{{pid}}}/comm', b'kavach')"),
]
_NEED_OWN = {"renamed"}  # only a thread of its own group may

_OF_INIT = [
    ("environment", "escaped(read_file('/proc/{pid}/environ'))"),
    ("memory", "os.close(os.open('/proc/{pid}/mem', os.O_RDONLY))"),
    ("open files", "escaped(os.listdir('/proc/{pid}/fd'))"),
    ("descriptors' state", "escaped(os.listdir('/proc/{pid}/fdinfo'))"),
    ("memory map", "escaped(read_file('/proc/{pid}/maps'))"),
    ("memory use by mapping", "escaped(read_file('/proc/{pid}/smaps'))"),
    ("root", "escaped(os.listdir('/proc/{pid}/root/'))"),
    ("working directory", "os.readlink('/proc/{pid}/cwd')"),
    ("program", "os.readlink('/proc/{pid}/exe')"),
    ("namespaces", "os.readlink('/proc/{pid}/ns/user')"),
    ("auxiliary vector", "escaped(read_file('/proc/{pid}/auxv'))"),
    ("I/O counters", "escaped(read_file('/proc/{pid}/io'))"),
    ("system call", "escaped(read_file('/proc/{pid}/syscall'))"),
    ("mapped files", "escaped(os.listdir('/proc/{pid}/map_files'))"),
    ("page map", "os.close(os.open('/proc/{pid}/pagemap', os.O_RDONLY))"),
]

_SEEN = """
own = {os.getpid(), HARNESS, os.getppid()}
seen = set()
for number in range(2, 70000):
    if number not in own:
        try:
            %s
        except OSError:
            continue
        seen.add(number)
escaped(seen if INSIDE else victim() or True)
"""

CASES = [
    *(
        Case(
            f"a process of the host cannot be {words}",
            f"{GONE}|HELD",
            act.replace("{{{pid}}}", "{one}")
            .replace("{{0}}", "{0}")
            .replace("{pid}", "one")
            .join(("one = victim()\n", "")),
        )
        for words, act in _ON_VICTIM
        if words not in _NEED_OWN
    ),
    *(
        Case(
            f"the sandbox's init cannot be {words}",
            f"{GONE}|HELD",
            act.replace("{{{pid}}}", "{one}")
            .replace("{{0}}", "{0}")
            .replace("{pid}", "one")
            .join(("one = init()\n", "")),
        )
        for words, act in _ON_VICTIM
        if not words.startswith(("ended", "stopped", "asked", "entered", "killed", "renamed"))
    ),
    *(
        Case(
            f"of the sandbox's init the {words} cannot be seen",
            f"{GONE}|HELD",
            "one = init()\n" + act.replace("'/proc/{pid}", "f'/proc/{one}"),
            HOST,
        )
        for words, act in _OF_INIT
    ),
    Case(
        "no signal of all 64 reaches the sandbox's init",
        "HELD",
        "reached = 0\nfor number in range(1, 65):\n    try:\n        os.kill(init(), number)\n        reached += 1\n    except OSError:\n        pass\nescaped(reached)",
    ),
    Case("no guessed number of 70000 can be signalled", "HELD", _SEEN % "os.kill(number, 0)"),
    Case("no guessed number of 70000 can be opened as a pidfd", "HELD", _SEEN % "os.close(os.pidfd_open(number))"),
    Case("no guessed number of 70000 has a group", "HELD", _SEEN % "os.getpgid(number)"),
    Case(
        "no process but one's own is listed in /proc",
        "HELD",
        "one = victim()\nseen = {int(name) for name in os.listdir('/proc') if name.isdigit()}\nescaped(seen - {1, os.getpid(), HARNESS})",
    ),
    Case(
        "no command line of the host is listed in /proc",
        "HELD",
        "found = False\nfor name in os.listdir('/proc'):\n    if name.isdigit() and int(name) != os.getpid():\n        try:\n            found |= F['secret'] in read_file(f'/proc/{name}/cmdline').decode(errors='replace')\n        except OSError:\n            pass\nescaped(found)",
    ),
    Case("a child cannot ask to be traced", "EPERM", "sc('ptrace', 0, 0, 0, 0)"),
    Case("even a child of one's own cannot be attached to", "EPERM", "sc('ptrace', 16, child(), 0, 0)"),
    Case(
        "even a child's memory cannot be read by call",
        "EPERM",
        "area = buf(8)\nhere = struct.pack('=QQ', ctypes.addressof(area), 8)\nsc('process_vm_readv', child(), buf(16, here), 1, buf(16, here), 1, 0)",
    ),
    Case(
        "the priority of all processes of a user cannot be set",
        "EPERM|EACCES",
        "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
        JAIL,
    ),
    Case("the priority of a group cannot be set", "EPERM|EACCES", "os.setpriority(os.PRIO_PGRP, os.getpgrp(), 5)"),
    Case(
        "the I/O priority of all processes of a user cannot be set",
        "EPERM",
        "sc('ioprio_set', 3, 0, (2 << 13) | 4)",
        JAIL,
    ),
    Case(
        "a process of another session cannot be put into one's group",
        "ESRCH|EPERM",
        "os.setpgid(init() if INSIDE else child(), 0)\nescaped(True)",
    ),
    Case(
        "the parent that the command has is no process of the host",
        "HELD",
        "escaped(os.path.exists(f'/proc/{os.getppid()}/exe') and HARNESS > 500 if INSIDE else True)",
    ),
    Case(
        "typing into the terminal is refused",
        "EPERM",
        "one, two = os.openpty()\nfcntl.ioctl(two, 0x540E, 0)\nfcntl.ioctl(two, 0x5412, b'x')",
        ROOT,
    ),
    Case(
        "selecting and pasting on the console is refused",
        "EPERM",
        "one, two = os.openpty()\nfcntl.ioctl(two, 0x541C, b'x')",
        HOST,
        "ENOTTY",
    ),
    Case(
        "taking the console over is refused",
        "EPERM",
        "fcntl.ioctl(os.open('/dev/null', os.O_RDWR), 0x541D)",
        HOST,
        "ENOTTY",
    ),
    Case(
        "changing a terminal's line discipline is refused",
        "EPERM",
        "one, two = os.openpty()\nfcntl.ioctl(two, 0x5423, struct.pack('i', 0))",
    ),
    Case(
        "a flag above 32 bits does not get typing past the filter",
        "EPERM",
        "one, two = os.openpty()\nfcntl.ioctl(two, 0x540E, 0)\nsc('ioctl', two, 0x5412 | 1 << 32, b'x', 0)",
        ROOT,
    ),
    Case(
        "the caller's terminal cannot be opened",
        "ENXIO|ENOENT|EACCES|EPERM",
        "if not INSIDE:\n    one, two = os.openpty()\n    fcntl.ioctl(two, 0x540E, 0)\nos.close(os.open('/dev/tty', os.O_RDWR))",
    ),
]
