"""The messages between host, launcher, init and child: what is refused, and what becomes of the descriptors."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct

import pytest

from kavach.launcher import wire
from kavach.linux import memory

DEEPEST = 8


@pytest.fixture
def pair():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def open_count():
    return len(os.listdir("/proc/self/fd"))


def send_raw(channel, body, descriptors=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([body], rights)


def nested(depth):
    value = b"x"
    for _ in range(depth):
        value = (value,)
    return value


def test_message_arrives_with_its_descriptors_close_on_exec(pair):
    left, right = pair
    inner, outer = os.pipe()
    wire.send(left, (b"go", 7, None, (b"",)), (inner, outer))
    message, descriptors, pid = wire.receive(right)
    assert message == (b"go", 7, None, (b"",))
    assert [os.fstat(one).st_ino for one in descriptors] == [os.fstat(inner).st_ino, os.fstat(outer).st_ino]
    assert not any(os.get_inheritable(one) for one in descriptors)
    assert pid == 0
    wire.close_all([inner, outer])
    wire.close_all(descriptors)
    assert descriptors == []


def test_senders_pid_is_told_where_the_socket_asks_for_it(pair):
    left, right = pair
    right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    wire.send(left, (b"standing",))
    assert wire.receive(right)[2] == os.getpid()


@pytest.mark.parametrize("size", [wire.MAXIMUM_INLINE_BYTES - 5, wire.MAXIMUM_INLINE_BYTES, 1 << 20])
def test_large_message_arrives_whole_and_leaves_no_descriptor(pair, size):
    before = open_count()
    left, right = pair
    content = os.urandom(size)
    wire.send(left, content)
    assert wire.receive(right)[:2] == (content, [])
    assert open_count() == before


@pytest.mark.parametrize(
    ("refused", "code"), [(False, errno.EACCES), (True, errno.EINVAL)], ids=["vm.memfd_noexec=2", "before 6.3"]
)
def test_large_message_travels_whatever_the_kernel_says_to_memory_without_code(pair, monkeypatch, refused, code):
    create = os.memfd_create

    def strange(name, flags):
        if bool(flags & memory.MFD_NOEXEC_SEAL) is refused:
            raise OSError(code, os.strerror(code))
        return create(name, flags & ~memory.MFD_NOEXEC_SEAL)  # what this test's own kernel surely knows

    monkeypatch.setattr(os, "memfd_create", strange)
    left, right = pair
    wire.send(left, bytes(1 << 20))
    assert wire.receive(right)[0] == bytes(1 << 20)


def test_large_message_keeps_the_order_of_its_descriptors(pair):
    left, right = pair
    inner, outer = os.pipe()
    wire.send(left, bytes(1 << 20), (inner, outer))
    _, descriptors, _ = wire.receive(right)
    assert [os.fstat(one).st_ino for one in descriptors] == [os.fstat(inner).st_ino, os.fstat(outer).st_ino]
    wire.close_all([inner, outer, *descriptors])


def test_message_beyond_the_limit_is_not_sent(pair):
    with pytest.raises(ValueError, match="too large"):
        wire.send(pair[0], bytes(wire.MAXIMUM_MESSAGE_BYTES))


def test_more_descriptors_than_the_kernel_carries_are_not_sent(pair):
    with pytest.raises(ValueError, match="too large"):
        wire.send(pair[0], (), (0,) * (wire.MAXIMUM_DESCRIPTORS + 1))


@pytest.mark.parametrize("value", ["text", 1.5, [1], {1: 2}, object()])
def test_what_a_message_cannot_hold_is_named(value):
    with pytest.raises(ValueError, match=type(value).__name__):
        wire.encode((1, value))


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_number_wider_than_the_field_is_refused(value):
    with pytest.raises(ValueError, match="64 bits"):
        wire.encode(value)


def test_depth_is_bounded():
    assert wire.decode(wire.encode(nested(DEEPEST))) == nested(DEEPEST)
    with pytest.raises(ValueError, match="not a message"):
        wire.decode(wire.encode(nested(DEEPEST + 1)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"X",
        b"B\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
        b"T\x02\x00\x00\x00N",
        b"I\x00",
        b"B\x01",
        b"NN",
        wire.encode((1, b"x")) + b"N",
        b"T\xff\xff\xff\x7f" + b"N" * 64,
    ],
)
def test_malformed_bytes_are_a_value_error(body):
    with pytest.raises(ValueError, match="message"):
        wire.decode(body)


def spill(size_said, content):
    handle = os.memfd_create("message")
    os.write(handle, content)
    return b"M" + struct.pack("=I", size_said), handle


@pytest.mark.parametrize(
    ("said", "content"),
    [(5, b"N"), (wire.MAXIMUM_MESSAGE_BYTES + 1, b"N"), (1, b"X"), (0, b""), (2, b"NNN")],
)
def test_refused_large_message_closes_every_descriptor(pair, said, content):
    left, right = pair
    body, handle = spill(said, content)
    other = os.open("/dev/null", os.O_RDONLY)
    before = open_count() - 2
    send_raw(left, body, (other, handle))
    wire.close_all([other, handle])
    with pytest.raises(ValueError, match="message"):
        wire.receive(right)
    assert open_count() == before


@pytest.mark.parametrize("body", [b"X", b"M", b"M\x00\x00\x00\x00\x00", b"T\xff\xff\xff\xff", bytes(70000)])
def test_refused_message_closes_its_descriptors(pair, body):
    left, right = pair
    before = open_count()
    with open("/dev/null", "rb") as null:
        send_raw(left, body, (null.fileno(),) * 3)
    with pytest.raises(ValueError, match="message"):
        wire.receive(right)
    assert open_count() == before


def test_large_message_without_its_descriptor_is_refused(pair):
    send_raw(pair[0], b"M" + struct.pack("=I", 1))
    with pytest.raises(ValueError, match="without its body"):
        wire.receive(pair[1])


def test_large_message_on_a_pipe_is_refused_and_does_not_wait(pair):
    inner, outer = os.pipe()
    send_raw(pair[0], b"M" + struct.pack("=I", 1), (inner,))
    with pytest.raises(ValueError, match="not readable"):
        wire.receive(pair[1])
    wire.close_all([inner, outer])


def test_more_descriptors_than_agreed_are_refused_and_closed(pair):
    left, right = pair
    before = open_count()
    with open("/dev/null", "rb") as null:
        send_raw(left, b"N", (null.fileno(),) * 253)
    right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        descriptors = wire.receive(right)[1]
    except ValueError:
        descriptors = []
    assert len(descriptors) <= 253
    wire.close_all(descriptors)
    assert open_count() == before


def test_end_of_the_other_side_is_not_a_message(pair):
    pair[0].close()
    with pytest.raises(EOFError):
        wire.receive(pair[1])


def test_nothing_to_read_on_a_non_blocking_socket_is_said(pair):
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])


def test_sending_to_nobody_raises_no_signal(pair):
    pair[1].close()
    with pytest.raises(OSError, match="pipe"):
        wire.send(pair[0], (b"x",))
