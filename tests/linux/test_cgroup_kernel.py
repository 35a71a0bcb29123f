"""Limits hold in the kernel, on cgroup v1 and v2: victims join a group and are refused, killed, stopped.

Version 2 needs a host, or the virtual machine of test_cgroup_vm, that mounts it with memory and pids.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kavach.launcher import limits
from kavach.launcher.limits import LimitSpec
from kavach.linux import cgroup

pytestmark = pytest.mark.root
MIB = 1 << 20
DEADLINE_S = 60
SPEC = LimitSpec(memory_bytes=64 * MIB, cpu_cores=0.2, max_pids=12)
VERSION_1 = pytest.param("cgroup1", marks=pytest.mark.cgroup1)
VERSION_2 = pytest.param("cgroup2", marks=pytest.mark.cgroup2)
HOG = "block = bytearray(200 << 20); print('survived', flush=True)"
NAP = "print('up', flush=True); time.sleep(60)"
PRELUDE = """
import os, sys, time
for path in sys.argv[1:]:
    with open(path, 'w') as file:
        file.write('0')
"""


@pytest.fixture
def driver(request):
    chosen = limits.choose_driver()
    assert chosen.name == request.param
    # Another test of this process may hold a sandbox for a whole session: its groups are not ours to end.
    there = {(base, name) for base in chosen.bases for name in cgroup.list_children(base)}
    yield chosen
    for base in chosen.bases:
        for name in cgroup.list_children(base):
            if name.startswith(chosen.folder_name("")) and (base, name) not in there:
                cgroup.kill(f"{base}/{name}")
                assert cgroup.remove(f"{base}/{name}", 5000)


@pytest.fixture
def start():
    running = []

    def run(code, group=None, leaf=None):
        joins = [] if group is None else group.join_paths()
        joins += [leaf.path + "/cgroup.procs"] if leaf is not None and leaf.path else []
        argv = [sys.executable, "-I", "-S", "-c", PRELUDE + textwrap.dedent(code), *joins]
        victim = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        running.append(victim)
        return victim

    yield run
    for victim in running:
        victim.kill()
        victim.communicate(timeout=DEADLINE_S)


def finish(victim):
    output, _ = victim.communicate(timeout=DEADLINE_S)
    return victim.returncode, output


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_every_limit_is_read_back_from_the_kernel_as_asked(driver):
    group = driver.make("readback", SPEC)
    assert group.states == {"memory": "enforced", "cpu": "enforced", "pids": "enforced"}
    assert {"memory", "cpu", "pids"} <= set(driver.controllers)
    stored = {
        name: Path(folder, name).read_text().strip()
        for folder in group.folders
        for name in group.readback
        if Path(folder, name).exists()
    }
    assert stored == {name: value for name, value in group.readback.items() if value != "absent"}
    assert str(64 * MIB) in stored.values()


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_a_hog_is_killed_and_counted_and_lives_outside_of_the_group(driver, start):
    assert finish(start(HOG)) == (0, "survived\n")
    group = driver.make("hog", SPEC)
    leaf = group.leaf("e")
    before = leaf.events()
    assert finish(start(HOG, group, leaf)) == (-signal.SIGKILL, "")
    assert limits.limits_hit(before, leaf.events()) == ("oom",)
    peak = leaf.usage().memory_peak_bytes
    assert peak is None or 60 * MIB < peak < 80 * MIB, "a dying process may be charged above it"


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_a_fork_beyond_max_pids_is_refused_and_counted(driver, start):
    code = """
    made = 0
    try:
        for _ in range(30):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            made += 1
    except BlockingIOError:
        pass
    print(made, flush=True)
    """
    group = driver.make("forks", SPEC)
    leaf = group.leaf("e")
    before = leaf.events()
    victim = start(code, group, leaf)
    assert int(victim.stdout.readline()) == 11, "twelve tasks with the victim itself"
    assert limits.limits_hit(before, leaf.events()) == ("pids",)
    assert leaf.usage().pids == 12
    assert group.kill(5000)


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_the_cpu_quota_throttles(driver, start):
    code = """
    begin, used = time.monotonic(), time.process_time()
    while time.monotonic() - begin < 1:
        pass
    print((time.process_time() - used) / (time.monotonic() - begin))
    """
    group = driver.make("cpu", SPEC)
    leaf = group.leaf("e")
    code_, share = finish(start(code, group, leaf))
    assert (code_, float(share) < 0.4) == (0, True)
    assert leaf.usage().cpu_time_us > 50_000


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_killing_one_command_leaves_init_and_the_other_command_alive(driver, start):
    group = driver.make("two", SPEC)
    first, second = group.leaf("a"), group.leaf("b")
    if first.shared:
        pytest.skip("no v2 hierarchy: commands cannot be told apart")
    init, one, two = (start(NAP, group, leaf) for leaf in (group.init, first, second))
    for victim in (init, one, two):
        assert victim.stdout.readline() == "up\n"
    assert first.kill()
    assert finish(one)[0] == -signal.SIGKILL
    assert first.remove(5000)
    assert is_alive(init.pid)
    assert is_alive(two.pid)
    assert group.kill(5000)
    assert (finish(init)[0], finish(two)[0]) == (-signal.SIGKILL, -signal.SIGKILL)
    assert group.remove(5000)
    assert not any(os.path.exists(folder) for folder in group.folders)


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_a_frozen_sandbox_stands_still_goes_on_and_can_be_killed_while_frozen(driver, start):
    group = driver.make("frozen", LimitSpec(max_pids=12))
    leaf = group.leaf("e")
    assert not group.freeze(100), "an empty group has nothing to freeze"
    victim = start("print('up', flush=True)\nwhile True: pass", group, leaf)
    assert victim.stdout.readline() == "up\n"

    def ticks():
        return Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[11]

    assert group.freeze(5000)
    still = ticks()
    time.sleep(0.1)
    assert ticks() == still
    assert group.thaw(5000)
    wait_until(lambda: ticks() != still)
    assert group.freeze(5000)
    assert group.kill(5000)
    assert finish(victim)[0] == -signal.SIGKILL


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_a_process_joins_from_inside_fresh_namespaces(driver, start):
    group = driver.make("inside", SPEC)
    code = f"""
    sys.path.insert(0, {str(Path(limits.__file__).parents[2])!r})
    from kavach.linux import namespaces, uapi
    joins = {group.join_paths()!r}
    handles = [os.open(path, os.O_WRONLY) for path in joins]
    folder = os.open({group.init.path!r}, os.O_RDONLY) if {group.init.path!r} else -1
    flags = uapi.CLONE_NEWUSER | uapi.CLONE_NEWPID | uapi.CLONE_NEWNS | uapi.CLONE_NEWNET
    pid = namespaces.clone(flags, folder)
    if pid == 0:
        for handle in handles:
            os.write(handle, b"0")
        time.sleep(60)
    time.sleep(0.2)
    print(open(f"/proc/{{pid}}/cgroup").read().count({os.path.basename(group.folders[0])!r}))
    """
    victim = start(code)
    assert int(victim.stdout.readline()) == len(group.folders)
    assert group.kill(5000)


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_a_group_with_a_process_is_not_removed_and_removal_never_kills(driver, start):
    group = driver.make("busy", SPEC)
    victim = start(NAP, group, group.leaf("e"))
    victim.stdout.readline()
    assert not group.remove(50)
    assert is_alive(victim.pid)
    assert group.kill(5000)
    victim.wait(DEADLINE_S)
    assert group.remove(5000)
    assert group.remove()


@pytest.mark.parametrize("driver", [VERSION_1, VERSION_2], indirect=True)
def test_sweep_ends_what_a_killed_owner_left(driver, start):
    code = f"""
    sys.path.insert(0, {str(Path(limits.__file__).parents[2])!r})
    sys.path.insert(1, {str(Path(sys.modules["msgspec"].__file__).parents[1])!r})
    from kavach.launcher import limits
    group = limits.choose_driver().make("left", limits.LimitSpec(max_pids=9))
    pid = os.fork()
    if pid == 0:
        for path in [*group.join_paths(), *([group.init.path + "/cgroup.procs"] if group.init.path else [])]:
            open(path, "w").write("0")
        print(os.getpid(), *group.folders, flush=True)
        time.sleep(60)
    time.sleep(60)
    """
    owner = start(code)
    pid, *folders = owner.stdout.readline().split()

    def is_alive_or_foreign(pid, start_time):
        return pid != owner.pid or limits.is_owner_alive(pid, start_time)

    assert limits.sweep(driver, is_alive_or_foreign) == (), "a living owner's groups stay"
    owner.kill()
    owner.wait(DEADLINE_S)
    assert is_alive(int(pid))
    assert sorted(limits.sweep(driver, is_alive_or_foreign)) == sorted(folders)
    wait_until(lambda: not is_alive(int(pid)))
    assert not any(os.path.exists(folder) for folder in folders)


@pytest.mark.parametrize("driver", [VERSION_2], indirect=True)
def test_an_out_of_memory_command_dies_whole_and_init_lives(driver, start):
    group = driver.make("whole", SPEC)
    leaf = group.leaf("e")
    init = start(NAP, group, group.init)
    init.stdout.readline()
    helper = start(NAP, group, leaf)
    helper.stdout.readline()
    assert finish(start(HOG, group, leaf))[0] == -signal.SIGKILL
    assert finish(helper)[0] == -signal.SIGKILL
    assert is_alive(init.pid)
    assert leaf.events().oom_kills >= 1
    assert cgroup.read_key(group.init.path + "/memory.events", "oom_kill") == 0
    assert group.kill(5000)


@pytest.mark.parametrize("driver", [VERSION_2], indirect=True)
@pytest.mark.parametrize(("allowed", "outcome"), [(True, "cloned"), (False, "EACCES")])
def test_an_init_of_another_uid_clones_into_a_leaf_only_when_allowed(driver, start, allowed, outcome):
    group = driver.make("uid", SPEC)
    if allowed:
        group.allow_init(100000, 100000)
    leaf = group.leaf("e")
    code = f"""
    sys.path.insert(0, {str(Path(limits.__file__).parents[2])!r})
    import errno
    from kavach.linux import namespaces
    folder = os.open({leaf.path!r}, os.O_RDONLY)
    os.setresgid(100000, 100000, 100000)
    os.setresuid(100000, 100000, 100000)
    try:
        pid = namespaces.clone(0, folder)
        if pid == 0:
            time.sleep(60)
        print("cloned", {leaf.path!r}.endswith(open(f"/proc/{{pid}}/cgroup").read().strip()[3:]), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
    """
    victim = start(code, group, group.init)
    assert victim.stdout.readline().split() in ([outcome, "True"], [outcome])
    assert group.kill(5000)


@pytest.mark.parametrize("driver", [VERSION_2], indirect=True)
def test_a_plain_user_gets_a_delegated_parent_and_the_host_process_stays_where_it_is(driver, start):
    top = f"{driver.bases[0]}/delegated-{os.getpid()}"
    own = f"{top}/own"
    os.mkdir(top)
    cgroup.enable(top, ("memory", "pids", "cpu"))
    os.mkdir(own)
    for folder in (top, own):
        os.chown(folder, 65534, 65534)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(f"{folder}/{name}", 65534, 65534)
    code = f"""
    sys.path.insert(0, {str(Path(limits.__file__).parents[2])!r})
    sys.path.insert(1, {str(Path(sys.modules["msgspec"].__file__).parents[1])!r})
    from kavach.launcher import limits
    from kavach.linux import namespaces
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    driver = limits.choose_driver()
    group = driver.make("plain", limits.LimitSpec(memory_bytes=64 << 20, cpu_cores=1.0, max_pids=9))
    if namespaces.clone(0, group.leaf("e").dirfd) == 0:
        block = bytearray(200 << 20)
        os._exit(0)
    died = os.wait()[1]
    states = sorted(group.states.values())
    print(driver.bases[0], states, died, group.remove(5000), open("/proc/self/cgroup").read())
    """
    victim = start(code, leaf=limits.Leaf(driver.make("x", LimitSpec()), own))
    status, output = finish(victim)
    assert status == 0
    assert output.startswith(f"{top} ['enforced', 'enforced', 'enforced'] 9 True 0::")
    assert output.strip().endswith("/own")
    assert cgroup.remove(top, 5000)
