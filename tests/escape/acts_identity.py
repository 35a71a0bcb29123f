"""Acts to gain rights: ids, capabilities, setuid programs, limits, the filter and the domain themselves."""

from __future__ import annotations

from escape_case import JAIL, ROOT, Case

_STATUS = "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
_ALL_CAPABILITIES = (
    "header = struct.pack('=Ii', 0x20080522, 0)\nsc('capset', buf(8, header), buf(24, struct.pack('=6I', {words})))"
)

_LIMITS = [
    ("open files", "RLIMIT_NOFILE"),
    ("processes", "RLIMIT_NPROC"),
    ("locked memory", "RLIMIT_MEMLOCK"),
]

CASES = [
    *(
        Case(f"the {words} set of capabilities is empty", "HELD", _STATUS + f"escaped(int(status['{name}'], 16))", JAIL)
        for words, name in (("permitted", "CapPrm"), ("effective", "CapEff"), ("bounding", "CapBnd"))
    ),
    Case("no capability can be taken", "EPERM", _ALL_CAPABILITIES.format(words="1 << 21, 1 << 21, 0, 0, 0, 0"), JAIL),
    Case(
        "no capability can be made inheritable",
        "EPERM",
        _ALL_CAPABILITIES.format(words="1 << 21, 1 << 21, 1 << 21, 0, 0, 0"),
        JAIL,
    ),
    Case(
        "no ambient capability can be raised",
        "EPERM",
        "if not INSIDE:\n    "
        + _ALL_CAPABILITIES.format(words="1 << 21, 1 << 21, 1 << 21, 0, 0, 0").replace("\n", "\n    ")
        + "\nsc('prctl', 47, 2, 21, 0, 0)",
        JAIL,
    ),
    Case(
        "no capability is in the bounding set by prctl",
        "HELD",
        "escaped(any(sc('prctl', 23, number, 0, 0, 0) for number in range(41)))",
        JAIL,
    ),
    Case("the secure bits cannot be set", "EPERM", "sc('prctl', 28, 0, 0, 0, 0)", JAIL),
    Case("the secure bits are locked", "HELD", "escaped(sc('prctl', 27, 0, 0, 0, 0) & 3 != 3)", JAIL),
    Case("capabilities cannot be kept over a change of ids", "EPERM", "sc('prctl', 8, 1, 0, 0, 0)"),
    Case("the command cannot become root", "EPERM|EINVAL", "os.setresuid(0, 0, 0)\nescaped(os.getuid() == 0)", JAIL),
    Case("the command cannot become another user", "EPERM|EINVAL", "os.setresuid(1234, 1234, 1234)", ROOT),
    Case("the command cannot take root's group", "EPERM|EINVAL", "os.setresgid(0, 0, 0)", JAIL),
    Case("the command cannot take another group", "EPERM|EINVAL", "os.setresgid(1234, 1234, 1234)", ROOT),
    Case("the command cannot set its supplementary groups", "EPERM|EINVAL", "os.setgroups([0, 4, 6])", ROOT),
    Case(
        "the command's file system id cannot be root's",
        "HELD",
        "sc('setfsuid', 0)\nescaped(sc('setfsuid', -1) == 0)",
        JAIL,
    ),
    Case("the command has none of the host's groups", "HELD", "escaped(0 in os.getgroups() or os.getgid() == 0)", ROOT),
    Case("the command is not root", "HELD", "escaped(0 in (os.getuid(), os.geteuid()))", JAIL),
    Case(
        "its user namespace maps no id of root",
        "HELD",
        "escaped(any(line.split()[:2] == ['0', '0'] for line in open('/proc/self/uid_map')) or '4294967295' in open('/proc/self/uid_map').read())",
        ROOT,
    ),
    Case(
        "its map of users cannot be written",
        "EPERM|EACCES|EROFS",
        "if not INSIDE:\n    sc('unshare', 0x10000000)\nwrite_file('/proc/self/uid_map', b'0 0 1')",
        ROOT,
    ),
    Case(
        "its permission of groups cannot be written",
        "EPERM|EACCES|EROFS",
        "if not INSIDE:\n    sc('unshare', 0x10000000)\nwrite_file('/proc/self/setgroups', b'deny')",
    ),
    Case(
        "mounting by the setuid mount program fails",
        "HELD",
        "place = fresh()\nescaped(os.system(f'/usr/bin/mount -t tmpfs none {place} 2>/dev/null') == 0)",
        JAIL,
    ),
    Case(
        "becoming root by the setuid su program fails",
        "HELD",
        "escaped(os.system('/usr/bin/su root -c true </dev/null >/dev/null 2>&1') == 0)",
        ROOT,
    ),
    Case("no new privileges are ever gained", "HELD", "escaped(sc('prctl', 39, 0, 0, 0, 0) == 0)"),
    Case("the command runs under filters", "HELD", _STATUS + "escaped(int(status['Seccomp']) != 2)"),
    Case("a filter that allows all brings no call back", "EPERM", "bpf_allow_all()\nsc('unshare', 0x04000000)", JAIL),
    Case(
        "a filter for all threads that allows all brings no call back",
        "EPERM",
        "bpf_allow_all(1)\nsc('ptrace', 0, 0, 0, 0)",
    ),
    Case(
        "a domain that allows all brings no file back",
        "EROFS|EACCES|EPERM",
        "ruleset = sc('landlock_create_ruleset', buf(8, struct.pack('=Q', 4)), 8, 0)\nhandle = os.open('/', os.O_PATH)\n"
        "sc('landlock_add_rule', ruleset, 1, buf(12, struct.pack('=Qi', 4, handle)), 0)\nsc('prctl', 38, 1, 0, 0, 0)\nsc('landlock_restrict_self', ruleset, 0)\n"
        "write_file(F['system'] + '/domain', flags=os.O_CREAT)",
    ),
    Case(
        "a thread of its own is not outside the filter",
        "HELD",
        "import threading\nfound = []\ndef attack_again():\n    try:\n        sc('personality', 0x40000)\n        found.append(1)\n    except OSError:\n        pass\none = threading.Thread(target=attack_again)\none.start()\none.join()\nescaped(found)",
    ),
    Case(
        "a program started anew is not outside the filter",
        "HELD",
        "escaped(os.system(\"/usr/bin/python3 -I -S -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).ptrace(0, 0, 0, 0) != 0)'\") == 0)",
    ),
    Case(
        "a program without a file is not outside the filter",
        "HELD|EPERM",
        "handle = os.memfd_create('kavach')\nwith open('/usr/bin/python3', 'rb') as source:\n    while part := source.read(1 << 20):\n        os.write(handle, part)\n"
        "pid = os.fork()\nif pid == 0:\n    os.execve(handle, ['python3', '-I', '-S', '-c', 'import ctypes; raise SystemExit(ctypes.CDLL(None).ptrace(0, 0, 0, 0) != 0)'], {})\n"
        "escaped(os.waitpid(pid, 0)[1] == 0)",
    ),
    *(
        Case(
            f"the limit on {words} cannot be raised",
            "EPERM",
            f"import resource\nable(24)\nsoft, hard = resource.getrlimit(resource.{name})\nif not INSIDE:\n    resource.setrlimit(resource.{name}, (16, 1000))\n    hard = 1000\nsc('prlimit64', 0, resource.{name}, buf(16, struct.pack('=QQ', hard + 1 if hard >= 0 else 9, hard + 1 if hard >= 0 else (1 << 64) - 1)), None)",
            ROOT,
        )
        for words, name in _LIMITS
    ),
    Case(
        "the core limit cannot be lowered to the zero that wakes a handler",
        "EPERM",
        "sc('prlimit64', 0, 4, buf(16), None)",
        outside="OK",
    ),
    Case(
        "the command cannot make itself more important", "EPERM|EACCES", "os.setpriority(os.PRIO_PROCESS, 0, -5)", ROOT
    ),
    Case(
        "the command cannot run in real time",
        "EPERM",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        ROOT,
    ),
    Case("the command cannot take real-time I/O", "EPERM", "sc('ioprio_set', 1, 0, 1 << 13)", ROOT),
    Case(
        "the command cannot hide from the memory killer",
        "EACCES|EPERM|EROFS",
        "able(24)\nwrite_file('/proc/self/oom_score_adj', b'-1000')",
        ROOT,
    ),
    Case(
        "the limit on locked memory holds",
        "EPERM|ENOMEM|EAGAIN",
        "import mmap\narea = mmap.mmap(-1, 256 << 20)\nsc('mlock', ctypes.addressof(ctypes.c_char.from_buffer(area)), 256 << 20)",
        ROOT,
    ),
]
