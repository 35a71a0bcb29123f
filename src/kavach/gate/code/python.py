"""Python source, parsed: the calls that matter, whatever the names they were imported under.

Enforces: comments and strings are no calls; `retrieval(x)` is no `eval`. A source that does not parse, or nests too
deeply, raises `Unparsed`, and patterns alone read it. Does not: run, import or follow data beyond a call's own
arguments. May be used by: kavach.gate.code.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

from kavach.gate.code.files import is_secret_path
from kavach.gate.code.names import names
from kavach.model.verdict import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO, LOW, MEDIUM, HIGH, CRITICAL = Severity
MAX_BYTES = 1 << 16
"""The longest source that is parsed."""
_FILE = "<text in kavach's gate>"
_QUIET = ("ignore", None, Warning, re.compile(re.escape(_FILE)), 0)
_SPAWNS = frozenset(
    names("subprocess.run subprocess.call subprocess.Popen subprocess.check_call subprocess.check_output pty.spawn")
)
_CALLS: dict[str, tuple[str, Severity]] = {
    **dict.fromkeys(
        names("os.system os.popen subprocess.getoutput subprocess.getstatusoutput"), ("shell-exec", MEDIUM)
    ),
    **dict.fromkeys(names("asyncio.create_subprocess_shell commands.getoutput platform.popen"), ("shell-exec", MEDIUM)),
    **dict.fromkeys(_SPAWNS, ("process-spawn", LOW)),
    **dict.fromkeys(
        names("asyncio.create_subprocess_exec os.posix_spawn os.posix_spawnp os.startfile"), ("process-spawn", LOW)
    ),
    **dict.fromkeys(names("eval exec builtins.eval builtins.exec"), ("eval", LOW)),
    **dict.fromkeys(names("pickle.loads marshal.loads yaml.unsafe_load dill.loads cloudpickle.loads"), ("eval", LOW)),
    **dict.fromkeys(
        names("__import__ importlib.import_module importlib.__import__ runpy.run_path runpy.run_module"),
        ("dynamic-import", LOW),
    ),
    **dict.fromkeys(names("imp.load_source importlib.util.spec_from_file_location"), ("dynamic-import", LOW)),
    **dict.fromkeys(
        names("requests.post requests.put requests.patch httpx.post httpx.put httpx.patch"), ("http-request", LOW)
    ),
    **dict.fromkeys(
        names("requests.get httpx.get urllib.request.urlopen http.client.HTTPSConnection"), ("http-request", INFO)
    ),
    **dict.fromkeys(
        names("http.client.HTTPConnection urllib.request.urlretrieve aiohttp.ClientSession"), ("http-request", INFO)
    ),
    **dict.fromkeys(
        names("socket.create_connection socket.create_server paramiko.SSHClient telnetlib.Telnet"),
        ("network-tools", INFO),
    ),
    "pip.main": ("package-install", LOW),
    "shutil.rmtree": ("destructive", LOW),
    **dict.fromkeys(
        names("hashlib.md5 hashlib.sha1 hashlib.md4 Crypto.Hash.MD5.new Crypto.Hash.SHA1.new"), ("weak-hash", LOW)
    ),
    **dict.fromkeys(
        names("Crypto.Cipher.DES.new Crypto.Cipher.DES3.new Crypto.Cipher.ARC4.new Crypto.Cipher.ARC2.new"),
        ("weak-hash", LOW),
    ),
    **dict.fromkeys(
        names("base64.b64decode base64.b32decode base64.b85decode base64.a85decode"), ("base64-obfuscation", INFO)
    ),
    **dict.fromkeys(names("bytes.fromhex binascii.unhexlify bytearray.fromhex"), ("hex-obfuscation", INFO)),
}
_RUNNERS = frozenset({"shell-exec", "eval", "process-spawn"})
_KEYED = re.compile(
    r"(?:^|\.)(?:AES|DES3?|ARC4|ChaCha20|Blowfish)\.new$|(?:^|\.)Fernet$|^hmac\.(?:new|digest)$|^jwt\.encode$"
)
_SHELL = re.compile(r"(?:^|/)(?:ba|z|da|k)?sh(?:\s|$)|^cmd(?:\.exe)?$|powershell|^\{shell\}$")


class Unparsed(ValueError):
    """The text is no Python, or nests more than the parser follows."""


class PythonHit(NamedTuple):
    """One call, or a chain of calls.

    Args:
        group: a group's name.
        severity: how bad it is in a program about to run.
        start: the first byte.
        end: the byte after the last.
        handed: a text that the call hands to a shell or to `exec`, or empty.
        is_python: the handed text is Python.
    """

    group: str
    severity: Severity
    start: int
    end: int
    handed: str = ""
    is_python: bool = False


def python_hits(source: bytes) -> list[PythonHit]:
    """Return what a Python source calls.

    Args:
        source: at most `MAX_BYTES`.

    Raises:
        Unparsed: it is no Python that can be parsed.
    """
    tree = _parsed(source)
    starts = [0, *(found.end() for found in re.finditer(rb"\r\n|\r|\n", source))]
    names = _imported(tree)
    calls = [
        (node, _dotted(node.func, names), starts[node.lineno - 1] + node.col_offset, _end(node, starts))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    hits = [hit for node, name, start, end in calls for hit in _of_call(node, name, start, end, names)]
    tied = [(start, end) for node, name, start, end in calls if _ties_descriptor(node, name)]
    spawns = [
        node for node, name, _, _ in calls if name in _SPAWNS or name.startswith("os.exec") or name == "os.system"
    ]
    if tied and spawns and any(name.startswith("socket.") for _, name, _, _ in calls):
        is_shell = any(_SHELL.search(text) for node in spawns for text in _texts(node))
        hits.append(PythonHit("reverse-shell", CRITICAL if is_shell else HIGH, *tied[0]))
    return hits


def _parsed(source: bytes) -> ast.Module:
    if len(source) > MAX_BYTES:
        raise Unparsed
    if _QUIET not in warnings.filters:
        # The parser warns about odd escapes in the text and there is no switch for it; this rule holds for our
        # pseudo file alone, so that nothing is printed for what somebody else wrote.
        warnings.filterwarnings("ignore", category=Warning, module=re.escape(_FILE))
    try:
        return ast.parse(source, _FILE)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unparsed from None


def _end(node: ast.Call, starts: list[int]) -> int:
    if node.end_lineno is None or node.end_col_offset is None:
        return starts[node.lineno - 1] + node.col_offset
    return starts[node.end_lineno - 1] + node.end_col_offset


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what each name stands for that an import binds."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return a callee's full name, or the empty string for what is no chain of names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__" and node.args:
        root = node.args[0]
        parts.append(str(root.value) if isinstance(root, ast.Constant) else "")
    elif isinstance(node, ast.Name):
        parts.append(names.get(node.id, node.id))
    else:
        return f"?.{parts[0]}" if parts else ""
    return ".".join(reversed(parts))


def _of_call(node: ast.Call, name: str, start: int, end: int, names: dict[str, str]) -> Iterator[PythonHit]:
    found = _CALLS.get(name)
    if found is None and (name.startswith(("os.exec", "os.spawn"))):
        found = ("process-spawn", LOW)
    if found is not None:
        group, severity = found
        if group == "process-spawn" and any(k.arg == "shell" and _constant(k.value) is True for k in node.keywords):
            group, severity = "shell-exec", MEDIUM
        if group == "weak-hash" and any(
            k.arg == "usedforsecurity" and _constant(k.value) is False for k in node.keywords
        ):
            return
        handed = next(iter(_texts(node)), "") if group in {"shell-exec", "eval"} else ""
        yield PythonHit(group, severity, start, end, handed, is_python=group == "eval")
        if group in _RUNNERS:
            yield from (PythonHit(hidden, HIGH, start, end) for hidden in _hidden_in(node, names))
    yield from (PythonHit(group, severity, start, end) for group, severity in _by_arguments(node, name))


def _hidden_in(node: ast.Call, names: dict[str, str]) -> set[str]:
    """Return the groups of the decoders among the arguments of a call that runs them, and of what is fetched."""
    inner = {_dotted(one.func, names) for arg in node.args for one in ast.walk(arg) if isinstance(one, ast.Call)}
    found = {_CALLS[name][0] for name in inner if name in _CALLS and _CALLS[name][0].endswith("-obfuscation")}
    if inner & {"codecs.decode", "zlib.decompress", "marshal.loads"}:
        found.add("hex-obfuscation")
    if inner & {"requests.get", "urllib.request.urlopen", "httpx.get", "urllib2.urlopen"}:
        found.add("remote-script")
    return found


def _by_arguments(node: ast.Call, name: str) -> Iterator[tuple[str, Severity]]:
    """Yield what a call is only with certain arguments."""
    first = _constant(node.args[0]) if node.args else None
    if (
        name in {"open", "io.open", "os.open", "pathlib.Path", "Path"}
        and isinstance(first, str)
        and is_secret_path(first)
    ):
        yield "sensitive-path", HIGH
    elif name == "shutil.rmtree" and first in {"/", "~", "/home", "/etc", "/usr", "/var"}:
        yield "destructive", CRITICAL
    elif name in {"os.setuid", "os.setgid", "os.seteuid", "os.setresuid"} and first == 0:
        yield "sudo", MEDIUM
    elif name in {"os.chmod", "os.fchmod"} and len(node.args) > 1:
        mode = _constant(node.args[1])
        if isinstance(mode, int):
            yield "permission-change", HIGH if mode & 0o6000 else MEDIUM if mode & 0o002 else LOW
    elif name in {"socket.gethostbyname", "socket.getaddrinfo", "dns.resolver.resolve"}:
        if node.args and isinstance(node.args[0], ast.JoinedStr | ast.BinOp):
            yield "dns-exfiltration", MEDIUM
    elif name == "hashlib.new" and isinstance(first, str) and first.lower() in {"md4", "md5", "sha1"}:
        yield "weak-hash", LOW
    if _KEYED.search(name):
        if any(isinstance(_constant(arg), bytes | str) for arg in node.args[: 2 if name == "jwt.encode" else 1]) or (
            name == "jwt.encode" and len(node.args) > 1 and isinstance(_constant(node.args[1]), str)
        ):
            yield "hard-coded-key", LOW
        if any(isinstance(arg, ast.Attribute) and arg.attr == "MODE_ECB" for arg in node.args):
            yield "weak-hash", LOW


def _ties_descriptor(node: ast.Call, name: str) -> bool:
    """Whether a call puts a connection in the place of a standard stream."""
    if not name.endswith("dup2") or not node.args:
        return False
    return any(isinstance(one, ast.Attribute) and one.attr == "fileno" for one in ast.walk(node.args[0]))


def _constant(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _texts(node: ast.Call) -> Iterator[str]:
    """Yield the texts that stand among a call's arguments, also in a list."""
    for arg in node.args:
        for one in arg.elts if isinstance(arg, ast.List | ast.Tuple) else (arg,):
            value = _constant(one)
            if isinstance(value, str):
                yield value
