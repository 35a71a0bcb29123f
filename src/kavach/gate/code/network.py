"""What goes out: shells tied to a line, uploads, look-ups that carry data, tools, and what is fetched and run.

Enforces: judged by the programs that would start and how they are joined, not by words. Does not: know where a
connection leads. May be used by: kavach.gate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kavach.gate.code.files import is_secret_path
from kavach.gate.code.names import names
from kavach.gate.code.wrappers import is_interpreter, is_shell
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.gate.code.acts import Act, Deeds

    Hit = tuple[str, Severity, Act]

LOW, MEDIUM, HIGH, CRITICAL = Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL
_NETCATS = frozenset(names("nc ncat netcat nc.traditional nc.openbsd cryptcat sbd rcat rustcat pwncat pwncat-cs"))
_CONNECTORS = _NETCATS | frozenset(names("telnet socat ztcp"))
_FETCHERS = frozenset(
    names("curl wget fetch lynx aria2c http https lwp-request lwp-download iwr invoke-webrequest irm")
)
_WATCHERS = frozenset(
    names("nmap masscan zmap tcpdump tshark dumpcap hydra medusa sqlmap nikto responder arpspoof ettercap bettercap")
)
_LOOKUPS = frozenset(names("dig nslookup host drill kdig resolvectl getent ping ping6"))
_NET_FILE = re.compile(r"/dev/(?:tcp|udp)/[^/\s]+/[^/\s]+")
_SOCAT_NET = ("tcp", "udp", "openssl", "ssl", "sctp", "socks")
_SOCAT_RUN = ("exec:", "system:", "shell:")
_UPLOADS = (
    "-d",
    "-F",
    "-T",
    "--data",
    "--data-binary",
    "--data-raw",
    "--form",
    "--upload-file",
    "--post-file",
    "--body-file",
    "--post-data",
)
_LONG_LABEL = re.compile(r"(?:^|[@.\s])[A-Za-z0-9+/=_-]{40,63}\.")


def hits_of(deeds: Deeds) -> Iterator[Hit]:
    """Yield what the network has to do with it.

    Args:
        deeds: what a text would do.
    """
    for act in _shells_on_line(deeds):
        yield "reverse-shell", CRITICAL, act
    for act in deeds.acts:
        yield from ((group, severity, act) for group, severity in _of_one(act))
    yield from _fetched_then_run(deeds)


def _shells_on_line(deeds: Deeds) -> Iterator[Act]:
    """Yield each program that ties a shell to a connection."""
    net_fds = {r[0] for act in deeds.acts for r in act.redirects if _NET_FILE.match(r[2]) and r[0]}
    has_fifo = any(act.name == "mkfifo" or (act.name == "mknod" and "p" in act.args) for act in deeds.acts)
    feeding = {_place(source) for act in deeds.acts if _connects(act) for source in act.fed_by}
    has_ztcp = any(act.name == "ztcp" for act in deeds.acts)
    for act in deeds.acts:
        targets = [target.lstrip("&") for _, operator, target in act.redirects if "&" in operator]
        runs_input = is_shell(act.name) or (act.path.startswith("$") and "(" not in act.path)
        if (
            (runs_input and (any(_NET_FILE.match(r[2]) for r in act.redirects) or net_fds & set(targets)))
            or (is_shell(act.name) and has_ztcp and any("REPLY" in target for target in targets))
            or _hands_over(act)
            or _is_joined(act, deeds, feeding, has_fifo=has_fifo)
        ):
            yield act


def _hands_over(act: Act) -> bool:
    """Whether a program is told to run a shell on its connection."""
    if act.name in _NETCATS:
        if act.has_option("-e", "--exec", "--sh-exec", "--lua-exec"):
            return True
        values = [after for arg, after in zip(act.args, act.args[1:], strict=False) if arg in {"-c", "-s", "-m"}]
        return any(is_interpreter(value.split()[0].rpartition("/")[2]) for value in values if value.split())
    if act.name == "socat":
        addresses = [arg.lower() for arg in act.args]
        return any(a.startswith(_SOCAT_NET) for a in addresses) and any(a.startswith(_SOCAT_RUN) for a in addresses)
    if act.name in {"telnetd", "in.telnetd"}:
        return act.has_option("-l")
    if act.name == "msfvenom":
        return any(word in act.line.lower() for word in ("reverse", "bind", "meterpreter"))
    if act.name == "xterm":
        return any(re.match(r"\d+\.\d+\.\d+\.\d+:\d", arg) for arg in act.args)
    if act.name in {"awk", "gawk"}:
        program = " ".join(act.args)
        return "/inet/" in program and ("system(" in program or program.count("getline") > 1)
    return False


def _place(act: Act) -> tuple[int, int, str]:
    return act.start, act.end, act.name


def _is_joined(act: Act, deeds: Deeds, feeding: set[tuple[int, int, str]], *, has_fifo: bool) -> bool:
    """Whether a shell reads from a connection and writes to one: by pipes, or by a pipe and a named one."""
    if not is_shell(act.name) and not act.name.startswith("$"):
        return False
    is_fed = any(_connects(source) for source in act.fed_by)
    is_feeding = _place(act) in feeding
    if is_fed != is_feeding and not has_fifo:
        return _shares_file(act, deeds)
    return is_fed or is_feeding


def _shares_file(act: Act, deeds: Deeds) -> bool:
    """Whether what a shell reads from is a file that a connection, or the shell, writes to."""
    written = {r[2] for other in (act, *filter(_connects, deeds.acts)) for r in other.redirects if ">" in r[1]}
    sources = (*act.fed_by, act)
    read = {r[2] for other in sources for r in other.redirects if r[1] == "<"} | {a for s in act.fed_by for a in s.args}
    return bool((written - {"/dev/null", "1", "2"}) & read)


def _connects(act: Act) -> bool:
    if act.name == "openssl":
        return "s_client" in act.args or "s_server" in act.args
    return act.name in _CONNECTORS or any("telnet://" in arg for arg in act.args)


def _of_one(act: Act) -> Iterator[tuple[str, Severity]]:
    if act.name in _CONNECTORS or (act.name == "openssl" and _connects(act)) or act.name == "chisel":
        yield "network-tools", LOW
    elif act.name in _WATCHERS:
        yield "network-tools", MEDIUM
    elif any(_NET_FILE.match(redirect[2]) for redirect in act.redirects):
        yield "network-tools", LOW
    elif act.name == "ssh" and act.has_option("-R"):
        yield "network-tools", MEDIUM
    if act.name in _FETCHERS and (act.has_option(*_UPLOADS) or "POST" in act.args):
        yield "http-request", _upload_severity(act)
    elif act.name in _FETCHERS and any("$(" in arg and "?" in arg for arg in act.args):
        yield "http-request", MEDIUM
    if act.name in _LOOKUPS:
        yield from _lookup(act)
    if act.name in _CONNECTORS and any(is_secret_path(arg) for source in act.fed_by for arg in source.args):
        yield "http-request", HIGH
    if is_interpreter(act.name) or act.name in {"source", ".", "eval"}:
        yield from _run_input(act)


def _upload_severity(act: Act) -> Severity:
    named = [*act.args, *(arg for source in (*act.fed_by, *act.inner) for arg in source.args)]
    is_secret = any(is_secret_path(arg.rpartition("@")[2]) for arg in named)
    return HIGH if is_secret else LOW


def _lookup(act: Act) -> Iterator[tuple[str, Severity]]:
    if any(re.search(r"\$\([^.\s]*\.[\w-]", arg) for arg in act.args):
        yield "dns-exfiltration", HIGH
    elif any(re.search(r"\$\w+\.[\w$-]", arg) for arg in act.args):
        is_looped = any(source.args or source.name == "read" for source in act.fed_by)
        yield "dns-exfiltration", HIGH if is_looped else MEDIUM
    elif any(_LONG_LABEL.search(arg) for arg in act.args):
        yield "dns-exfiltration", MEDIUM


def _run_input(act: Act) -> Iterator[tuple[str, Severity]]:
    """Yield what is wrong with where an interpreter gets its text from."""
    has_own = any(not arg.startswith("-") and arg not in {"<()", "$()"} for arg in act.args) and "-s" not in act.args
    sources = act.inner if act.name in {"eval", "source", "."} or act.inner else ()
    sources += () if has_own or act.name == "eval" else act.fed_by
    if not sources:
        return
    if any(source.name in _FETCHERS or _connects(source) for source in sources):
        yield "remote-script", HIGH
        yield "pipe-to-shell", HIGH
    elif any(_decodes(source) for source in sources):
        yield "pipe-to-shell", HIGH
    elif act.fed_by and not has_own and act.name != "eval":
        yield "pipe-to-shell", MEDIUM if is_shell(act.name) else LOW


def _decodes(act: Act) -> bool:
    from kavach.gate.code.hiding import decodes

    return decodes(act)


def _fetched_then_run(deeds: Deeds) -> Iterator[Hit]:
    """Yield programs that run a file which an earlier one fetched."""
    fetched: set[str] = set()
    for act in deeds.acts:
        if act.name in _FETCHERS:
            fetched |= _saved_as(act)
            continue
        run = {act.path, *(act.args if is_interpreter(act.name) or act.name in {"source", "."} else ())}
        if fetched & {path.removeprefix("./") for path in run if path}:
            yield "remote-script", HIGH, act


def _saved_as(act: Act) -> set[str]:
    saved = {target for _, operator, target in act.redirects if operator in {">", ">>", ">|"}}
    for option, value in zip(act.args, act.args[1:], strict=False):
        if re.fullmatch(r"-[a-zA-Z]*[oO]|--output|--output-document", option) and not value.startswith("-"):
            saved.add(value)
    url = next((arg for arg in act.args if "://" in arg), "")
    if url and (act.name == "wget" or act.has_option("-O", "--remote-name")):
        saved.add(url.partition("?")[0].rpartition("/")[2])
    return {path.removeprefix("./") for path in saved if path not in {"-", "/dev/null", ""}}
