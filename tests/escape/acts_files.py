"""Acts against the host's files: reading what is secret, writing what is not the sandbox's."""

from __future__ import annotations

from escape_case import HOST, JAIL, ROOT, Case

NOWHERE = "ENOENT"
SEALED = "EROFS|EACCES|EPERM"

_READS = [
    ("the host's /etc/shadow cannot be read", ROOT, "read_file('/etc/shadow')"),
    ("/proc/self/root does not lead to the host's /etc/shadow", ROOT, "read_file('/proc/self/root/etc/shadow')"),
    ("dots above the root do not lead to the host's /etc/shadow", ROOT, "read_file('/' + '../' * 40 + 'etc/shadow')"),
    (
        "dots above an open root folder do not lead out",
        ROOT,
        "root = os.open('/', os.O_PATH)\nos.close(os.open('../../etc/shadow', os.O_RDONLY, dir_fd=root))",
    ),
    (
        "a folder renamed while it is open does not lead out",
        ROOT,
        (
            "place = fresh()\nos.makedirs(place + '/a/b')\ninner = os.open(place + '/a/b', os.O_PATH)\n"
            "os.rename(place + '/a/b', place + '/c')\n"
            "os.close(os.open('../' * 20 + 'etc/shadow', os.O_RDONLY, dir_fd=inner))"
        ),
    ),
    (
        "a working directory that was removed does not lead out",
        ROOT,
        (
            "place = fresh()\nos.mkdir(place + '/gone')\nos.chdir(place + '/gone')\nhold = os.open('..', os.O_PATH)\n"
            "os.rmdir(place + '/gone')\nos.fchdir(hold)\nread_file('../' * 20 + 'etc/shadow')"
        ),
    ),
    (
        "a planted symbolic link does not lead to the host's /etc/shadow",
        ROOT,
        "place = fresh()\nos.symlink('/etc/shadow', place + '/link')\nread_file(place + '/link')",
    ),
    ("a file of the host outside the view cannot be read", HOST, "read_file(F['secret_file'])"),
    ("a file in the host's /dev/shm cannot be read", HOST, "read_file(F['shared'])"),
    ("the working directory of the caller cannot be entered", HOST, "os.chdir(F['cwd'])"),
    ("root's home cannot be listed", ROOT, "need('/root')\nos.listdir('/root')"),
    ("the homes of the host's users cannot be listed", HOST, "need('/home')\nos.listdir('/home')"),
    ("the host's /var cannot be listed", HOST, "need('/var')\nos.listdir('/var')"),
    ("the host's /sys cannot be listed", HOST, "need('/sys')\nos.listdir('/sys')"),
    ("the host's cgroups cannot be listed", HOST, "need('/sys/fs/cgroup')\nos.listdir('/sys/fs/cgroup')"),
    ("the host's /boot cannot be listed", HOST, "need('/boot')\nos.listdir('/boot')"),
    ("the host's /mnt cannot be listed", HOST, "need('/mnt')\nos.listdir('/mnt')"),
    ("the host's /opt cannot be listed", HOST, "need('/opt')\nos.listdir('/opt')"),
    ("the host's /srv cannot be listed", HOST, "need('/srv')\nos.listdir('/srv')"),
    ("the host's table of file systems cannot be seen", HOST, "need('/etc/fstab')\nos.stat('/etc/fstab')"),
    ("the host's release cannot be read", HOST, "need('/etc/debian_version')\nread_file('/etc/debian_version')"),
    ("the host's kernel messages cannot be opened", ROOT, "os.close(os.open('/dev/kmsg', os.O_RDONLY))"),
    (
        "the host's physical memory cannot be opened",
        ROOT,
        "need('/dev/mem')\nos.close(os.open('/dev/mem', os.O_RDONLY))",
    ),
    (
        "the host's kernel cannot be read through /proc/kcore",
        ROOT,
        "need('/proc/kcore')\nescaped(read_file('/proc/kcore', 64))",
    ),
]

_MASKED = [
    ("kallsyms", HOST),
    ("interrupts", HOST),
    ("timer_list", ROOT),
    ("keys", HOST),
]

_WRITES = [
    ("a file cannot be made in a system folder", "write_file(F['system'] + '/planted', flags=os.O_CREAT)"),
    ("a nameless file cannot be made in a system folder", "write_file(F['system'], flags=os.O_TMPFILE)"),
    ("a folder cannot be made in a system folder", "os.mkdir(F['system'] + '/planted-folder')"),
    ("a symbolic link cannot be made in a system folder", "os.symlink('/tmp', F['system'] + '/planted-link')"),
    ("a pipe cannot be made in a system folder", "os.mkfifo(F['system'] + '/planted-pipe')"),
    (
        "a socket cannot be bound in a system folder",
        "sock(socket.AF_UNIX, socket.SOCK_DGRAM).bind(F['system'] + '/planted-socket')",
    ),
    ("a system file cannot be opened for writing", "os.close(os.open(F['file'], os.O_WRONLY))"),
    ("a system file cannot be truncated", "os.truncate(F['file'], 1)"),
    ("a system file cannot be removed", "os.unlink(F['file'])\nwrite_file(F['file'], flags=os.O_CREAT)"),
    ("a system file's mode cannot be changed", "os.chmod(F['file'], 0o777)"),
    ("a system file's times cannot be changed", "os.utime(F['file'], (0, 0))"),
    ("a system file's owner cannot be changed", "os.chown(F['file'], os.getuid(), os.getgid())"),
    ("a system file cannot be renamed", "os.rename(F['file'], F['file'] + '2')\nos.rename(F['file'] + '2', F['file'])"),
    (
        "a system file cannot be written through /proc/self/root",
        "os.close(os.open('/proc/self/root' + F['file'], os.O_WRONLY))",
    ),
    (
        "a descriptor of a system file cannot be opened anew for writing",
        "first = os.open(F['file'], os.O_RDONLY)\nos.close(os.open(f'/proc/self/fd/{first}', os.O_RDWR))",
    ),
    (
        "a path descriptor of a system file cannot be opened for writing",
        "first = os.open(F['file'], os.O_PATH)\nos.close(os.open(f'/proc/self/fd/{first}', os.O_WRONLY))",
    ),
    (
        "a path descriptor of a system file cannot be truncated",
        "first = os.open(F['file'], os.O_PATH)\nos.truncate(f'/proc/self/fd/{first}', 3)",
    ),
    (
        "a path descriptor of a system file cannot change its mode",
        "first = os.open(F['file'], os.O_PATH)\nos.chmod(f'/proc/self/fd/{first}', 0o777)",
    ),
    (
        "a system file cannot be mapped shared for writing",
        "import mmap\nfirst = os.open(F['file'], os.O_RDWR)\nmmap.mmap(first, 0, mmap.MAP_SHARED).flush()",
    ),
    (
        "a parent folder of the system cannot be renamed",
        "os.rename(F['system'], F['system'] + '-moved')\nos.rename(F['system'] + '-moved', F['system'])",
    ),
    (
        "a race of a symbolic link does not write to the system",
        (
            "place, target = fresh(), F['system'] + '/raced'\nwrite_file(place + '/good', flags=os.O_CREAT)\n"
            "os.symlink(place + '/good', place + '/link')\nother = os.fork()\n"
            "while other == 0:\n    for aim in (place + '/good', target):\n"
            "        os.symlink(aim, place + '/new')\n        os.rename(place + '/new', place + '/link')\n"
            "VICTIMS.append(other)\nend = time.monotonic() + 1.5\n"
            "while time.monotonic() < end and not os.path.exists(target):\n"
            "    try:\n        write_file(place + '/link', flags=os.O_CREAT)\n    except OSError:\n        pass\n"
            "os.kill(other, signal.SIGKILL)\nescaped(os.path.exists(target))"
        ),
    ),
]

_LINKS = [
    (
        "a hard link to a system file cannot be made where one may write",
        "EXDEV|EPERM|EACCES",
        "os.link(F['file'], fresh() + '/link')",
    ),
    (
        "a hard link to an open system file cannot be made by its descriptor",
        "EXDEV|EPERM|EACCES|ENOENT",
        (
            "first = os.open(F['file'], os.O_RDONLY)\n"
            "sc('linkat', -100, b'/proc/self/fd/%d' % first, -100, fresh().encode() + b'/link', 0x400)"
        ),
    ),
    (
        "a nameless file cannot be given a name in the system",
        "EXDEV|EROFS|EACCES|EPERM",
        (
            "place = fresh()\nfirst = os.open(place, os.O_WRONLY | os.O_TMPFILE, 0o600)\n"
            "sc('linkat', -100, b'/proc/self/fd/%d' % first, -100, F['system'].encode() + b'/named', 0x400)"
        ),
    ),
    (
        "a file of one's own cannot be moved into the system",
        "EXDEV|EROFS|EACCES|EPERM",
        "place = fresh()\nwrite_file(place + '/own', flags=os.O_CREAT)\nos.rename(place + '/own', F['system'] + '/own')",
    ),
]

_KERNEL_FILES = [
    ("the kernel's core handler cannot be set", "/proc/sys/kernel/core_pattern"),
    ("the kernel's module loader cannot be set", "/proc/sys/kernel/modprobe"),
    ("the kernel's caches cannot be dropped", "/proc/sys/vm/drop_caches"),
    ("the kernel's magic keys cannot be pressed", "/proc/sysrq-trigger"),
    ("forwarding cannot be switched on", "/proc/sys/net/ipv4/ip_forward"),
    ("the host's name cannot be written through /proc/sys", "/proc/sys/kernel/hostname"),
    ("ranges of ping groups cannot be written", "/proc/sys/net/ipv4/ping_group_range"),
    ("the kernel's randomisation cannot be set", "/proc/sys/kernel/randomize_va_space"),
]

CASES = [
    *(Case(name, f"{NOWHERE}|EACCES|EPERM|HELD", act, control) for name, control, act in _READS),
    *(
        Case(
            f"/proc/{name} tells nothing",
            "HELD|ENOENT|EACCES|EPERM",
            f"escaped(read_file('/proc/{name}'))",
            control,
        )
        for name, control in _MASKED
    ),
    *(
        Case(name, SEALED + ("|HELD" if "race" in name else "|EXDEV|EBUSY" if "rename" in name else ""), act)
        for name, act in _WRITES
    ),
    *(Case(name, inside, act) for name, inside, act in _LINKS),
    *(
        Case(name, f"{SEALED}|ENOENT", f"need('{path}')\nos.close(os.open('{path}', os.O_WRONLY))", ROOT)
        for name, path in _KERNEL_FILES
    ),
    Case(
        "the limit of user namespaces cannot be raised",
        SEALED,
        "if not INSIDE:\n    sc('unshare', 0x10000000)\nwrite_file('/proc/sys/user/max_user_namespaces', b'99')",
    ),
    Case(
        "a file cannot be made at the root",
        SEALED,
        "write_file((F['root'] if INSIDE else F['system']) + '/planted-at-root', flags=os.O_CREAT)",
    ),
    Case(
        "a character device cannot be made",
        "EPERM|EACCES",
        "os.mknod(fresh() + '/null', 0o020666, os.makedev(1, 3))",
        ROOT,
    ),
    Case(
        "a block device cannot be made",
        "EPERM|EACCES",
        "os.mknod(fresh() + '/disk', 0o060666, os.makedev(8, 0))",
        ROOT,
    ),
    Case("a whiteout cannot be made", "EPERM|EACCES", "os.mknod(fresh() + '/white', 0o020666, 0)"),
    Case(
        "a file capability cannot be set",
        "EPERM|EACCES",
        "place = fresh() + '/own'\nwrite_file(place, flags=os.O_CREAT)\nos.setxattr(place, 'security.capability', struct.pack('<5I', 0x02000001, 1 << 21, 0, 0, 0))",
        JAIL,
    ),
    Case(
        "a trusted attribute cannot be set",
        "EPERM|EACCES",
        "place = fresh() + '/own'\nwrite_file(place, flags=os.O_CREAT)\nos.setxattr(place, 'trusted.kavach', b'1')",
        ROOT,
    ),
    Case(
        "a file cannot be given to root",
        "EPERM|EINVAL|EACCES",
        "place = fresh() + '/own'\nwrite_file(place, flags=os.O_CREAT)\nos.chown(place, 0, 0)",
        JAIL,
    ),
    Case(
        "a file's immutable flag cannot be set",
        "EPERM",
        "place = fresh() + '/own'\nwrite_file(place, flags=os.O_CREAT)\nfcntl.ioctl(os.open(place, os.O_RDONLY), 0x40086602, struct.pack('l', 0))",
        outside="OK|ENOTTY|EOPNOTSUPP",
    ),
    Case(
        "the mounts of the host are not listed",
        "HELD",
        "escaped(' /sys ' in read_file('/proc/self/mountinfo').decode())",
    ),
    Case(
        "the tree of control groups is mounted nowhere",
        "HELD",
        "escaped(' - cgroup' in open('/proc/self/mountinfo').read())",
    ),
    Case(
        "only harmless devices exist",
        "HELD",
        "escaped(set(os.listdir('/dev')) - {'null', 'zero', 'full', 'random', 'urandom', 'tty', 'pts', 'ptmx', 'shm', 'fd', 'stdin', 'stdout', 'stderr'})",
    ),
    Case(
        "/etc holds nothing but what programs need to start",
        "HELD",
        "escaped(set(os.listdir('/etc')) - {'alternatives', 'ld.so.cache', 'localtime', 'pki', 'services', 'ssl', 'passwd', 'group', 'hosts', 'hostname', 'resolv.conf', 'nsswitch.conf', 'shells'})",
    ),
    Case(
        "the root holds nothing but the view",
        "HELD",
        "escaped({'root', 'home', 'var', 'run', 'boot', 'sys', 'srv', 'opt', 'mnt', 'media'} & set(os.listdir('/')))",
    ),
]
