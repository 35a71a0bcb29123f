"""Real programs run under `strict`: shells, Python in all its ways to start processes, git, gcc, node, busybox."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import kavach

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
PYTHON = "/usr/bin/python3"
THREADS = """
import threading, queue
box = queue.Queue()
crew = [threading.Thread(target=box.put, args=(n * n,)) for n in range(8)]
[one.start() for one in crew]; [one.join() for one in crew]
print(sum(box.get() for _ in crew))
"""
SUBPROCESS = """
import subprocess
print(subprocess.run(['sh', '-c', 'tr a b'], input='aaa', text=True, capture_output=True).stdout)
print(subprocess.check_output('echo $((6 * 7))', shell=True, text=True), end='')
"""
MULTIPROCESSING = """
import multiprocessing, sys

def square(number):
    return number * number

if __name__ == '__main__':
    how = multiprocessing.get_context(sys.argv[1])
    with how.Pool(2) as pool:
        print(sum(pool.map(square, range(10))))
"""


def strict(argv, **more):
    result = kavach.run(argv, policy=more.pop("policy", "strict"), timeout_s=60, **more)
    assert result.reason == "exit", (result.reason, result.stdout, result.stderr)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_true_runs_inside():
    assert strict(["/bin/true"]) == ""


def test_shell_with_a_pipe_and_a_background_job_runs():
    assert strict(["sh", "-c", "echo a | tr a b; (sleep 0.1; echo c) & wait"]) == "b\nc\n"


def test_python_with_threads_runs():
    assert strict([PYTHON, "-c", THREADS]) == "140\n"


def test_python_with_subprocesses_runs():
    assert strict([PYTHON, "-c", SUBPROCESS]) == "bbb\n42\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_python_with_multiprocessing_runs(method):
    with kavach.Sandbox(policy="strict") as sandbox:
        sandbox.files.write("/workspace/work.py", MULTIPROCESSING.encode())
        result = sandbox.exec([PYTHON, "work.py", method], timeout_s=60)
    assert (result.stdout, result.reason) == ("285\n", "exit"), result.stderr


def test_python_of_the_caller_is_shown_when_asked_for():
    policy = kavach.SandboxPolicy.strict(python="caller")
    code = "import sys, json; print(json.dumps(list(sys.version_info[:3])))"
    assert strict([sys.executable, "-c", code], policy=policy) == f"{list(sys.version_info[:3])}\n"


@pytest.mark.needs("git")
def test_git_makes_a_repository_and_a_commit():
    script = (
        "git init -q . && echo text > file && git add file && "
        "git -c user.name=n -c user.email=e@example.org commit -q -m first && git log --format=%s && git status --short"
    )
    assert strict(["sh", "-ec", script]) == "first\n"


@pytest.mark.needs("gcc")
def test_gcc_compiles_and_the_program_runs():
    source = b'#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); return 0; }\n'
    with kavach.Sandbox(policy="strict") as sandbox:
        sandbox.files.write("/workspace/main.c", source)
        built = sandbox.exec(["gcc", "-O1", "-o", "main", "main.c"], timeout_s=60)
        assert built.ok, built.stderr
        assert sandbox.exec(["./main"]).stdout == "42\n"


NODE = "const {execSync} = require('child_process'); console.log(21 * 2, execSync('echo from-sh').toString().trim())"


@pytest.mark.needs("node")
def test_node_of_the_distribution_runs():
    assert strict(["node", "-e", NODE]) == "42 from-sh\n"


def test_newer_node_runs(lab, tmp_path):
    program = os.path.realpath(lab("node-new"))
    os.chmod(tmp_path, 0o755)
    shutil.copy(program, tmp_path / "node")
    policy = kavach.SandboxPolicy.strict(execute=[str(tmp_path)], read=[str(tmp_path)])
    assert strict([str(tmp_path / "node"), "-e", NODE], policy=policy) == "42 from-sh\n"


def test_busybox_folder_as_rootfs_shows_nothing_of_the_host(lab, tmp_path):
    root = tmp_path / "root"
    for name in ("bin", "etc", "dev", "proc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(lab("busybox"), root / "bin/busybox")
    for name in ("sh", "ls", "cat", "id", "env"):
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/marker").write_text("image\n", encoding="ascii")
    policy = kavach.SandboxPolicy.strict(rootfs=str(root))
    seen = set(strict(["/bin/ls", "/"], policy=policy).split())
    assert seen == {"bin", "etc", "dev", "proc", "tmp", "workspace"}
    assert strict(["/bin/cat", "/etc/marker"], policy=policy) == "image\n"
    assert strict(["/bin/sh", "-c", "ls /etc; ls /usr /home /root 2>&1 | grep -c 'No such'"], policy=policy) == (
        "marker\n3\n"
    )


def test_environment_descriptors_and_folder_of_the_host_do_not_reach_the_command():
    victim = """
import os, kavach
secret = os.open('/etc/hostname', os.O_RDONLY)
os.set_inheritable(secret, True)
os.chdir('/usr')
result = kavach.run(['sh', '-c', 'env; echo ---; ls /proc/self/fd; pwd'], policy='strict', env={'GIVEN': 'yes'})
print(result.stdout, end='')
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", victim],
        env=os.environ | {"KAVACH_TEST_SECRET": "leaked"},
        capture_output=True,
        text=True,
        timeout=60,
        close_fds=False,
    )
    assert done.returncode == 0, done.stderr
    shown, rest = done.stdout.split("---\n")
    assert {line.split("=")[0] for line in shown.splitlines()} == {"PATH", "HOME", "LANG", "TERM", "GIVEN", "PWD"}
    assert rest.split() == ["0", "1", "2", "3", "/workspace"]  # 3 is the listing's own descriptor
