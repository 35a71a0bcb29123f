"""The notification interface as far as it needs no filter: sizes, memory, refusals of wrong arguments."""

from __future__ import annotations

import errno
import os

import pytest

from kavach.linux import libc, notify

NOTIFICATION = notify.Notification(1, 0, 0, 0, (0,) * 6)
PAGE = 4096


def test_the_ioctl_numbers_hold_the_sizes_of_their_structures():
    assert notify.SECCOMP_IOCTL_NOTIF_RECV >> 16 & 0x3FFF == notify._NOTIFICATION.size == 80
    assert notify.SECCOMP_IOCTL_NOTIF_SEND >> 16 & 0x3FFF == notify._ANSWER.size == 24
    assert notify.SECCOMP_IOCTL_NOTIF_ID_VALID >> 16 & 0x3FFF == 8


@pytest.mark.parametrize("code", [0, -1, 4096])
def test_a_refusal_without_an_errno_would_be_success_and_is_refused(code):
    with pytest.raises(ValueError, match="errno"):
        notify.refuse(-1, NOTIFICATION, code)


def test_a_text_is_read_across_a_page_and_up_to_its_end():
    memory = libc.buffer(3 * PAGE)
    start = libc.address(memory)
    at = (start + PAGE) // PAGE * PAGE - 3 - start
    memory[at : at + 8] = b"abcdefg\0"
    assert notify.read_text(os.getpid(), start + at) == b"abcdefg"


def test_a_text_without_an_end_is_an_error():
    memory = libc.buffer(b"x" * 9000)
    with pytest.raises(OSError) as refused:
        notify.read_text(os.getpid(), libc.address(memory))
    assert refused.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("address", [0, 8, (1 << 64) - 1, 1 << 63])
def test_memory_that_is_not_there_is_an_error(address):
    with pytest.raises(OSError):
        notify.read_memory(os.getpid(), address, 16)


def test_something_else_than_a_listener_is_an_error_or_not_waiting():
    with open("/dev/null", "rb") as null:
        assert not notify.is_waiting(null.fileno(), NOTIFICATION)
        with pytest.raises(OSError):
            notify.go_on(null.fileno(), NOTIFICATION)
