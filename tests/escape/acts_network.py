"""Acts against the network: reaching the host's listeners, making sockets that reach around, changing interfaces."""

from __future__ import annotations

from escape_case import HOST, JAIL, ROOT, Case

_CONNECT = "one = sock({family}, {kind})\none.settimeout(0.5)\none.connect({address})"

_FAMILIES = [
    ("a vsock", "40, socket.SOCK_STREAM, 0", HOST),
    ("a kernel crypto socket", "38, socket.SOCK_SEQPACKET, 0", HOST),
    ("an IPsec key socket", "15, socket.SOCK_RAW, 2", ROOT),
    ("a Bluetooth socket", "31, socket.SOCK_RAW, 1", HOST),
    ("a CAN socket", "29, socket.SOCK_RAW, 1", JAIL),
    ("a TIPC socket", "30, socket.SOCK_RDM, 0", HOST),
    ("an express-data-path socket", "44, socket.SOCK_RAW, 0", JAIL),
    ("an RDS socket", "21, socket.SOCK_SEQPACKET, 0", HOST),
    ("an SMC socket", "43, socket.SOCK_STREAM, 0", HOST),
    ("a KCM socket", "41, socket.SOCK_DGRAM, 0", HOST),
    ("a PPPoX socket", "24, socket.SOCK_STREAM, 0", HOST),
    ("a Qualcomm router socket", "42, socket.SOCK_DGRAM, 0", HOST),
    ("an SCTP socket", "socket.AF_INET, socket.SOCK_STREAM, 132", HOST),
    ("a DCCP socket", "socket.AF_INET, 6, 33", HOST),
    ("a multipath TCP socket", "socket.AF_INET, socket.SOCK_STREAM, 262", HOST),
    ("a UDP-Lite socket", "socket.AF_INET, socket.SOCK_DGRAM, 136", HOST),
    ("a raw IPv4 socket", "socket.AF_INET, socket.SOCK_RAW, 1", JAIL),
    ("a raw IPv6 socket", "socket.AF_INET6, socket.SOCK_RAW, 58", JAIL),
    ("a packet socket", "17, socket.SOCK_RAW, 0", JAIL),
    ("a packet datagram socket", "17, socket.SOCK_DGRAM, 0", JAIL),
    ("an audit netlink socket", "16, socket.SOCK_RAW, 9", HOST),
    ("a netfilter netlink socket", "16, socket.SOCK_RAW, 12", HOST),
    ("a generic netlink socket", "16, socket.SOCK_RAW, 16", HOST),
    ("a uevent netlink socket", "16, socket.SOCK_RAW, 15", HOST),
    ("a socket-diagnosis netlink socket", "16, socket.SOCK_RAW, 4", HOST),
    ("a connector netlink socket", "16, socket.SOCK_DGRAM, 11", HOST),
    ("an IPsec netlink socket", "16, socket.SOCK_RAW, 6", HOST),
    ("a crypto netlink socket", "16, socket.SOCK_RAW, 21", HOST),
]
_ABSENT = "OK|EAFNOSUPPORT|EPROTONOSUPPORT|ESOCKTNOSUPPORT|ENODEV"

_NETLINK = """
one = sock(16, socket.SOCK_RAW, 0)
one.bind((0, 0))
body = {body}
one.send(struct.pack('=IHHII', 16 + len(body), {kind}, {flags}, 1, 0) + body)
code = struct.unpack('=i', one.recv(4096)[16:20])[0]
if code:
    raise OSError(-code, 'refused')
"""

_OPTIONS = [
    ("a socket cannot be marked for the host's routing", "1, 36, 5"),
    ("a socket's buffer cannot be forced beyond the limit", "1, 33, 1 << 20"),
    ("a socket cannot bind to addresses of others", "0, 19, 1"),
    ("a socket's debugging cannot be switched on", "1, 1, 1"),
    ("a TCP socket cannot be put into repair mode", "6, 19, 1"),
]

CASES = [
    Case(
        "a TCP listener on the host's loopback cannot be reached",
        "ECONNREFUSED|ENETUNREACH|EACCES|EPERM",
        _CONNECT.format(family="socket.AF_INET", kind="socket.SOCK_STREAM", address="('127.0.0.1', F['tcp'])"),
    ),
    Case(
        "a TCP listener on every address of the host cannot be reached",
        "ECONNREFUSED|ENETUNREACH|EACCES|EPERM",
        _CONNECT.format(
            family="socket.AF_INET", kind="socket.SOCK_STREAM", address="('127.9.9.9', F['tcp_everywhere'])"
        ),
    ),
    Case(
        "a TCP listener on the host's IPv6 loopback cannot be reached",
        "ECONNREFUSED|ENETUNREACH|EACCES|EPERM|EADDRNOTAVAIL",
        _CONNECT.format(family="socket.AF_INET6", kind="socket.SOCK_STREAM", address="('::1', F['tcp6'])"),
    ),
    Case(
        "a UDP service on the host's loopback does not answer",
        "ECONNREFUSED|ENETUNREACH|EPERM|HELD",
        _CONNECT.format(family="socket.AF_INET", kind="socket.SOCK_DGRAM", address="('127.0.0.1', F['udp'])")
        + "\none.send(b'x')\nescaped(one.recv(10) == b'x')",
    ),
    Case(
        "an address of the host outside its loopback cannot be reached",
        "ENETUNREACH|EPERM|EACCES",
        "one = sock(socket.AF_INET, socket.SOCK_DGRAM)\none.connect(('192.0.2.1' if INSIDE else '127.0.0.2', 9))",
    ),
    Case(
        "no packet leaves for the outer network",
        "ENETUNREACH|EPERM|EACCES",
        "sock(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.53' if INSIDE else '127.0.0.1', F['udp']))",
    ),
    Case(
        "broadcasts reach nobody",
        "ENETUNREACH|EPERM|EACCES|EINVAL",
        "one = sock(socket.AF_INET, socket.SOCK_DGRAM)\none.setsockopt(1, 6, 1)\none.sendto(b'x', ('255.255.255.255' if INSIDE else '127.255.255.255', F['udp']))",
    ),
    Case(
        "multicast reaches nobody",
        "ENETUNREACH|EPERM|ENODEV|ENONET|EACCES",
        "one = sock(socket.AF_INET, socket.SOCK_DGRAM)\nif INSIDE:\n    one.sendto(b'x', ('224.0.0.1', 9))\nelse:\n    one.sendto(b'x', ('127.0.0.1', F['udp']))",
    ),
    Case("nothing answers to a ping socket", "EACCES|EPERM", "one = sock(socket.AF_INET, socket.SOCK_DGRAM, 1)", JAIL),
    *(
        Case(f"{name} cannot be made", "EPERM|EACCES", f"sock({words})", control, _ABSENT)
        for name, words, control in _FAMILIES
    ),
    Case(
        "an abstract socket of the host cannot be connected to",
        "ECONNREFUSED|EPERM",
        _CONNECT.format(family="socket.AF_UNIX", kind="socket.SOCK_STREAM", address="chr(0) + F['abstract']"),
    ),
    Case(
        "a datagram cannot be sent to an abstract socket of the host",
        "ECONNREFUSED|EPERM",
        "sock(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', chr(0) + F['abstract'] + '-datagram')",
    ),
    Case(
        "init's own abstract socket cannot be connected to",
        "EPERM",
        "listed = [line.split()[-1] for line in open('/proc/net/unix') if '@kavach-witness-' in line]\n"
        "name = chr(0) + (listed[0][1:] if INSIDE else F['abstract'] + '-datagram')\nsock(socket.AF_UNIX, socket.SOCK_DGRAM).connect(name)",
    ),
    Case(
        "a pathname socket of the host cannot be connected to",
        "ENOENT|EACCES",
        _CONNECT.format(family="socket.AF_UNIX", kind="socket.SOCK_STREAM", address="F['socket']"),
    ),
    Case(
        "the names of the host's sockets are not listed",
        "HELD",
        "escaped(F['abstract'] in open('/proc/net/unix').read())",
    ),
    Case(
        "the host's TCP listeners are not listed",
        "HELD",
        "escaped(f\":{F['tcp']:04X} \" in open('/proc/net/tcp').read())",
    ),
    Case("the host's name servers are not named", "HELD", "escaped('nameserver' in open('/etc/resolv.conf').read())"),
    Case(
        "a privileged port cannot be bound",
        "EACCES|EPERM",
        "sock(socket.AF_INET, socket.SOCK_STREAM).bind(('127.0.0.1', 80))",
        JAIL,
    ),
    Case(
        "an interface cannot be added",
        "EPERM|EACCES",
        _NETLINK.format(
            body="struct.pack('=BBHiII', 0, 0, 0, 0, 0, 0) + struct.pack('=HH', 16, 18 | 0x8000) + struct.pack('=HH', 10, 1) + b'dummy\\0\\0\\0'",
            kind=16,
            flags="0x605",
        ),
        JAIL,
        "OK|ENOTSUP|EOPNOTSUPP",
    ),
    Case(
        "an interface cannot be taken down",
        "EPERM|EACCES",
        _NETLINK.format(body="struct.pack('=BBHiII', 0, 0, 0, 1, 0, 1)", kind=16, flags=5),
        JAIL,
    ),
    Case(
        "an address cannot be added",
        "EPERM|EACCES",
        _NETLINK.format(
            body="struct.pack('=BBBBi', 2, 32, 0, 0, 1) + struct.pack('=HH4s', 8, 2, bytes([10, 9, 8, 7])) + struct.pack('=HH4s', 8, 1, bytes([10, 9, 8, 7]))",
            kind=20,
            flags="0x605",
        ),
        JAIL,
    ),
    Case(
        "a route cannot be added",
        "EPERM|EACCES",
        "one = sock(socket.AF_INET, socket.SOCK_DGRAM)\nif not INSIDE:\n    fcntl.ioctl(one, 0x8914, struct.pack('16sH14x', b'lo', 0x41))\n"
        + _NETLINK.format(
            body="struct.pack('=BBBBBBBBI', 2, 32, 0, 0, 254, 4, 253, 1, 0) + struct.pack('=HH4s', 8, 1, bytes([10, 9, 8, 7])) + struct.pack('=HHi', 8, 4, 1)",
            kind=24,
            flags="0x605",
        ),
        JAIL,
    ),
    Case(
        "an interface's flags cannot be set by ioctl",
        "EPERM|EACCES",
        "fcntl.ioctl(sock(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack('16sH14x', b'lo', 0x41))",
        JAIL,
    ),
    Case(
        "an interface cannot be renamed by ioctl",
        "EPERM|EACCES",
        "fcntl.ioctl(sock(socket.AF_INET, socket.SOCK_DGRAM), 0x8923, struct.pack('16s16s', b'nothing', b'other'))",
        JAIL,
        "OK|ENODEV",
    ),
    Case(
        "a bridge cannot be made by ioctl",
        "EPERM|EACCES",
        "fcntl.ioctl(sock(socket.AF_INET, socket.SOCK_DGRAM), 0x89a0, b'kavach0'.ljust(16, bytes(1)))",
        JAIL,
        "OK|ENOPKG|ENOTTY|EINVAL",
    ),
    Case(
        "another process's credentials cannot be claimed",
        "EPERM|EINVAL",
        "one, two = socket.socketpair()\none.sendmsg([b'x'], [(1, 2, struct.pack('iII', os.getpid(), 0, 0))])",
        JAIL,
    ),
    *(
        Case(name, "EPERM|EACCES", f"sock(socket.AF_INET, socket.SOCK_STREAM).setsockopt({words})", ROOT)
        for name, words in _OPTIONS
    ),
    Case(
        "a tunnel device cannot be opened",
        "ENOENT|EACCES|EPERM",
        "os.close(os.open('/dev/net/tun', os.O_RDWR))",
        ROOT,
        "OK|ENODEV|ENXIO",
    ),
]
