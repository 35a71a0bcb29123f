"""Code in any language that ties a shell to a connection, told by what all such code has to name.

Enforces: a chain needs every one of its links in one region. Does not: parse (Python's is confirmed by
`kavach.gate.code.python`). Only sub-strings are looked for: linear, whatever the text. May be used by: kavach.gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Chain(NamedTuple):
    """One way to write it.

    Args:
        group: the group it is reported under.
        links: of each of them one spelling must stand in the region; lower case.
        is_sure: rare enough in ordinary source to be believed in an output too.
    """

    group: str
    links: tuple[tuple[str, ...], ...]
    is_sure: bool = False


_SHELL = ('sh"', "sh'", "sh -i", "cmd.exe", '"cmd"', "'cmd'", "{shell}", "powershell", "sh\\n", "sh`")
_SPAWNED_PY = ("pty.spawn(", "subprocess.", "os.exec", "os.system(", "popen(", "sp.popen", ".call(")
CHAINS = (
    Chain(
        "reverse-shell",
        (("socket",), ("dup2(",), _SPAWNED_PY, (".connect(", ".accept("), ("fileno()",), _SHELL),
        is_sure=True,
    ),
    Chain(
        "reverse-shell",
        (
            ("import socket", "socket,", "socket as", ",socket"),
            (".recv(", ".makefile("),
            _SPAWNED_PY,
            (".connect(", ".accept("),
            (".send", ".write("),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("socket(", "io::socket", "use socket"),
            ("stdin",),
            ("exec", "system", "qx", "`"),
            ("connect", "peeraddr", "accept"),
            (">&", "fdopen"),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("tcpsocket", "tcpserver", "socket.tcp"),
            ("exec", "popen", "spawn", "system(", "`", "process.new", "process.run"),
            ("new", "connect", "open"),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("fsockopen(", "socket_create(", "stream_socket_client("),
            ("exec(", "system(", "passthru(", "popen(", "proc_open(", "`"),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("net.socket", "net.connect", "net.createconnection", "tls.connect"),
            ("child_process", "spawn(", "exec("),
            (".pipe(",),
        ),
        is_sure=True,
    ),
    Chain("reverse-shell", (("socket",), ("os.execute(", "io.popen("), ("connect(",))),
    Chain(
        "reverse-shell",
        (
            ("net.dial", "net.listen", "tls.dial"),
            ("exec.command(",),
            ("stdin=", "stdin =", ".stdout=", "io.copy"),
            _SHELL,
        ),
        is_sure=True,
    ),
    Chain(
        "reverse-shell",
        (
            ("socket(", "socketchannel"),
            ("processbuilder", "getruntime()", ".execute()"),
            ("inputstream", "outputstream"),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("tcpclient", "tcplistener", "new socket("),
            ("process p", "new process", "process.start", "processstartinfo", "iex", "invoke-expression"),
            ("stream",),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("sys/socket.h", "socket(af_inet", "socket(pf_inet"),
            ("connect(", "accept("),
            ("dup2(",),
            ("execv", "execl", "system("),
            _SHELL,
        ),
        is_sure=True,
    ),
    Chain(
        "reverse-shell", (("wsasocket", "winsock"), ("createprocess", "_popen(", "system("), ("connect(", "accept("))
    ),
    Chain(
        "reverse-shell",
        (("socket.connect(", "serversocket.bind"), ("process.start(", "process.run("), (".listen(", "stdin")),
    ),
    Chain(
        "reverse-shell", (("tcpstream::connect", "tcplistener::bind"), ("command::new(",), ("from_raw_fd", "stdin("))
    ),
    Chain("reverse-shell", (("newsocket(", "newasyncsocket("), ("execprocess(", "execcmd", "startprocess("))),
    Chain(
        "reverse-shell",
        (
            ("[socket ", "gen_tcp:connect", "socket -"),
            ("exec ", "os:cmd(", "open |"),
            ("gets", "recv"),
            ("puts", "send"),
        ),
    ),
    Chain(
        "reverse-shell",
        (
            ("invoke-restmethod", "invoke-webrequest", "irm ", "iwr ", "webclient"),
            ("iex ", "invoke-expression", "iex("),
            ("while",),
            ("post", "upload", "-body"),
        ),
    ),
    Chain("reverse-shell", (("/inet/tcp/", "/inet/udp/"), ("|&",), ("getline",), ("while", "system("))),
    Chain(
        "reverse-shell",
        (
            (
                "invoke-conptyshell",
                "invoke-powershelltcp",
                "powercat -c",
                "meterpreter/reverse",
                "shell/reverse_tcp",
                "shell_reverse_tcp",
            ),
        ),
    ),
    Chain(
        "remote-script",
        (
            ("iex", "invoke-expression"),
            ("iwr ", "invoke-webrequest", "irm ", "invoke-restmethod", "downloadstring", "net.webclient"),
        ),
    ),
    Chain(
        "remote-script",
        (("exec(", "eval("), ("urlopen(", "requests.get(", "urllib2", "http.get("), (".read()", ".text", ".content")),
    ),
    Chain(
        "reverse-shell",
        (("socket",), ("dup2",), ("pty", "subprocess", "exec", "system", "spawn"), ("connect(", "accept(", "listen(")),
    ),
    Chain("shell-exec", (("<%",), ("eval", "execute"), ("request(", "request.item", "request.form"))),
    Chain(
        "shell-exec",
        (
            ("$_get", "$_post", "$_request", "$_cookie"),
            ("system(", "exec(", "passthru(", "popen(", "eval(", "assert(", "`$_", "proc_open("),
        ),
    ),
    Chain("shell-exec", (("request.getparameter",), ("getruntime().exec", "processbuilder"))),
    Chain(
        "base64-obfuscation",
        (
            ("iex", "invoke-expression", "eval(", "exec("),
            ("frombase64string", "base64_decode(", "b64decode(", "decode64(", "atob("),
        ),
    ),
)
"""Every link is a word that the technique cannot do without in its language."""


def chains_in(text: str, *, only_sure: bool) -> Iterator[str]:
    """Yield the group of each chain that a region holds, each group once.

    Args:
        text: a region.
        only_sure: leave out what ordinary source may well hold.
    """
    lowered = text.lower()
    seen: set[str] = set()
    for chain in CHAINS:
        if chain.group in seen or (only_sure and not chain.is_sure):
            continue
        if all(any(word in lowered for word in link) for link in chain.links):
            seen.add(chain.group)
            yield chain.group
