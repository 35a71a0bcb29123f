"""`why`: what the wall refused is named, the wall is what it was, and every call is answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

import kavach
from kavach.model.enforcement import ControlState
from kavach.policy.learn import apply_change

pytestmark = [pytest.mark.needs("linux", "userns", "seccomp")]

PROBE = r"""
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
said = {}
def call(name, *arguments):
    said[name] = ctypes.get_errno() if getattr(libc, name)(*arguments) == -1 else 0
def act(name, function):
    try:
        function()
        said[name] = 0
    except OSError as error:
        said[name] = error.errno
def connect(address):
    with socket.socket() as one:
        one.settimeout(2)
        one.connect(address)
act("shadow", lambda: open("/etc/shadow").close())
act("connect", lambda: connect(("192.0.2.1", 443)))
call("mount", b"none", b"/mnt", b"tmpfs", 0, None)
call("unshare", 0x10000000)
print(json.dumps(said))
"""


def why(argv, policy="strict", **options):
    return kavach.run(argv, policy=policy, why=True, timeout_s=30, **options)


def python(source, policy="strict", **options):
    return why(["/usr/bin/python3", "-S", "-c", source], policy, **options)


def named(result, what):
    return {one.target: one for one in result.denials if one.what == what}


@pytest.mark.parametrize("policy", ["strict", "basic"])
def test_a_denied_open_connect_and_mount_are_named_with_rule_change_and_sentence(policy):
    result = python(PROBE, policy)
    assert result.ok, result.stderr
    said = json.loads(result.stdout)
    assert said["shadow"] == 2
    assert said["connect"] == 101
    assert (said["mount"], said["unshare"]) == (1, 1)
    shadow = named(result, "open")["/etc/shadow"]
    connect = named(result, "connect")["192.0.2.1:443"]
    mount = named(result, "mount")["/mnt"]
    assert shadow.rule.startswith("mount_view")
    assert connect.rule.startswith("network")
    assert mount.rule.startswith("seccomp")
    before = kavach.SandboxPolicy.from_preset(policy)
    for denial in (shadow, connect, mount):
        assert apply_change(before, denial.change) != before
        assert denial.what in denial.sentence
        assert denial.target in denial.sentence
        assert denial.sentence.count("\n") == 0
    assert [rule.path for rule in apply_change(before, shadow.change).filesystem.read] == ["/etc/shadow"]
    assert apply_change(before, connect.change).network.mode == "host"
    assert apply_change(before, mount.change).nested


def test_without_why_a_run_has_no_denials():
    assert kavach.run(["cat", "/etc/shadow"], policy="strict").denials == ()


def test_what_the_wall_tries_on_itself_is_not_the_commands():
    result = why(["true"])
    assert result.ok
    assert [one.target for one in result.denials if "canary" in one.target or one.what == "ptrace"] == []


@pytest.mark.parametrize("policy", ["strict", "basic", "minimal"])
def test_a_watched_wall_is_the_wall_it_is_without(policy):
    plain = kavach.run(["/usr/bin/python3", "-S", "-c", PROBE], policy=policy)
    watched = python(PROBE, policy)
    assert watched.stdout == plain.stdout
    assert watched.score == plain.score
    states = [{row.control: row.state for row in one.enforcement.rows} for one in (plain, watched)]
    assert states[0] == states[1]
    if policy != "minimal":
        assert states[1]["seccomp"] is ControlState.ENFORCED


# Acts whose real answer is compared with what the report says of them.
TRUTH = r"""
import json, os, sys
said = {}
for act, path in json.loads(sys.argv[1]):
    try:
        if act == "open": os.close(os.open(path, os.O_RDONLY))
        if act == "list": os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        if act == "write": os.close(os.open(path, os.O_WRONLY))
        if act == "create": os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)); os.unlink(path)
        if act == "stat": os.stat(path)
        said[act + path] = 0
    except OSError as error:
        said[act + path] = error.errno
print(json.dumps(said))
"""
WORDS = {"open": "open", "list": "list", "write": "open for writing", "create": "create", "stat": "look at"}


@pytest.mark.parametrize("policy", ["strict", "basic", "minimal"])
def test_what_is_inferred_of_a_file_agrees_with_the_kernels_own_answer(policy, tmp_path):
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for name, mode in (("open", 0o644), ("shut", 0o600), ("denied", 0o644)):
        (shown / name).write_text("x")
        (shown / name).chmod(mode)
    (tmp_path / "hidden").write_text("x")
    (shown / "away").symlink_to(tmp_path / "hidden")
    (shown / "near").symlink_to("open")
    acts = [
        ("open", f"{shown}/open"),
        ("open", f"{shown}/denied"),
        ("open", f"{shown}/near"),
        ("open", f"{shown}/away"),
        ("write", f"{shown}/open"),
        ("create", f"{shown}/new"),
        ("open", f"{tmp_path}/hidden"),
        ("stat", f"{tmp_path}/hidden"),
        ("create", "/workspace/new"),
        ("create", "/tmp/new"),
        ("create", "/usr/new"),
        ("create", "/new"),
        ("write", "/dev/null"),
        ("open", "/etc/passwd"),
        ("list", "/usr"),
        ("list", "/root"),
    ]
    chosen = kavach.SandboxPolicy.from_preset(policy).replace(read=(str(shown),), deny=(f"{shown}/denied",))
    result = why(["/usr/bin/python3", "-S", "-c", TRUTH, json.dumps(acts)], chosen)
    assert result.ok, result.stderr
    said = json.loads(result.stdout)
    denied = {(one.what, one.target) for one in result.denials}
    wrong = {}
    for act, path in acts:
        reported = any((word, path) in denied for word in (WORDS[act], "execute", "list"))
        if reported != (said[act + path] != 0):
            wrong[act, path] = said[act + path]
    assert wrong == {}
    assert any(said.values())
    assert not all(said.values())


def test_names_chosen_by_the_command_do_not_break_the_report():
    source = r"""
import os
for name in (b"/etc/\xff\xfe", b"/root/a\nb", b"/root/" + b"x" * 200, b""):
    try: os.open(name, 0)
    except OSError: pass
import ctypes
ctypes.CDLL(None).open(1, 0)
ctypes.CDLL(None).connect(0, 1, 2**31)
"""
    result = python(source)
    assert result.ok, result.stderr
    json.loads(result.to_json())


def test_a_command_that_fails_for_ever_makes_a_bounded_report():
    result = python("import os\nfor n in range(3000):\n  try: os.mkdir(f'/usr/{n}')\n  except OSError: pass\n")
    assert result.ok, result.stderr
    assert 100 < len(result.denials) <= 256


def test_threads_and_processes_are_answered_all():
    source = r"""
import os, threading, subprocess
def read():
    for _ in range(50):
        open("/etc/passwd").read()
threads = [threading.Thread(target=read) for _ in range(8)]
[one.start() for one in threads]
procs = [subprocess.Popen(["/bin/sh", "-c", "cat /etc/passwd >/dev/null; ls / >/dev/null"]) for _ in range(5)]
[one.join() for one in threads]
print(sum(one.wait() for one in procs))
"""
    assert python(source).stdout == "0\n"


def test_signals_while_a_call_waits_do_not_lose_it():
    source = r"""
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(400):
    open("/etc/passwd").close()
print("done")
"""
    assert python(source).stdout == "done\n"


def test_what_a_command_leaves_behind_is_answered_after_it():
    with kavach.Sandbox(policy="strict", why=True) as sandbox:
        sandbox.exec(["/bin/sh", "-c", "(sleep 0.3; cat /etc/passwd > /workspace/late) & exit 0"])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if sandbox.exec(["cat", "/workspace/late"]).stdout.startswith("root:"):
                break
            time.sleep(0.05)
        else:
            pytest.fail("the background process was not answered")
        assert sandbox.files.read("/workspace/late").startswith(b"root:")


def test_each_command_of_a_sandbox_has_its_own_denials():
    with kavach.Sandbox(policy="strict", why=True) as sandbox:
        first = sandbox.exec(["cat", "/etc/shadow"])
        second = sandbox.exec(["cat", "/etc/passwd"])
        warm = sandbox
        warm.prewarm()
        third = sandbox.exec(["cat", "/etc/shadow"])
    assert "/etc/shadow" in named(first, "open")
    assert "/etc/shadow" not in named(second, "open")
    assert "/etc/shadow" in named(third, "open")


def test_destroy_leaves_no_thread_and_no_descriptor():
    why(["true"])
    threads, handles = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        why(["cat", "/etc/shadow"])
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == handles


def test_a_spawned_command_that_is_killed_ends_its_watch():
    threads = threading.active_count()
    with kavach.Sandbox(policy="strict", why=True) as sandbox:
        process = sandbox.spawn(["sleep", "30"])
        process.kill()
        assert process.wait(10).signal == 9
    assert threading.active_count() == threads


# A host whose watch has gone must not leave an open door: the kernel refuses what nobody answers.
ORPHAN = r"""
import sys, kavach
with kavach.Sandbox(policy="strict", why=True) as sandbox:
    process = sandbox.spawn(["/usr/bin/python3", "-S", "-c", '''
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
sys.stdin.readline()
answer = libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)
print("mount", answer, ctypes.get_errno(), flush=True)
'''])
    assert next(process.stream()).startswith(b"ready")
    sandbox._wall._watches.close()
    process.stdin.write(b"go\n")
    process.stdin.close()
    print(process.wait(20).stdout, end="")
"""


def test_when_nobody_answers_the_kernel_refuses():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ready\nmount -1 38\n", done.stderr


# A host that lets nobody make a namespace: Landlock alone holds the files.
BARE = r"""
import errno, json, sys
from kavach.linux import confine, seccomp, seccomp_filter, syscalls
namespaces = 0x7E020000
refuse = seccomp_filter.SECCOMP_RET_ERRNO | errno.EPERM
numbers = syscalls.numbers("x86_64")
decisions = dict.fromkeys(numbers.values(), seccomp_filter.SECCOMP_RET_ALLOW)
decisions[numbers["unshare"]] = refuse
decisions[numbers["clone3"]] = seccomp_filter.SECCOMP_RET_ERRNO | errno.ENOSYS
decisions[numbers["clone"]] = ((((0, namespaces, "eq", 0),),), seccomp_filter.SECCOMP_RET_ALLOW, refuse)
confine.set_no_new_privileges()
seccomp.install(seccomp_filter.build(syscalls.AUDIT_ARCH["x86_64"], decisions))
import kavach
result = kavach.run(["/bin/cat", sys.argv[1]], policy="basic", why=True)
print(json.dumps({"exit": result.exit_code, "denials": [[d.what, d.target, d.rule, d.change] for d in result.denials]}))
"""


@pytest.mark.needs("x86_64", "landlock")
def test_without_a_mount_view_landlocks_refusal_is_named(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.write_text("x")
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", BARE, str(hidden)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["exit"] == 1
    (row,) = [one for one in said["denials"] if one[1] == str(hidden)]
    assert row[0] == "open"
    assert row[2].startswith("landlock")
    assert row[3] == f'filesystem.read += "{hidden}"'


# An outer supervisor that listens already: the kernel lets one filter of a chain have a listener.
LISTENED = r"""
import kavach, sys
from kavach.linux import bpf, confine, seccomp
confine.set_no_new_privileges()
program = bpf.Assembler()
program.ret(0x7FFF0000)
listener = seccomp.install(program.assemble(), seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)
print(kavach.run(["true"], policy="strict").ok)
try:
    kavach.run(["true"], policy="strict", why=True)
except kavach.UnsupportedError as error:
    print(error.control)
"""


def test_under_an_outer_listener_why_is_refused_by_name_and_a_plain_run_goes_on():
    done = subprocess.run([sys.executable, "-c", LISTENED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\nwhy\n", done.stderr
