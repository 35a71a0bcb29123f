"""System calls that the filter refuses; deliberately wrong arguments where the right ones would harm the control."""

from __future__ import annotations

from escape_case import HOST, JAIL, ROOT, Case

NEVER = "EPERM|ENOSYS"

# (what holds, act, control, what the kernel itself says)
_CALLS = [
    ("a file system cannot be mounted", "sc('mount', b'none', fresh().encode(), b'tmpfs', 0, None)", JAIL, "OK"),
    ("a folder cannot be bound elsewhere", "sc('mount', b'/usr', fresh().encode(), None, 0x1000, None)", JAIL, "OK"),
    (
        "a mount cannot be made writable",
        "sc('mount', None, b'/usr' if INSIDE else b'/proc', None, 0x1020, None)",
        JAIL,
        "OK",
    ),
    ("propagation of mounts cannot be changed", "sc('mount', None, b'/', None, 1 << 20, None)", JAIL, "OK|EINVAL"),
    ("a fresh proc cannot be mounted", "sc('mount', b'proc', fresh().encode(), b'proc', 0, None)", JAIL, "OK"),
    (
        "the tree of control groups cannot be mounted",
        "sc('mount', b'none', fresh().encode(), b'cgroup2', 0, None)",
        ROOT,
        "OK",
    ),
    (
        "binfmt_misc cannot be mounted",
        "sc('mount', b'none', fresh().encode(), b'binfmt_misc', 0, None)",
        ROOT,
        "OK|ENODEV",
    ),
    (
        "an overlay cannot be mounted",
        "sc('mount', b'none', fresh().encode(), b'overlay', 0, b'lowerdir=/usr:/bin')",
        JAIL,
        "OK|ENODEV|ELOOP|EINVAL",
    ),
    ("a mask cannot be unmounted", "sc('umount2', b'/proc/kcore' if INSIDE else b'/proc', 2)", JAIL, "OK"),
    ("the root cannot be unmounted", "sc('umount2', b'/', 2)", JAIL, "OK|EINVAL|EBUSY"),
    ("the root cannot be changed by chroot", "os.chroot(fresh())", JAIL, "OK"),
    (
        "the classic escape from a chroot fails",
        "place = fresh()\nhold = os.open('/', os.O_PATH)\nos.chroot(place)\nos.fchdir(hold)\nos.chroot('.')",
        JAIL,
        "OK",
    ),
    ("a tree cannot be cloned", "os.close(sc('open_tree', -100, b'/', 0x8001))", JAIL, "OK"),
    ("a mount cannot be moved", "sc('move_mount', -1, b'', -1, b'', 4)", JAIL, "EBADF|ENOENT"),
    ("a file system context cannot be opened", "os.close(sc('fsopen', b'tmpfs', 0))", JAIL, "OK"),
    ("a file system cannot be picked", "os.close(sc('fspick', -100, b'/proc', 0))", JAIL, "OK"),
    ("a file system context cannot be configured", "sc('fsconfig', -1, 6, None, None, 0)", JAIL, "EBADF|EINVAL"),
    ("a mount cannot be made from a context", "sc('fsmount', -1, 0, 0)", JAIL, "EBADF"),
    (
        "a mount's attributes cannot be changed",
        "sc('mount_setattr', -100, b'/proc', 0, buf(32, struct.pack('4Q', 0, 1, 0, 0)), 32)",
        JAIL,
        "OK",
    ),
    (
        "the list of mounts cannot be asked by call",
        "sc('listmount', buf(32, struct.pack('=IIQQQ', 24, 0, 0xFFFFFFFFFFFFFFFF, 0, 0)), buf(800), 100, 0)",
        HOST,
        "OK|ENOSYS",
    ),
    ("a mount cannot be described by call", "sc('statmount', None, None, 0, 0)", HOST, "EFAULT|EINVAL|ENOSYS"),
    ("namespaces cannot be entered by file", "sc('setns', os.open('/proc/self/ns/uts', os.O_RDONLY), 0)", JAIL, "OK"),
    ("namespaces cannot be entered by pidfd", "sc('setns', sc('pidfd_open', os.getpid(), 0), 0x04000000)", JAIL, "OK"),
    ("a bpf program cannot be loaded", "sc('bpf', 5, None, 0)", ROOT, "EINVAL|EFAULT|E2BIG|ENOSYS"),
    (
        "a bpf map cannot be made",
        "os.close(sc('bpf', 0, buf(128, struct.pack('=IIIII', 2, 4, 4, 1, 0)), 48))",
        ROOT,
        "OK|ENOSYS",
    ),
    ("performance events cannot be opened", "sc('perf_event_open', None, 0, -1, -1, 0)", ROOT, "EFAULT|ENOSYS"),
    ("an io_uring cannot be set up", "os.close(sc('io_uring_setup', 1, buf(256)))", HOST, "OK|EFAULT"),
    ("an io_uring cannot be entered", "sc('io_uring_enter', -1, 0, 0, 0, None, 0)", HOST, "EBADF"),
    ("an io_uring cannot be registered", "sc('io_uring_register', -1, 0, None, 0)", HOST, "EBADF|EINVAL"),
    ("page faults cannot be handled in user space", "os.close(sc('userfaultfd', 1))", HOST, "OK"),
    ("the session keyring cannot be found", "sc('keyctl', 0, -3, 1, 0, 0)", HOST, "OK"),
    ("the session keyring cannot be left", "sc('keyctl', 1, None, 0, 0, 0)", JAIL, "OK"),
    ("the user's keyring cannot be searched", "sc('keyctl', 10, -4, b'user', b'kavach', 0)", HOST, "ENOKEY|OK"),
    ("a key cannot be added", "sc('add_key', b'user', b'kavach-escape', b'x', 1, -2)", HOST, "OK"),
    ("a key cannot be requested", "sc('request_key', b'user', b'kavach-escape-none', None, 0)", HOST, "ENOKEY"),
    ("another kernel cannot be loaded", "sc('kexec_load', 0, 0, None, 0xFFFF)", ROOT, "EINVAL|ENOSYS"),
    (
        "another kernel cannot be loaded from a file",
        "sc('kexec_file_load', -1, -1, 0, None, 0xFFFF)",
        ROOT,
        "EINVAL|EBADF|ENOSYS",
    ),
    ("a module cannot be loaded", "sc('init_module', None, 0, b'')", ROOT, "EFAULT|ENOEXEC|ENOSYS|EINVAL"),
    ("a module cannot be loaded from a file", "sc('finit_module', -1, b'', 0)", ROOT, "EBADF|ENOSYS|EINVAL"),
    ("a module cannot be unloaded", "sc('delete_module', b'kavach-none', 0x800)", ROOT, "ENOENT|ENOSYS"),
    ("the clock cannot be set", "sc('clock_settime', 1, buf(16))", HOST, "EINVAL"),
    ("the time of day cannot be set", "sc('settimeofday', None, None)", ROOT, "OK"),
    ("the clock cannot be adjusted", "sc('adjtimex', buf(256))", HOST, "OK"),
    ("one clock cannot be adjusted", "sc('clock_adjtime', 0, buf(256))", HOST, "OK"),
    ("the machine cannot be restarted", "sc('reboot', 0, 0, 0, None)", ROOT, "EINVAL"),
    ("swap cannot be switched on", "sc('swapon', b'/nonexistent-kavach', 0)", ROOT, "ENOENT|ENOSYS"),
    ("swap cannot be switched off", "sc('swapoff', b'/nonexistent-kavach')", ROOT, "ENOENT|EINVAL|ENOSYS"),
    ("process accounting cannot be switched on", "sc('acct', b'/nonexistent-kavach')", ROOT, "ENOENT|ENOSYS"),
    (
        "quotas cannot be controlled",
        "sc('quotactl', 0x80000700, b'/nonexistent', 0, None)",
        HOST,
        "ENOENT|ENOSYS|EINVAL|ENOTBLK|EFAULT",
    ),
    ("quotas cannot be controlled by descriptor", "sc('quotactl_fd', -1, 0x80000700, 0, None)", HOST, "EBADF|ENOSYS"),
    ("the kernel's log cannot be read", "sc('syslog', 10, None, 0)", ROOT, "OK"),
    ("the host's name cannot be set", "sc('sethostname', b'kavach-escape', 13)", JAIL, "OK"),
    ("the domain's name cannot be set", "sc('setdomainname', b'kavach-escape', 13)", JAIL, "OK"),
    (
        "a file cannot be turned into a handle",
        "sc('name_to_handle_at', -100, b'/usr', buf(200, struct.pack('=Ii', 128, 0)), buf(4), 0)",
        HOST,
        "OK",
    ),
    (
        "a file cannot be opened by its handle",
        "sc('open_by_handle_at', -1, buf(200, struct.pack('=Ii', 8, 1)), 0)",
        ROOT,
        "EBADF|ESTALE",
    ),
    ("the I/O privilege cannot be raised", "sc('iopl', 3)", ROOT, "OK|ENOSYS"),
    ("I/O ports cannot be opened", "sc('ioperm', 0x80, 1, 1)", ROOT, "OK|ENOSYS"),
    ("the local descriptor table cannot be changed", "sc('modify_ldt', 0, buf(64), 64)", HOST, "OK|ENOSYS"),
    ("randomisation cannot be switched off by personality", "sc('personality', 0x0040000)", HOST, "OK"),
    ("reading cannot be made to imply executing by personality", "sc('personality', 0x0400000)", HOST, "OK"),
    ("all files of a mount cannot be watched", "os.close(sc('fanotify_init', 0, 0))", ROOT, "OK|ENOSYS"),
    ("marks for watching cannot be set", "sc('fanotify_mark', -1, 1, 0, 0, -100, None)", ROOT, "EBADF|EINVAL|ENOSYS"),
    ("a terminal cannot be hung up", "sc('vhangup')", ROOT, "OK"),
    ("pages cannot be moved between nodes", "sc('move_pages', 0, 0, None, None, None, 0)", HOST, "OK"),
    ("pages of a process cannot be migrated", "sc('migrate_pages', 0, 0, None, None)", HOST, "OK|EINVAL"),
    ("memory cannot be bound to a node", "sc('mbind', 0, 0, 0, None, 0, 0)", HOST, "OK|EINVAL"),
    ("the memory policy cannot be set", "sc('set_mempolicy', 0, None, 0)", HOST, "OK"),
    ("the memory policy cannot be asked", "sc('get_mempolicy', None, None, 0, None, 0)", HOST, "OK"),
    ("two processes cannot be compared", "sc('kcmp', os.getpid(), os.getpid(), 0, 0, 0)", HOST, "OK"),
    (
        "advice cannot be given about another's memory",
        "sc('process_madvise', -1, None, 0, 0, 0)",
        HOST,
        "EBADF|EFAULT|EINVAL",
    ),
    ("another's memory cannot be released", "sc('process_mrelease', -1, 0)", HOST, "EBADF|EINVAL"),
    ("asynchronous I/O contexts cannot be made", "sc('io_setup', 1, buf(8))", HOST, "OK"),
    ("pages of a file cannot be rearranged", "sc('remap_file_pages', 0, 0, 0, 0, 0)", HOST, "EINVAL"),
    ("the kernel's table of file systems cannot be asked", "sc('sysfs', 3)", HOST, "OK"),
    ("device numbers of file systems cannot be asked", "sc('ustat', os.stat('/').st_dev, buf(64))", HOST, "OK|EINVAL"),
    (
        "a descriptor cannot be taken from another process",
        "sc('pidfd_getfd', sc('pidfd_open', child(), 0), 0, 0)",
        HOST,
        "OK",
    ),
    ("a listener for system calls cannot be made", "bpf_allow_all(8)", HOST, "OK"),
    ("shared memory of System V cannot be made", "sc('shmctl', sc('shmget', 0, 4096, 0o1600), 0, None)", HOST, "OK"),
    ("semaphores of System V cannot be made", "sc('semctl', sc('semget', 0, 1, 0o1600), 0, 0, 0)", HOST, "OK"),
    ("message queues of System V cannot be made", "sc('msgctl', sc('msgget', 0, 0o1600), 0, None)", HOST, "OK"),
    (
        "message queues of POSIX cannot be made",
        "os.close(sc('mq_open', b'kavach-escape', 0o102, 0o600, None))\nsc('mq_unlink', b'kavach-escape')",
        HOST,
        "OK",
    ),
    ("memory layout cannot be changed by prctl", "sc('prctl', 35, 6, 0, 0, 1)", ROOT, "EINVAL"),
    ("system calls cannot be dispatched to user space", "sc('prctl', 59, 0, 0, 0, 0)", HOST, "OK"),
    ("machine checks cannot be steered by prctl", "sc('prctl', 33, 0, 0, 0, 0)", HOST, "OK"),
    ("scheduling cookies cannot be shared by prctl", "sc('prctl', 62, 99, 0, 0, 0)", HOST, "EINVAL|ENODEV"),
    ("the time stamp counter cannot be switched off by prctl", "sc('prctl', 26, 1, 0, 0, 0)", HOST, "OK"),
    ("speculation controls cannot be set by prctl", "sc('prctl', 53, 99, 0, 0, 0)", HOST, "ENODEV|EINVAL|ENXIO"),
    ("tracers cannot be chosen by prctl", "sc('prctl', 0x59616d61, 0, 0, 0, 0)", HOST, "OK|EINVAL"),
    ("an I/O flusher cannot be declared by prctl", "able(24)\nsc('prctl', 57, 1, 0, 0, 0)", ROOT, "OK"),
    ("the vdso cannot be mapped anew by arch_prctl", "sc('arch_prctl', 0x2003, 0)", HOST, "OK|EINVAL|EEXIST"),
    ("the cpuid instruction cannot be switched off by arch_prctl", "sc('arch_prctl', 0x1012, 1)", HOST, "OK|ENODEV"),
    ("clone3 cannot hide its flags from the filter", "sc('clone3', None, 0)", HOST, "EINVAL"),
    (
        "a mount's quota cannot be synchronised",
        "sc('quotactl', 0x80000100, None, 0, None)",
        HOST,
        "OK|ENOSYS|EINVAL|ENODEV",
    ),
]

_NAMESPACES = [
    ("user", 0x10000000),
    ("mount", 0x00020000),
    ("pid", 0x20000000),
    ("network", 0x40000000),
    ("ipc", 0x08000000),
    ("uts", 0x04000000),
    ("cgroup", 0x02000000),
]

CASES = [
    *(
        Case(name, "EPERM" if "ENOSYS" in outside else NEVER, act, control, outside, alone="unmounted" in name)
        for name, act, control, outside in _CALLS
    ),
    *(
        Case(
            f"a new {name} namespace cannot be made by unshare",
            NEVER,
            f"sc('unshare', {bit})",
            JAIL,
            alone=name == "pid",
        )
        for name, bit in _NAMESPACES
    ),
    *(
        Case(f"a new {name} namespace cannot be made by clone", NEVER, f"clone({bit})", JAIL)
        for name, bit in _NAMESPACES
    ),
    Case("a new time namespace cannot be made by unshare", NEVER, "sc('unshare', 0x80)", JAIL),
    Case(
        "a user namespace cannot be hidden among the flags of clone",
        NEVER,
        "clone(0x10000000 | 0x00020000 | 0x40000000)",
        JAIL,
    ),
    Case(
        "the root cannot be pivoted",
        NEVER,
        "place = fresh()\nif not INSIDE:\n    sc('mount', b'none', place.encode(), b'tmpfs', 0, None)\n    os.mkdir(place + '/old')\n"
        "sc('pivot_root', place.encode(), place.encode() + b'/old')",
        JAIL,
        alone=True,
    ),
    Case(
        "the gate of 32-bit programs is shut",
        "EPERM|ENOSYS|signal 31|signal 11",
        "import mmap\ncode = bytes([0x53, 0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0x5b, 0xc3])\n"
        "area = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)\narea.write(code)\n"
        "result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()\n"
        "if result < 0:\n    raise OSError(-result, 'refused')\nescaped(result == os.getpid())",
    ),
]
