"""Kernel words the launcher needs, spelt as the headers spell them: constants only, nothing computed.

Guarantees: each number is the one of the header named on its line, for both supported architectures where they
differ. Does not: decide anything. May be called by: everything in kavach.linux and kavach.launcher.
"""

from __future__ import annotations

import os

IS_X86_64 = os.uname().machine == "x86_64"

# System call numbers. Those from 424 on are the same on every architecture (asm-generic/unistd.h).
SYS_CLONE = 56 if IS_X86_64 else 220  # asm/unistd_64.h, asm-generic/unistd.h; 2.5
SYS_MOUNT = 165 if IS_X86_64 else 40  # asm/unistd_64.h, asm-generic/unistd.h; 1.0
SYS_UMOUNT2 = 166 if IS_X86_64 else 39  # asm/unistd_64.h, asm-generic/unistd.h; 2.2
SYS_PIVOT_ROOT = 155 if IS_X86_64 else 41  # asm/unistd_64.h, asm-generic/unistd.h; 2.3.41
SYS_PRCTL = 157 if IS_X86_64 else 167  # asm/unistd_64.h, asm-generic/unistd.h; 2.1.57
SYS_CAPSET = 126 if IS_X86_64 else 91  # asm/unistd_64.h, asm-generic/unistd.h; 2.1.100
SYS_SETDOMAINNAME = 171 if IS_X86_64 else 162  # asm/unistd_64.h, asm-generic/unistd.h; 1.0
SYS_KEYCTL = 250 if IS_X86_64 else 219  # asm/unistd_64.h, asm-generic/unistd.h; 2.6.10
SYS_ADD_KEY = 248 if IS_X86_64 else 217  # asm/unistd_64.h, asm-generic/unistd.h; 2.6.10
SYS_PTRACE = 101 if IS_X86_64 else 117  # asm/unistd_64.h, asm-generic/unistd.h; 1.0
SYS_UNSHARE = 272 if IS_X86_64 else 97  # asm/unistd_64.h, asm-generic/unistd.h; 2.6.16
SYS_SIGNALFD4 = 289 if IS_X86_64 else 74  # asm/unistd_64.h, asm-generic/unistd.h; 2.6.27
SYS_PIDFD_SEND_SIGNAL = 424  # asm-generic/unistd.h; 5.1
SYS_OPEN_TREE = 428  # asm-generic/unistd.h; 5.2
SYS_MOVE_MOUNT = 429  # asm-generic/unistd.h; 5.2
SYS_PIDFD_OPEN = 434  # asm-generic/unistd.h; 5.3
SYS_CLONE3 = 435  # asm-generic/unistd.h; 5.3
SYS_CLOSE_RANGE = 436  # asm-generic/unistd.h; 5.9
SYS_OPENAT2 = 437  # asm-generic/unistd.h; 5.6
SYS_MOUNT_SETATTR = 442  # asm-generic/unistd.h; 5.12

CLONE_NEWNS = 0x00020000  # linux/sched.h; 2.4.19
CLONE_NEWCGROUP = 0x02000000  # linux/sched.h; 4.6
CLONE_NEWUTS = 0x04000000  # linux/sched.h; 2.6.19
CLONE_NEWIPC = 0x08000000  # linux/sched.h; 2.6.19
CLONE_NEWUSER = 0x10000000  # linux/sched.h; 3.8
CLONE_NEWPID = 0x20000000  # linux/sched.h; 2.6.24
CLONE_NEWNET = 0x40000000  # linux/sched.h; 2.6.29
CLONE_INTO_CGROUP = 0x200000000  # linux/sched.h; 5.7
CLONE_PARENT = 0x00008000  # linux/sched.h; 2.3.13

MS_RDONLY = 0x1  # linux/mount.h; 1.0
MS_NOSUID = 0x2  # linux/mount.h; 1.0
MS_NODEV = 0x4  # linux/mount.h; 1.0
MS_NOEXEC = 0x8  # linux/mount.h; 1.0
MS_REC = 0x4000  # linux/mount.h; 2.4.11
MS_PRIVATE = 0x40000  # linux/mount.h; 2.6.15
MNT_DETACH = 0x2  # linux/fs.h; 2.4.11

OPEN_TREE_CLONE = 0x1  # linux/mount.h; 5.2
OPEN_TREE_CLOEXEC = 0o2000000  # linux/mount.h; 5.2
MOVE_MOUNT_F_EMPTY_PATH = 0x4  # linux/mount.h; 5.2
MOVE_MOUNT_T_EMPTY_PATH = 0x40  # linux/mount.h; 5.2
MOUNT_ATTR_RDONLY = 0x1  # linux/mount.h; 5.12
MOUNT_ATTR_NOSUID = 0x2  # linux/mount.h; 5.12
MOUNT_ATTR_NODEV = 0x4  # linux/mount.h; 5.12
MOUNT_ATTR_NOEXEC = 0x8  # linux/mount.h; 5.12
MOUNT_ATTR_IDMAP = 0x00100000  # linux/mount.h; 5.12
AT_FDCWD = -100  # linux/fcntl.h; 2.6.16
AT_EMPTY_PATH = 0x1000  # linux/fcntl.h; 2.6.39
AT_RECURSIVE = 0x8000  # linux/fcntl.h; 5.2
AT_SYMLINK_NOFOLLOW = 0x100  # linux/fcntl.h; 2.6.16

RESOLVE_NO_XDEV = 0x01  # linux/openat2.h; 5.6
RESOLVE_NO_MAGICLINKS = 0x02  # linux/openat2.h; 5.6
RESOLVE_NO_SYMLINKS = 0x04  # linux/openat2.h; 5.6
RESOLVE_BENEATH = 0x08  # linux/openat2.h; 5.6

PR_SET_PDEATHSIG = 1  # linux/prctl.h; 2.1.57
PR_GET_DUMPABLE = 3  # linux/prctl.h; 2.3.20
PR_SET_DUMPABLE = 4  # linux/prctl.h; 2.3.20
PR_CAPBSET_DROP = 24  # linux/prctl.h; 2.6.25
PR_SET_SECUREBITS = 28  # linux/prctl.h; 2.6.26
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h; 3.4
PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h; 3.5
PR_CAP_AMBIENT = 47  # linux/prctl.h; 4.3
PR_CAP_AMBIENT_CLEAR_ALL = 4  # linux/prctl.h; 4.3

# Each bit beside the one that locks it.
SECBIT_NOROOT = 0x1  # linux/securebits.h; 2.6.26
SECBIT_NOROOT_LOCKED = 0x2  # linux/securebits.h; 2.6.26
SECBIT_NO_SETUID_FIXUP = 0x4  # linux/securebits.h; 2.6.26
SECBIT_NO_SETUID_FIXUP_LOCKED = 0x8  # linux/securebits.h; 2.6.26
SECBIT_KEEP_CAPS_LOCKED = 0x20  # linux/securebits.h; 2.6.26
SECBIT_NO_CAP_AMBIENT_RAISE = 0x40  # linux/securebits.h; 4.3
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 0x80  # linux/securebits.h; 4.3

CAP_KILL = 5  # linux/capability.h; 2.2
CAP_SETGID = 6  # linux/capability.h; 2.2
CAP_SETUID = 7  # linux/capability.h; 2.2
CAP_SETPCAP = 8  # linux/capability.h; 2.2
LINUX_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h; 2.6.26

KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h; 2.6.10
SIOCGIFFLAGS = 0x8913  # linux/sockios.h; 1.0
SIOCSIFFLAGS = 0x8914  # linux/sockios.h; 1.0
IFF_UP = 0x1  # linux/if.h; 1.0
CLOSE_RANGE_CLOEXEC = 0x4  # linux/close_range.h; 5.11
SFD_NONBLOCK = 0o4000  # linux/fcntl.h, sys/signalfd.h; 2.6.27
SFD_CLOEXEC = 0o2000000  # linux/fcntl.h, sys/signalfd.h; 2.6.27
SCM_CREDENTIALS = 2  # linux/socket.h; 2.2
SO_PASSCRED = 16  # asm-generic/socket.h; 2.2
SYS_FSOPEN = 430  # asm-generic/unistd.h; 5.2
SYS_FSCONFIG = 431  # asm-generic/unistd.h; 5.2
SYS_FSMOUNT = 432  # asm-generic/unistd.h; 5.2
FSOPEN_CLOEXEC = 0x1  # linux/mount.h; 5.2
FSCONFIG_SET_STRING = 1  # linux/mount.h; 5.2
FSCONFIG_CMD_CREATE = 6  # linux/mount.h; 5.2
FSMOUNT_CLOEXEC = 0x1  # linux/mount.h; 5.2
SIGKILL = 9  # asm-generic/signal.h; 1.0
SIGTERM = 15  # asm-generic/signal.h; 1.0
SIGCHLD = 17  # asm-generic/signal.h; 1.0
SIGCONT = 18  # asm-generic/signal.h; 1.0
SIGSTOP = 19  # asm-generic/signal.h; 1.0
