"""What a host withholds, kavach notices: an outer seccomp filter, a masked /proc, a container's capabilities.

The victim installs a filter upon itself that refuses system calls as an outer container would, then uses the library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.needs("userns", "seccomp", "x86_64"), pytest.mark.landlock(6)]
DEADLINE_S = 120
VICTIM = """
import ctypes, json, os, struct, subprocess, sys, time
LIBC = ctypes.CDLL(None, use_errno=True)
FLAGS = {"user": 0x10000000, "pid": 0x20000000, "mnt": 0x20000, "ipc": 0x08000000, "uts": 0x04000000,
         "net": 0x40000000, "cgroup": 0x02000000}  # linux/sched.h
CLONE, UNSHARE, CLONE3, SECCOMP, LANDLOCK = 56, 272, 435, 317, 444  # asm/unistd_64.h
MOUNTS = (165, 166, 155, 428, 429, 430, 431, 432, 442)
KEYS = (248, 249, 250)


def withhold(rows):
    code = [(0x20, 0, 0, 0)]  # load the number
    for number, error, mask in rows:
        if mask is None:
            code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error)]
        else:  # refuse when argument 0 has a bit of the mask
            code += [(0x15, 0, 4, number), (0x20, 0, 0, 16), (0x45, 0, 1, mask), (0x06, 0, 0, 0x50000 | error),
                     (0x20, 0, 0, 0)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    text = b"".join(struct.pack("HBBI", *row) for row in code)
    kept = ctypes.create_string_buffer(text, len(text))
    assert LIBC.prctl(38, 1, 0, 0, 0) == 0
    assert LIBC.syscall(SECCOMP, 1, 0, struct.pack("@HP", len(code), ctypes.addressof(kept))) == 0


def without_namespaces(*names):
    mask = sum(FLAGS[name] for name in names)
    withhold([(CLONE, 1, mask), (UNSHARE, 1, mask), (CLONE3, 38, None)])


def with_capabilities_of_a_container():
    kept = 0xA80425FB  # what container runtimes leave by default
    for number in range(41):
        if not kept >> number & 1:
            LIBC.prctl(24, number, 0, 0, 0)
    data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    assert LIBC.syscall(126, struct.pack("=Ii", 0x20080522, 0), data) == 0


def rows_of(result):
    found = {row.control.value: (row.state.value, row.detail, row.reason) for row in result.enforcement.rows if row.asked}
    return {"rows": found, "score": int(result.score), "reason": result.reason.value, "exit": result.exit_code,
            "stdout": result.stdout, "stderr": result.stderr, "holes": list(result.enforcement.holes)}


def attempt(policy, argv=("echo", "ran"), **more):
    import kavach
    try:
        return rows_of(kavach.run(list(argv), policy=policy, **more))
    except kavach.KavachError as error:
        return {"error": type(error).__name__, "control": getattr(error, "control", None), "message": str(error)}


def processes_with(mark):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\\0")
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(name))
    return found


def say(**found):
    print(json.dumps(found))
"""


def victim(code, *, prefix=()):
    argv = [*prefix, sys.executable, "-B", "-c", VICTIM + textwrap.dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd="/", env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


WITHHELD = {
    "user": ("without_namespaces('user')", "user_ns"),
    "all": ("without_namespaces(*FLAGS)", "user_ns"),
    "pid": ("without_namespaces('pid')", "pid_ns"),
    "mnt": ("without_namespaces('mnt')", "mount_view"),
    "ipc": ("without_namespaces('ipc')", "ipc_ns"),
    "uts": ("without_namespaces('uts')", "uts_ns"),
    "mounts": ("withhold([(number, 1, None) for number in MOUNTS])", "mount_view"),
    "landlock": ("withhold([(LANDLOCK, 38, None)])", "filesystem"),
    "seccomp": ("withhold([(SECCOMP, 38, None)])", "seccomp"),
    "seccomp-eperm": ("withhold([(SECCOMP, 1, None)])", "seccomp"),
}


@pytest.mark.parametrize("what", WITHHELD)
def test_strict_names_what_is_withheld_before_anything_runs(what):
    setup, control = WITHHELD[what]
    found = victim(f"{setup}\nsay(result=attempt('strict'))")["result"]
    assert found.get("error") == "UnsupportedError", found
    assert found["control"] == control
    assert "nothing was run" in found["message"] or control in found["message"]


def test_positive_control_strict_runs_when_nothing_is_withheld(sum_of_rows):
    found = victim("withhold([])\nsay(result=attempt('strict'))")["result"]
    assert found["stdout"] == "ran\n"
    assert found["score"] == sum_of_rows(found, strict=True) >= 67


@pytest.mark.parametrize("what", [name for name in WITHHELD if not name.startswith("seccomp")])
def test_basic_runs_with_exactly_the_sum_of_the_rows_in_force(what, sum_of_rows):
    setup, control = WITHHELD[what]
    found = victim(f"{setup}\nsay(result=attempt('basic'))")["result"]
    assert found.get("stdout") == "ran\n", found
    assert found["score"] == sum_of_rows(found, strict=False)
    assert found["rows"][control][0] != "enforced" or (control, found["rows"][control][1]) == ("filesystem", "landlock")


@pytest.mark.parametrize("what", ["seccomp", "seccomp-eperm"])
def test_basic_refuses_without_seccomp_which_it_may_not_lack(what):
    found = victim(f"{WITHHELD[what][0]}\nsay(result=attempt('basic'))")["result"]
    assert (found.get("error"), found.get("control")) == ("UnsupportedError", "seccomp")


def test_basic_refuses_with_neither_landlock_nor_namespaces():
    setup = "without_namespaces(*FLAGS); withhold([(LANDLOCK, 38, None)])"
    found = victim(f"{setup}\nsay(result=attempt('basic'))")["result"]
    assert (found.get("error"), found.get("control")) == ("UnsupportedError", "filesystem")


@pytest.mark.parametrize("what", [*WITHHELD, "everything"])
def test_minimal_runs_whatever_is_withheld_and_counts_only_what_is_in_force(what, sum_of_rows):
    setup = WITHHELD.get(
        what, ("without_namespaces(*FLAGS); withhold([(LANDLOCK, 38, None), (SECCOMP, 38, None)])", "")
    )[0]
    found = victim(f"{setup}\nsay(result=attempt('minimal'))")["result"]
    assert found.get("stdout") == "ran\n", found
    total = sum_of_rows(found, strict=False)
    assert found["score"] == (min(total, 29) if found["holes"] else total)


@pytest.mark.parametrize("error", [38, 1])
@pytest.mark.parametrize("policy", ["strict", "basic", "minimal"])
@pytest.mark.parametrize("call", [434, 424], ids=["pidfd_open", "pidfd_send_signal"])
def test_a_host_on_which_no_process_can_be_held_is_refused_by_name(call, policy, error):
    found = victim(f"withhold([({call}, {error}, None)])\nsay(result=attempt('{policy}'))")["result"]
    assert (found.get("error"), found.get("control")) == ("UnsupportedError", "pid_ns"), found
    assert found["message"].startswith("pidfd_open, pidfd_send_signal: ")
    assert "nothing was run" in found["message"]


HARMLESS = {"clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439, "keyctl": 250}


@pytest.mark.parametrize("call", HARMLESS)
def test_a_newer_call_that_is_not_there_costs_no_point(call, sum_of_rows):
    found = victim(f"withhold([({HARMLESS[call]}, 38, None)])\nsay(result=attempt('strict'))")["result"]
    assert found.get("stdout") == "ran\n", found
    assert found["score"] == sum_of_rows(found, strict=True) >= 67


@pytest.mark.parametrize("what", ["net", "cgroup"])
def test_network_and_cgroup_namespaces_are_replaced_and_not_missed(what, sum_of_rows):
    found = victim(f"without_namespaces('{what}')\nsay(result=attempt('strict'))")["result"]
    assert found.get("stdout") == "ran\n", found
    assert found["rows"]["network"][:2] == ["enforced", "seccomp" if what == "net" else "namespace"]
    assert found["score"] == sum_of_rows(found, strict=True)


def test_without_a_network_namespace_every_socket_family_but_unix_is_refused():
    code = """
    import socket
    for family in (1, 2, 10, 16, 17, 40):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close(); print(family, 'made')
        except OSError as error:
            print(family, error.errno)
    """
    found = victim(
        "without_namespaces(*FLAGS)\n"
        f"say(result=attempt('basic', ['/usr/bin/python3', '-c', {textwrap.dedent(code)!r}]))"
    )["result"]
    lines = dict(line.split() for line in found["stdout"].splitlines())
    assert lines.pop("1") == "made"
    assert set(lines.values()) == {"1"}, lines


@pytest.mark.root
@pytest.mark.parametrize("policy", ["strict", "basic"])
def test_a_masked_proc_as_in_containers_is_told(policy, sum_of_rows):
    mask = ["unshare", "--mount", "--", "sh", "-c", 'mount --bind /dev/null /proc/kallsyms && exec "$0" "$@"']
    found = victim(f"say(result=attempt('{policy}'))", prefix=mask)["result"]
    if policy == "strict":
        assert (found.get("error"), found.get("control")) == ("UnsupportedError", "mount_view"), found
    else:
        assert found.get("stdout") == "ran\n", found
        assert found["rows"]["mount_view"][0] == "degraded"
        assert found["score"] == sum_of_rows(found, strict=False)


CONTAINER = "without_namespaces(*FLAGS); withhold([(number, 1, None) for number in KEYS + MOUNTS])\n"
LIFE = """
import kavach
with kavach.Sandbox(policy='basic') as sandbox:
    started = sandbox.exec(['sh', '-c', '(setsid sleep 98761 &); (setsid sh -c "trap : TERM; sleep 98761" &); sleep 0.1; pwd; id -u'])
    earlier = processes_with('98761')
    left = len(earlier)
    begun = time.monotonic()
    late = sandbox.exec(['sh', '-c', 'echo kept; setsid sleep 98761 & sleep 98761'], timeout_s=1)
    took = time.monotonic() - begun
    # What an earlier command left behind ends too where commands cannot be told apart, and lives on where they can.
    after_timeout = [pid for pid in processes_with('98761') if pid not in earlier]
    sandbox.files.write('/workspace/file', b'bytes')
    read = sandbox.files.read('/workspace/file').decode()
    shown = sandbox.exec(['cat', 'file'], cwd='/workspace').stdout
    probe = sandbox.exec(['sh', '-c', 'cat /proc/$PPID/environ; kill -9 $PPID; kill -9 %d; true > /tmp/x; true > /var/tmp/x; echo here' % os.getpid()])
    sandbox.spawn(['sleep', '98761'])
    scratch = started.stdout.split()[0]
say(started=started.stdout, left=left, late=late.reason.value, kept=late.stdout, took=took, after_timeout=after_timeout,
    read=read, shown=shown, probe=rows_of(probe), after=processes_with('98761'), scratch=os.path.exists(scratch),
    children=len(processes_with('kavach.launcher')))
"""


@pytest.mark.parametrize("capabilities", ["own", pytest.param("container", marks=pytest.mark.root)])
def test_bare_sandbox_in_a_container_lives_and_ends_whole(capabilities):
    first = "with_capabilities_of_a_container()\n" if capabilities == "container" else ""
    found = victim(first + CONTAINER + LIFE)
    assert found["left"] >= 2
    assert (found["late"], found["kept"]) == ("timeout", "kept\n")
    assert found["took"] < 2
    assert found["after_timeout"] == []
    assert (found["read"], found["shown"]) == ("bytes", "bytes")
    assert found["after"] == []
    assert found["scratch"] is False
    assert found["started"].split()[1] != "0"


@pytest.mark.parametrize("capabilities", ["own", pytest.param("container", marks=pytest.mark.root)])
def test_bare_command_reaches_neither_init_nor_its_host_nor_files_outside(capabilities):
    first = "with_capabilities_of_a_container()\n" if capabilities == "container" else ""
    probe = victim(first + CONTAINER + LIFE)["probe"]
    assert (probe["reason"], probe["stdout"]) == ("exit", "here\n")
    refused = probe["stderr"].count("ermission denied") + probe["stderr"].count("not permitted")
    assert refused == 5, probe["stderr"]


def test_bare_init_that_is_killed_leaves_nothing():
    found = victim(
        CONTAINER
        + textwrap.dedent("""
        import kavach, signal
        with kavach.Sandbox(policy='basic') as sandbox:
            sandbox.exec(['sh', '-c', '(setsid sleep 98762 &); (setsid sh -c "sleep 98762; sleep 98762" &); sleep 0.1'])
            before = len(processes_with('98762'))
            process = sandbox.spawn(['sleep', '98762'])
            init = os.getppid
            with open('/proc/%d/stat' % sandbox.processes()[0]) as file:
                init = int(file.read().rpartition(')')[2].split()[1])
            os.kill(init, signal.SIGKILL)
            reason = process.wait().reason.value
            time.sleep(1)
            after = processes_with('98762')
        say(before=before, reason=reason, after=after)
    """)
    )
    assert found["before"] >= 2
    assert found["reason"] == "backend_lost"
    assert found["after"] == []
