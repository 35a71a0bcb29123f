"""Policy words become steps: every control that is asked for has its step, and the order that security depends on."""

from __future__ import annotations

import itertools
import resource

import pytest

from kavach.errors import UnsupportedError
from kavach.launcher import build, canary, child
from kavach.launcher.facts import Facts
from kavach.launcher.groups import Group, LimitSpec
from kavach.launcher.lower import FLAGS, lower
from kavach.launcher.situation import INNER_ID, Situation
from kavach.launcher.view import Tree, View
from kavach.linux import landlock_abi as abi
from kavach.linux import uapi
from kavach.model.policy import PathRule, SandboxPolicy

ALL = frozenset(FLAGS)
RIGHTS = abi.rights(abi.HIGHEST_ABI)[:3]
WHO = ("root", "plain", "bare", "bare root")
PRESETS = ("strict", "basic", "minimal")
READ_ONLY = uapi.MOUNT_ATTR_RDONLY
VIEW = View(
    (Tree("/usr", "/usr", READ_ONLY), Tree("/home/me/work", "/workspace", 0, owned=1)), (), (), (), (), ("/usr/bin",)
)


def situation(who, *, listening=False, landlock=RIGHTS, cgroup=True):
    root, bare = "root" in who, "bare" in who
    facts = Facts(
        uid=0 if root else 1001,
        gid=0 if root else 1002,
        can_map_range=root,
        is_privileged=root,
        first_id=200000 if root else 0,
        landlock=landlock,
        landlock_abi=abi.HIGHEST_ABI,
        machine="x86_64",
        python=(),
    )
    group = Group("one", LimitSpec(memory_bytes=1 << 29, cpu_cores=1.0, max_pids=64), frozenset({0}))
    if cgroup:
        group.states = dict.fromkeys(group.states, "enforced")
    return Situation(
        facts=facts,
        group=group,
        namespaces=frozenset() if bare else ALL,
        view=VIEW,
        hostname="box",
        domainname="",
        own_workdir=False,
        scratch="/tmp/kavach-x" if bare else None,
        slot=3,
        has_secret_files=False,
        listening=listening,
        user_tasks=7,
    )


def names(steps):
    return [name.decode() for name, _, _ in steps]


def arguments(steps, wanted):
    return next(rest for name, _, rest in steps if name == wanted.encode())


CASES = list(itertools.product(PRESETS, WHO))


@pytest.mark.parametrize(("preset", "who"), CASES)
def test_every_step_is_one_that_init_or_the_child_knows(preset, who):
    plan = lower(SandboxPolicy.from_preset(preset), situation(who))
    assert {name for name, _, _ in plan.init_steps} <= set(build.STEPS)
    assert {name for name, _, _ in plan.command_steps} <= set(child.STEPS)
    assert {row[2] for row in plan.canaries} <= set(canary.ACTS)


@pytest.mark.parametrize(("preset", "who"), CASES)
def test_order_that_security_depends_on_holds(preset, who):
    plan = lower(SandboxPolicy.from_preset(preset), situation(who))
    for steps in (names(plan.init_steps), names(plan.command_steps)):
        where = {name: at for at, name in enumerate(steps)}
        pairs = [
            ("no_new_privileges", "restrict"),
            ("no_new_privileges", "system_call_filter"),
            ("no_new_privileges", "filter_init"),
            ("try_before", "restrict"),
            ("restrict", "try_after"),
            ("try_after", "ids"),
            ("limits", "ids"),
            ("empty_bounding_set", "ids"),
            ("ids", "no_capabilities"),
            ("no_capabilities", "system_call_filter"),
            ("ids", "die_with_init"),
            ("close_descriptors", "system_call_filter"),
            ("oom_score", "become_undumpable"),
            ("take_ids", "become_undumpable"),
            ("private_mounts", "new_root"),
            ("new_root", "attach"),
            ("open_proc", "new_root"),
            ("attach", "mask"),
            ("mask", "seal"),
            ("hold_folder", "landlock_ruleset"),
            ("drop_bounding_set", "keep_capabilities"),
            ("leave_keyring", "filter_init"),
            ("core_limit", "keep_capabilities"),
        ]
        wrong = [pair for pair in pairs if pair[0] in where and pair[1] in where and where[pair[0]] > where[pair[1]]]
        assert wrong == []
    assert names(plan.command_steps)[-1] == "try_final"
    if plan.has_filter:
        assert names(plan.command_steps)[-2] == "system_call_filter"
        assert names(plan.init_steps)[-1] == "filter_init"


@pytest.mark.parametrize(("preset", "who"), CASES)
def test_steps_that_every_command_takes_are_required(preset, who):
    plan = lower(SandboxPolicy.from_preset(preset), situation(who))
    required = {name.decode() for name, must, _ in plan.command_steps if must}
    assert required >= {"own_session", "limits", "no_new_privileges", "no_capabilities", "die_with_init"}
    assert required >= {"close_descriptors", "try_final"}
    optional = {name.decode() for name, must, _ in (*plan.init_steps, *plan.command_steps) if not must}
    assert optional <= {"oom_score", "mount_new", "forbid_user_namespaces", "empty_bounding_set"}


@pytest.mark.parametrize("who", WHO)
def test_strict_has_a_step_for_each_control(who):
    plan = lower(SandboxPolicy.strict(), situation(who))
    init, command = names(plan.init_steps), names(plan.command_steps)
    assert {"restrict", "system_call_filter", "try_before", "try_after"} <= set(command)
    assert {"landlock_ruleset", "filter_init", "core_limit", "leave_keyring", "become_undumpable"} <= set(init)
    if "bare" in who:
        assert plan.namespaces == frozenset()
        assert "adopt_orphans" in init
        assert not {"new_root", "seal", "name_host", "loopback_up"} & set(init)
    else:
        assert {"new_root", "attach", "seal", "name_host", "loopback_up", "drop_bounding_set"} <= set(init)
        assert plan.flags == sum(FLAGS.values())
    assert ("ids" in command) == ("root" in who)


def test_root_maps_two_ids_of_its_block_and_never_its_own():
    plan = lower(SandboxPolicy.strict(), situation("root"))
    assert plan.maps == (b"0 200006 1\n1000 200007 1",) * 2 + (0,)
    assert arguments(plan.command_steps, "ids") == (INNER_ID, INNER_ID, 1)
    assert plan.separate_init


def test_plain_user_maps_one_id_and_denies_setgroups():
    plan = lower(SandboxPolicy.strict(), situation("plain"))
    assert plan.maps == (b"1000 1001 1", b"1000 1002 1", 1)
    assert not plan.separate_init


def test_root_without_a_user_namespace_still_leaves_its_ids():
    plan = lower(SandboxPolicy.strict(), situation("bare root"))
    assert plan.maps == (b"", b"", 0)
    assert arguments(plan.command_steps, "ids") == (200007, 200007, 1)
    assert "empty_bounding_set" in names(plan.command_steps)


def test_init_keeps_only_what_it_needs():
    kept = {
        who: arguments(lower(SandboxPolicy.strict(), situation(who)).init_steps, "keep_capabilities")[0]
        for who in ("root", "plain")
    }
    assert kept == {"root": (uapi.CAP_KILL, uapi.CAP_SETGID, uapi.CAP_SETUID), "plain": (uapi.CAP_KILL,)}


@pytest.mark.parametrize("who", ["root", "plain"])
def test_only_a_privileged_launcher_opens_the_trees_and_owned_ones_are_translated(who):
    plan = lower(SandboxPolicy.strict(), situation(who))
    assert plan.launcher_opens is (who == "root")
    assert ("open_trees" in names(plan.init_steps)) is (who == "plain")
    assert [owned for _, _, owned in plan.trees] == ([0, 1] if who == "root" else [0, 0])


@pytest.mark.parametrize("who", WHO)
def test_processes_of_the_caller_are_out_of_reach_also_where_the_policy_does_not_ask(who):
    plan = lower(SandboxPolicy.minimal(), situation(who))
    assert bool(plan.landlock[2] & abi.LANDLOCK_SCOPE_SIGNAL) or "pid" in plan.namespaces


def test_no_network_without_a_namespace_closes_abstract_sockets_too():
    policy = SandboxPolicy.basic(mode="none", scope_abstract=False)
    assert lower(policy, situation("bare")).landlock[2] & abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    assert not lower(policy, situation("plain")).landlock[2] & abi.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET


def test_rights_that_the_kernel_lacks_are_not_asked_of_it():
    old = abi.rights(1)[:3]
    plan = lower(SandboxPolicy.strict(), situation("plain", landlock=old))
    assert plan.landlock == (old[0], 0, 0)
    assert "signal" not in {row[1].decode() for row in plan.canaries}
    none = lower(SandboxPolicy.strict(), situation("plain", landlock=(0, 0, 0)))
    assert "restrict" not in names(none.command_steps)
    assert "landlock_ruleset" not in names(none.init_steps)


def test_nested_gives_up_the_files_domain_and_the_masks_and_nothing_else():
    plan = lower(SandboxPolicy.strict(nested=True), situation("plain"))
    init = names(plan.init_steps)
    assert plan.landlock[0] == 0
    assert "forbid_user_namespaces" not in init
    assert {"new_root", "filter_init", "drop_bounding_set"} <= set(init)
    assert "user_namespace" not in {row[1].decode() for row in plan.canaries}


def test_listening_filter_is_the_only_one_and_whole():
    plan = lower(SandboxPolicy.strict(), situation("plain", listening=True))
    assert "filter_init" not in names(plan.init_steps)
    program, flags = arguments(plan.command_steps, "system_call_filter")
    assert flags
    assert len(program) > 0
    assert plan.filters == 1


def test_minimal_has_no_filter_and_says_so():
    plan = lower(SandboxPolicy.minimal(), situation("plain"))
    assert (plan.filters, plan.has_filter) == (0, False)
    assert "system_call_filter" not in names(plan.command_steps)


def test_rlimits_stand_in_for_a_missing_cgroup_and_count_what_runs_already():
    rows = arguments(lower(SandboxPolicy.strict(), situation("plain", cgroup=False)).command_steps, "limits")[0]
    assert (resource.RLIMIT_NPROC, 64 + 8, 64 + 8) in rows
    rows = arguments(lower(SandboxPolicy.strict(), situation("root", cgroup=False)).command_steps, "limits")[0]
    assert (resource.RLIMIT_NPROC, 64, 64) in rows
    rows = arguments(lower(SandboxPolicy.strict(), situation("plain")).command_steps, "limits")[0]
    assert resource.RLIMIT_NPROC not in {row[0] for row in rows}


def test_cores_are_pinned_only_where_no_cgroup_holds_the_limit():
    assert "processor" in names(lower(SandboxPolicy.strict(), situation("plain", cgroup=False)).command_steps)
    assert "processor" not in names(lower(SandboxPolicy.strict(), situation("plain")).command_steps)


def test_limits_of_a_process_are_lowered():
    policy = SandboxPolicy.strict(open_files=33, file_size=4096, cpu_time_s=5)
    rows = arguments(lower(policy, situation("plain")).command_steps, "limits")[0]
    assert {(resource.RLIMIT_NOFILE, 33, 33), (resource.RLIMIT_FSIZE, 4096, 4096), (resource.RLIMIT_CPU, 5, 6)} <= set(
        rows
    )


def test_network_that_this_version_cannot_filter_is_refused():
    policy = SandboxPolicy.basic(mode="allow")
    with pytest.raises(UnsupportedError) as caught:
        lower(policy, situation("root"))
    assert caught.value.control == "egress"


def test_each_denied_and_named_path_has_a_canary():
    policy = SandboxPolicy.strict(deny=(PathRule(path="/usr/share"),), read=(PathRule(path="/opt"),), execute=())
    rows = lower(policy, situation("plain")).canaries
    assert (canary.FINAL, b"denied:0", b"open", b"/usr/share") in rows
    assert (canary.FINAL, b"allowed:0", b"open", b"/opt") in rows


def test_port_canaries_try_ports_that_no_rule_names():
    policy = SandboxPolicy.basic(mode="host", tcp_connect_ports=(1024, 1025), tcp_bind_ports=(8080,))
    rows = lower(policy, situation("plain")).canaries
    assert {row[3:] for row in rows if row[1] == b"connect"} == {(b"127.0.0.1", 1026)}
    assert {row[3:] for row in rows if row[1] == b"bind"} == {(1024,)}
    assert {row[0] for row in rows if row[1] == b"connect"} == {canary.BEFORE_LANDLOCK, canary.AFTER_LANDLOCK}
    paths = arguments(lower(policy, situation("plain")).init_steps, "landlock_ruleset")
    assert paths[4] == (
        (8080, abi.LANDLOCK_ACCESS_NET_BIND_TCP),
        (1024, abi.LANDLOCK_ACCESS_NET_CONNECT_TCP),
        (1025, abi.LANDLOCK_ACCESS_NET_CONNECT_TCP),
    )


@pytest.mark.parametrize("who", ["plain", "bare"])
def test_nothing_but_the_own_places_may_be_written(who):
    plan = lower(SandboxPolicy.strict(), situation(who))
    rules = dict(arguments(plan.init_steps, "landlock_ruleset")[3])
    writable = {path for path, access in rules.items() if access & abi.LANDLOCK_ACCESS_FS_MAKE_REG}
    own = {b"/tmp", b"/dev/shm", b"/workspace"} if who == "plain" else {b"/tmp/kavach-x"}
    assert writable == own
    assert b"/usr" not in writable


def test_sizes_of_the_memory_file_systems_stay_within_half_of_the_memory():
    policy = SandboxPolicy.strict(memory_limit_mb=64)
    inside = situation("plain")._replace(own_workdir=True)
    options = [
        rest[3] for name, _, rest in lower(policy, inside).init_steps if name == b"mount_new" and rest[0] == b"tmpfs"
    ]
    sizes = [int(part[5:]) for one in options for part in one.split(b",") if part.startswith(b"size=")]
    assert len(sizes) == 3
    assert sum(sizes) <= 32 << 20
    assert all(b"nr_inodes=" in one for one in options)
