"""Names, numbers and argument widths of system calls on the architectures that Kavach knows.

Guarantees: numbers and widths as in the kernel headers named in the generated tables. Does not: say whether
the running kernel has a call. May be called by: anything but the code inside the jail, which needs numbers
only and has its few in uapi.
"""

from __future__ import annotations

from kavach.linux import syscalls_aarch64, syscalls_x86_64
from kavach.linux.syscall_prototypes import PROTOTYPES

AUDIT_ARCH_X86_64 = 0xC000003E  # linux/audit.h, 2.6
AUDIT_ARCH_AARCH64 = 0xC00000B7  # linux/audit.h, 3.7
AUDIT_ARCH_I386 = 0x40000003  # linux/audit.h, 2.6
X32_SYSCALL_BIT = 0x40000000  # asm/unistd.h __X32_SYSCALL_BIT, 3.4

AUDIT_ARCH = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}
_NUMBERS = {"x86_64": syscalls_x86_64.NUMBERS, "aarch64": syscalls_aarch64.NUMBERS}
_MASKS = {"h": 0xFFFF, "w": 0xFFFFFFFF, "l": 0xFFFFFFFFFFFFFFFF}

KNOWN_CALLS = frozenset(syscalls_x86_64.NUMBERS) | frozenset(syscalls_aarch64.NUMBERS)


def numbers(arch: str) -> dict[str, int]:
    """Return name -> number on `x86_64` or `aarch64`; not to be changed.

    Raises:
        ValueError: another architecture.
    """
    try:
        return _NUMBERS[arch]
    except KeyError:
        raise ValueError(f"no system call table for {arch}; there is one for {', '.join(_NUMBERS)}") from None


def argument_mask(call: str, index: int) -> int:
    """Return the bits of the argument's register that the kernel reads: 16, 32 or 64 of them.

    SECURITY: comparing more than these lets a caller hide a forbidden value behind high bits that the kernel
        then
    throws away (trap 32, CVE-2019-10063).

    Raises:
        ValueError: the call has no such argument.
    """
    kinds = PROTOTYPES.get(call, "")
    if not 0 <= index < len(kinds):
        raise ValueError(f"{call} has {len(kinds)} arguments that can be compared, not one numbered {index}")
    return _MASKS[kinds[index]]
