"""The built-in filters on the real kernel: rule by rule in victims, and with the programs they must not break.

One victim installs a filter and makes many harmless calls: bad descriptors, null pointers, absent processes. A call
that the filter refuses gives the filter's errno; one that it lets through reaches the kernel and gives another answer.
Calls whose kernel answer is EPERM or ENOSYS anyway, or which would take effect, are told from the filter's by a
control victim without a filter, or are left to the interpreter's tests.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from kavach.linux import seccomp, syscalls
from kavach.linux.syscall_prototypes import PROTOTYPES
from kavach.policy.seccomp_oracle import judge_call
from kavach.policy.seccomp_rules import OPTIONS, apply_options, compile_rules, load_profile

ARCH = platform.machine()
pytestmark = [
    pytest.mark.seccomp,
    pytest.mark.skipif(ARCH not in syscalls.AUDIT_ARCH, reason="no table for this machine"),
]

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(seccomp.__file__)))
BAD_POINTER = 0x10  # page 0 is never mapped
BAD_FD = 0xFFFFFF
NO_PROCESS = 0x3FFFFFFF  # above the kernel's highest pid
NEVER_CALLED = {
    # These end, stop, replace or blind the victim, or change it for the calls that follow, whatever their arguments.
    *"exit exit_group fork vfork clone pause rt_sigsuspend rt_sigreturn setsid vhangup munmap brk mremap".split(),
    *"mlockall munlockall set_tid_address set_robust_list rseq close_range restart_syscall sync syncfs".split(),
    *"chroot setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups unshare".split(),
    *"arch_prctl prctl seccomp personality select pselect6 poll ppoll wait4 waitid".split(),
    *"io_setup alarm kill tkill tgkill umask nanosleep msync madvise mprotect pkey_mprotect mseal".split(),
    *"userfaultfd reboot kexec_load kexec_file_load acct swapon swapoff sched_yield setpgid membarrier".split(),
    *"set_mempolicy mbind remap_file_pages map_shadow_stack iopl ioperm modify_ldt mmap".split(),
    *"landlock_restrict_self close dup2 dup3 keyctl syslog setpriority ioprio_set uretprobe".split(),
    *"sched_setaffinity sched_setscheduler sched_setparam sched_setattr mlock mlock2".split(),
    *"rt_sigtimedwait clock_nanosleep sigaltstack rt_sigprocmask rt_sigaction set_thread_area process_madvise".split(),
    *"semget shmget msgget semctl shmctl msgctl listns statmount listmount timer_create inotify_init".split(),
}

VICTIM = textwrap.dedent("""
    import ctypes, errno, json, os, sys
    sys.path.insert(0, sys.argv[1])
    from kavach.linux import libc, seccomp
    from kavach.linux.syscalls import numbers
    plan = json.load(sys.stdin)
    libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
    if plan["program"]:
        seccomp.install(bytes.fromhex(plan["program"]))
    raw = ctypes.CDLL(None, use_errno=True).syscall
    raw.restype = ctypes.c_long
    answers = []
    for number, args in plan["calls"]:
        ctypes.set_errno(0)
        result = raw(ctypes.c_long(number), *[ctypes.c_ulong(a) for a in args])
        answers.append(ctypes.get_errno() if result == -1 else 0)
    print(json.dumps(answers), flush=True)
    os._exit(0)
""")


def _victim(program: bytes, calls: list[tuple[int, tuple[int, ...]]]) -> list[int]:
    """Return the errno (0: done) of each call made under the filter; no filter where the program is empty."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", VICTIM, SOURCE],
        input=json.dumps({"program": program.hex(), "calls": calls}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _harmless(call: str) -> tuple[int, ...]:
    """Return arguments that make a call fail at once: bad descriptors, no process, pointers to nothing."""
    return tuple(BAD_FD if kind in "wh" else BAD_POINTER for kind in PROTOTYPES.get(call, ""))


def _expected(rules, number, args):
    return judge_call(rules, ARCH, number, args).errno


def _check(rules, program, calls):
    """Assert that the filter, and nothing else, refuses exactly what the rules refuse."""
    answers = _victim(program, calls)
    control = _victim(b"", calls)
    wrong = []
    told_apart = 0
    for (number, args), answer, without in zip(calls, answers, control, strict=True):
        expected = _expected(rules, number, args)
        if expected:
            wrong += [(number, args, answer, expected)] if answer != expected else []
            told_apart += without != expected
        elif answer != without:
            wrong.append((number, args, answer, without))
        else:
            told_apart += without not in {errno.EPERM, errno.ENOSYS}
    assert not wrong
    return told_apart


@pytest.mark.parametrize("name", ["basic", "strict", "python", "node", "shell", "wasm", "edge"])
def test_every_call_of_the_table_is_answered_by_the_kernel_as_the_rules_say(name):
    rules = load_profile(name)
    calls = [(nr, _harmless(call)) for call, nr in syscalls.numbers(ARCH).items() if call not in NEVER_CALLED]
    told_apart = _check(rules, compile_rules(rules, ARCH), calls)
    assert told_apart > 0.8 * len(calls)


# Calls with arguments, allowed and mutated, that have no effect whichever way they go.
ARGUMENT_CASES = [
    *[("socket", (family, kind, protocol)) for family in (1, 2, 10, 16, 17, 38, 40, 2 | 1 << 32, 255)
      for kind in (1, 2, 3, 5, 10, 2 | 0o2000000) for protocol in (0, 6, 9, 17, 255)],
    *[("socketpair", (family, 1, 0, BAD_POINTER)) for family in (1, 2, 10, 30, 1 | 1 << 40)],
    *[("ioctl", (BAD_FD, request | high, BAD_POINTER)) for high in (0, 1 << 32, 0xABCD << 48)
      for request in (0x5401, 0x5412, 0x541B, 0x541C, 0x541D, 0x5421, 0x5423, 0x8914, 0x40045431, 0xC0104600)],
    # CLONE_THREAD without CLONE_SIGHAND: the kernel refuses each of these, so that none forks the victim.
    *[("clone", (0x10011 | flags, 0, 0, 0, 0)) for flags in (0, 0x80, 0x20000, 0x02000000, 0x04000000, 0x08000000,
      0x10000000, 0x20000000, 0x40000000, 1 << 40, 0x10000000 | 1 << 40)],
    *[("prlimit64", (pid, resource, new, 0)) for pid in (0, NO_PROCESS) for resource in (4, 7, 99, 4 | 1 << 32)
      for new in (0, BAD_POINTER, 1 << 63)],
    *[("setpriority", (which, NO_PROCESS, 0)) for which in (0, 1, 2, 1 << 32)],
    *[("ioprio_set", (which, NO_PROCESS, 0)) for which in (1, 2, 3, 1 | 1 << 32)],
    *[(call, (pid, BAD_POINTER, BAD_POINTER)) for pid in (NO_PROCESS, NO_PROCESS | 1 << 32)
      for call in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")],
    *[("sched_setparam", (pid, 0)) for pid in (0, 1 << 32)],
    *[("mknodat", (BAD_FD, BAD_POINTER, mode, 0)) for mode in (0o644, 0o100644, 0o10644, 0o140644, 0o20644, 0o60644,
      0o20644 | 1 << 16, 0o10644 | 1 << 16)],
    *[("personality", (0xFFFFFFFF | high,)) for high in (0, 1 << 32)],
    *[("memfd_create", (BAD_POINTER, flags)) for flags in (0, 1, 8, 9, 0x10, 0x18, 8 | 1 << 32)],
    *[("execveat", (BAD_FD, BAD_POINTER, 0, 0, flags)) for flags in (0, 0x100, 0x1000, 0x1000 | 1 << 32)],
    *[("mmap", (0, 4096, prot, 0, BAD_FD, 0)) for prot in range(8)],
    *[("mprotect", (1, 4096, prot)) for prot in range(8)],
    *[("seccomp", (1, flags, BAD_POINTER)) for flags in (0, 2, 8, 12, 8 | 1 << 32)],
    *[("prctl", (option, BAD_POINTER, BAD_POINTER, 1, 1)) for option in (16, 16 | 1 << 32, 35, 59, 0x59616D61, 31)],
    *[("keyctl", (option, 0)) for option in (1000, 0xFFFF)],
    *[("shmat", (BAD_FD, 0, flags)) for flags in (0, 0o100000, 0o10000)],
]  # fmt: skip


@pytest.mark.parametrize("options", [(), *[(option,) for option in OPTIONS], ("nested", "no_network", "wx")], ids=str)
@pytest.mark.parametrize("name", ["basic", "strict"])
def test_arguments_allowed_and_mutated_are_answered_by_the_kernel_as_the_rules_say(name, options):
    rules = apply_options(load_profile(name), options)
    calls = [(syscalls.numbers(ARCH)[call], args) for call, args in ARGUMENT_CASES]
    told_apart = _check(rules, compile_rules(load_profile(name), ARCH, options=options), calls)
    assert told_apart > 0.6 * len(calls)


def test_random_arguments_are_answered_by_the_kernel_as_the_rules_say():
    choose = random.Random(20260101)
    rules = load_profile("strict")
    conditional = [r.call for r in rules.calls if r.clauses not in ((), ((),)) and r.call in syscalls.numbers(ARCH)]
    safe = [call for call in conditional if call in {"socket", "ioctl", "prlimit64", "mknodat", "execveat"}]
    values = [0, 1, 2, 3, 10, 16, BAD_FD, BAD_POINTER, 0x5401, 0x5412, 1 << 32, 1 << 32 | 2, (1 << 64) - 1]
    calls = []
    for _ in range(400):
        call = choose.choice(safe)
        args = tuple(choose.choice(values) for _ in PROTOTYPES[call])
        calls.append((syscalls.numbers(ARCH)[call], args if call != "prlimit64" else (NO_PROCESS, *args[1:])))
    _check(rules, compile_rules(rules, ARCH), calls)


def test_number_in_no_table_does_not_exist():
    numbers = [400, 480, 999, 0x3FFFFFFF, 0x40000000, 0x40000000 | 1, 0x40000000 | 520]
    answers = _victim(compile_rules(load_profile("basic"), ARCH), [(number, ()) for number in numbers])
    assert answers == [errno.ENOSYS] * len(numbers)


INT80 = textwrap.dedent("""
    import ctypes, mmap, os, sys
    sys.path.insert(0, sys.argv[1])
    from kavach.linux import libc, seccomp
    from kavach.linux.syscalls import numbers
    # mov eax, 20 (getpid of i386); int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
    if sys.argv[2]:
        seccomp.install(bytes.fromhex(sys.argv[2]))
    print(getpid())
""")


def _int80(program: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", INT80, SOURCE, program.hex()], capture_output=True, text=True, timeout=30
    )


@pytest.mark.skipif(ARCH != "x86_64", reason="int 0x80 is an instruction of x86")
@pytest.mark.parametrize("name", ["basic", "strict"])
def test_32_bit_system_calls_do_not_exist(name):
    control = _int80(b"")
    if control.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit system calls")
    assert int(control.stdout) > 0
    refused = _int80(compile_rules(load_profile(name), ARCH))
    assert refused.returncode == 0, refused.stderr
    assert int(refused.stdout) == -errno.ENOSYS


# --- install


def _install(source: str, *argv: str) -> subprocess.CompletedProcess[str]:
    prelude = """
import os, sys
sys.path.insert(0, sys.argv[1])
from kavach.linux import bpf, libc, seccomp, seccomp_filter
from kavach.linux.syscalls import numbers
"""
    return subprocess.run(
        [sys.executable, "-I", "-c", prelude + textwrap.dedent(source), SOURCE, *argv],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_install_without_no_new_privs_is_refused_by_the_kernel():
    done = _install(
        """
        if os.getuid() == 0:
            os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
        try:
            seccomp.install(seccomp_filter.build(0, {}))
        except OSError as error:
            print(error.errno)
        """
    )
    assert done.stdout.strip() == str(errno.EACCES), done.stderr


def test_installed_filter_is_seen_from_outside_and_by_children():
    done = _install(
        """
        import subprocess
        libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
        assert seccomp.install(bytes.fromhex(sys.argv[2])) == 0
        print(subprocess.run(["grep", "Seccomp:", "/proc/self/status"], capture_output=True, text=True).stdout)
        """,
        compile_rules(load_profile("strict"), ARCH).hex(),
    )
    assert done.stdout.split() == ["Seccomp:", "2"], done.stderr


def test_listener_descriptor_is_returned_and_gets_the_call():
    done = _install(
        """
        import select
        libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
        program = bytes.fromhex(sys.argv[2])
        listener = seccomp.install(program, seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        assert listener > 2
        child = os.fork()
        if child == 0:
            os.mkdir("/nonexistent/x")
            os._exit(0)
        print(bool(select.select([listener], [], [], 10)[0]), flush=True)
        os.close(listener)
        os.kill(child, 9)
        """,
        compile_rules(load_profile("basic"), ARCH, notify=["mkdir", "mkdirat"]).hex(),
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("bad", [b"", b"1234567", b"\0" * 8 * 4097])
def test_install_refuses_what_is_no_program(bad):
    with pytest.raises(ValueError, match="instructions"):
        seccomp.install(bad)


def test_install_refuses_tsync():
    with pytest.raises(ValueError, match="TSYNC"):
        seccomp.install(b"\0" * 8, 1)


def test_program_that_the_kernels_checker_rejects_is_an_error():
    done = _install(
        """
        libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
        try:
            seccomp.install(b"\\x20\\x00\\x00\\x00\\x00\\x00\\x00\\x00")
        except OSError as error:
            print(error.errno)
        """
    )
    assert done.stdout.strip() == str(errno.EINVAL), done.stderr


# --- programs that the profiles must run

EXEC = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from kavach.linux import libc, seccomp
    from kavach.linux.syscalls import numbers
    libc.syscall(numbers(os.uname().machine)["prctl"], 38, 1, 0, 0, 0)
    seccomp.install(bytes.fromhex(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])
""")


def _run(profile: str, argv: list[str], folder, options=()) -> subprocess.CompletedProcess[str]:
    program = compile_rules(load_profile(profile), ARCH, options=options)
    home = os.fspath(folder)
    return subprocess.run(
        [sys.executable, "-I", "-c", EXEC, SOURCE, program.hex(), *argv],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": home,
            "TMPDIR": home,
            "GIT_CONFIG_NOSYSTEM": "1",
        },
    )


GIT = """
git init -q r && cd r && echo x > f && git add f
git -c user.name=a -c user.email=a@b.c commit -q -m m && git gc -q && git log --format=%s
"""
MAKE = r"""
printf '#include <stdio.h>\nint main(void){puts("made");return 0;}\n' > a.c
printf 'a: a.c\n\tgcc -O1 -o a a.c\n' > Makefile
make -s -j2 && ./a
"""
PYTHON = """
import asyncio, multiprocessing, os, socket, subprocess, sys, tempfile, threading, time
def square(x):
    return x * x
if __name__ == "__main__":
    threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert subprocess.run(["echo", "sub"], capture_output=True).stdout == b"sub\\n"
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16], method
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        return await process.wait()
    assert asyncio.run(main()) == 0
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname()).close()
    socket.if_nameindex()
    print("python")
"""
NODE = """
const { Worker } = require("worker_threads");
const out = require("child_process").execFileSync("echo", ["node"]).toString();
require("dns").lookup("localhost", () => {
  require("fs").promises.readFile("/proc/self/status").then(() => {
    new Worker("require('worker_threads').parentPort.postMessage(1)", { eval: true })
      .on("message", () => process.stdout.write(out));
  });
});
"""
PROGRAMS = {
    "true": (["/bin/true"], "", ()),
    "sh": (["sh", "-c", "echo b a | tr ' ' '\\n' | sort | (read x; echo $x)"], "a", ()),
    "bash": (["bash", "-c", "diff <(echo 1) <(echo 1) && sleep 0 & wait; echo bash"], "bash", ("bash",)),
    "busybox": (["busybox", "sh", "-c", "busybox seq 3 | busybox tail -n 1"], "3", ("busybox",)),
    "git": (["sh", "-c", GIT], "m", ("git",)),
    "make": (["sh", "-c", MAKE], "made", ("gcc", "make")),
    "node": (["node", "-e", NODE], "node", ("node",)),
    "tar": (["sh", "-c", "mkdir d; echo t > d/f; tar cf - d | tar xf - -C . && cat d/f"], "t", ("tar",)),
}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def _python(version: str) -> str | None:
    """Return an interpreter of that version that runs: on PATH, or where pyenv keeps them."""
    kept = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python3")))
    for path in [shutil.which(f"python{version}"), *reversed(kept)]:
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("profile", ["basic", "strict"])
def test_real_programs_run_under(profile, program, tmp_path):
    argv, expected, needs = PROGRAMS[program]
    for need in needs:
        if shutil.which(need) is None:
            pytest.skip(f"{need} is not installed")
    done = _run(profile, argv, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("profile", ["basic", "strict", "python"])
def test_python_with_threads_and_processes_runs_under(profile, version, tmp_path):
    path = _python(version)
    if path is None:
        pytest.skip(f"Python {version} is not installed")
    (tmp_path / "task.py").write_text(PYTHON)
    done = _run(profile, [path, "task.py"], tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "python"), done.stderr


@pytest.mark.parametrize(
    ("profile", "program"),
    [("node", "node"), ("shell", "sh"), ("shell", "git"), ("shell", "make"), ("edge", "sh")],
)
def test_derived_profiles_run_what_they_are_named_after(profile, program, tmp_path):
    argv, expected, needs = PROGRAMS[program]
    for need in needs:
        if shutil.which(need) is None:
            pytest.skip(f"{need} is not installed")
    done = _run(profile, argv, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.parametrize("options", [("pin_cpu", "no_memfd", "no_exec_memfd", "no_network", "wx")], ids=["narrowest"])
@pytest.mark.parametrize("program", ["true", "sh", "git", "make", "tar"])
def test_strict_with_every_narrowing_option_still_runs(options, program, tmp_path):
    argv, expected, needs = PROGRAMS[program]
    for need in needs:
        if shutil.which(need) is None:
            pytest.skip(f"{need} is not installed")
    done = _run("strict", argv, tmp_path, options)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


@pytest.mark.userns
def test_nested_lets_an_inner_user_and_mount_namespace_be_made(tmp_path):
    argv = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs x /mnt && echo inner",
    ]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    refused = _run("strict", argv, tmp_path)
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr
    done = _run("strict", argv, tmp_path, ["nested"])
    assert (done.returncode, done.stdout.strip()) == (0, "inner"), done.stderr
