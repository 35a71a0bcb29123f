"""Profile files, the built-in profiles, the floor and the options."""

from __future__ import annotations

import os
import tomllib

import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.linux import bpf, seccomp_filter, syscalls
from kavach.policy import seccomp_profile
from kavach.policy.seccomp_oracle import judge_call
from kavach.policy.seccomp_rules import (
    OPTIONS,
    PROFILES,
    apply_options,
    compile_rules,
    intersect,
    load_profile,
    load_profile_file,
)

FOLDER = os.path.join(os.path.dirname(seccomp_profile.__file__), "seccomp_profiles")
ENOSYS = 38
EPERM = 1
NEWUSER = 0x10000000


def _ask(rules, call, *args, arch="x86_64"):
    """Return the errno of a call, 0 where it is allowed."""
    return judge_call(rules, arch, syscalls.numbers(arch)[call], args).errno


def _write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsummary = "s"\n' + text)
    return path


@pytest.fixture(params=PROFILES)
def profile(request):
    return load_profile(request.param)


def test_every_rule_of_every_profile_says_why(profile):
    for rule in profile.calls:
        assert rule.why, rule.call
        assert all(len(why.strip()) > 10 for why in rule.why), rule.call


def test_every_entry_of_the_data_files_says_why_and_names_calls():
    files = [name for name in os.listdir(FOLDER) if name.endswith(".toml")]
    assert sorted(files) == sorted([*[f"{name}.toml" for name in PROFILES], "options.toml"])
    for name in files:
        with open(os.path.join(FOLDER, name), "rb") as file:
            document = tomllib.load(file)
        for table in document.values() if name == "options.toml" else [document]:
            assert table["summary"].strip()
            for entry in [*table.get("allow", []), *table.get("deny", [])]:
                assert entry["why"].strip()
                assert entry["calls"]
                assert len(set(entry["calls"])) == len(entry["calls"]), entry


def test_unknown_profile_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="'stict'.*basic, strict, python, node, shell, wasm, edge"):
        load_profile("stict")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_profile_compiles_for_every_architecture_below_a_fifth_of_the_limit(profile, arch):
    assert len(compile_rules(profile, arch)) // 8 < 820


@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"])
def test_what_no_filter_can_check_does_not_exist(profile, call):
    assert _ask(profile, call) == ENOSYS


def test_namespaces_are_refused_by_every_profile(profile):
    assert _ask(profile, "unshare", NEWUSER) == EPERM
    assert _ask(profile, "setns", 3, 0) == EPERM
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, NEWUSER, 0x20000000, 0x40000000):
        assert _ask(profile, "clone", flag | 17) == EPERM
        assert _ask(profile, "clone", flag | 0x10000 | 0x100) == EPERM


def test_threads_are_allowed_by_every_profile(profile):
    assert _ask(profile, "clone", 0x3D0F00) == 0  # glibc's pthread_create


def test_only_the_wasm_profile_refuses_child_processes(profile):
    assert _ask(profile, "clone", 17) == (EPERM if profile.name == "wasm" else 0)


def test_limits_of_others_and_the_core_limit_cannot_be_set(profile):
    new = 0x7FFF0000
    assert _ask(profile, "prlimit64", 0, 7, new, 0) == 0
    assert _ask(profile, "prlimit64", 1, 7, 0, new) == 0
    assert _ask(profile, "prlimit64", 1, 7, new, 0) == EPERM
    assert _ask(profile, "prlimit64", 0, 4, new, 0) == EPERM
    assert _ask(profile, "prlimit64", 0, 4 | 1 << 32, new, 0) == EPERM
    assert _ask(profile, "prlimit64", 0, 4, 0, new) == 0
    assert _ask(profile, "prlimit64", 0, 4, 1 << 32, 0) == EPERM
    assert _ask(profile, "setrlimit", 4, new) == EPERM
    assert _ask(profile, "setrlimit", 3, new) == 0


@pytest.mark.parametrize("call", ["sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"])
def test_scheduling_of_others_cannot_be_changed(profile, call):
    assert _ask(profile, call, 1) == EPERM
    assert _ask(profile, call, 0) == (EPERM if profile.name == "edge" else 0)


@pytest.mark.parametrize(("call", "process"), [("setpriority", 0), ("ioprio_set", 1)])
def test_priority_of_others_cannot_be_changed(profile, call, process):
    assert _ask(profile, call, process, 0, 5) == (EPERM if profile.name == "edge" else 0)
    assert _ask(profile, call, process, 1, 5) == EPERM
    assert _ask(profile, call, process + 1, 0, 5) == EPERM
    assert _ask(profile, call, process + 2, 0, 5) == EPERM


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x5423, 0x541D])
def test_terminal_injection_is_refused_on_the_low_32_bits(profile, request_number):
    assert _ask(profile, "ioctl", 0, request_number) == EPERM
    assert _ask(profile, "ioctl", 0, request_number | 1 << 32) == EPERM
    assert _ask(profile, "ioctl", 0, 0x5401) == 0
    assert _ask(profile, "ioctl", 0, 0x5401 | 7 << 40) == 0


def test_sockets_beyond_local_ip_and_routing_are_refused(profile):
    inet = EPERM if profile.name == "wasm" else 0
    assert _ask(profile, "socket", 1, 1, 0) == 0
    assert _ask(profile, "socket", 2, 1 | 0o2000000, 6) == inet
    assert _ask(profile, "socket", 10, 2, 17) == inet
    assert _ask(profile, "socket", 16, 3, 0) == inet
    for family, kind, protocol in [
        (16, 3, 9),  # NETLINK_AUDIT
        (16, 3, 12),  # NETLINK_NETFILTER
        (17, 3, 0),  # AF_PACKET
        (40, 1, 0),  # AF_VSOCK
        (38, 5, 0),  # AF_ALG
        (2, 3, 1),  # raw
        (10, 3, 58),
        (2, 10, 0),  # SOCK_PACKET
        (2 | 1 << 32, 3 | 1 << 40, 1),
        (31, 3, 1),  # AF_BLUETOOTH
        (30, 5, 0),  # AF_TIPC
    ]:
        assert _ask(profile, "socket", family, kind, protocol) == EPERM, (family, kind, protocol)
    assert _ask(profile, "socketpair", 1, 1) == 0
    assert _ask(profile, "socketpair", 30, 1) == EPERM


def test_personality_is_only_the_plain_one_and_the_query(profile):
    assert _ask(profile, "personality", 0) == 0
    assert _ask(profile, "personality", 0xFFFFFFFF) == 0
    assert _ask(profile, "personality", 0x40000) == EPERM
    assert _ask(profile, "personality", 0x40000 | 1 << 50) == EPERM


DENIED = """ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd mount umount2 move_mount open_tree fsopen
fsconfig fsmount fspick mount_setattr pivot_root chroot bpf perf_event_open userfaultfd keyctl add_key request_key
kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl syslog
settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname open_by_handle_at name_to_handle_at iopl
ioperm modify_ldt fanotify_init lookup_dcookie nfsservctl move_pages migrate_pages set_mempolicy_home_node vhangup
quotactl_fd open_tree_attr process_madvise""".split()


@pytest.mark.parametrize("call", DENIED)
def test_what_changes_the_machine_or_the_wall_is_refused(profile, call):
    assert _ask(profile, call) in {EPERM, ENOSYS}


def test_basic_allows_what_it_does_not_name_and_strict_refuses_it():
    for call in ("get_mempolicy", "lsm_list_modules", "shmget"):
        assert _ask(load_profile("basic"), call) == 0
        assert _ask(load_profile("strict"), call) == EPERM


def test_calls_that_are_in_no_table_do_not_exist(profile):
    program = compile_rules(profile, "x86_64")
    for number in (400, 471, 999, 0x3FFFFFFF):
        assert bpf.interpret(program, number, syscalls.AUDIT_ARCH_X86_64, ()) == seccomp_filter.REFUSE_UNKNOWN


def test_the_launchers_last_steps_are_allowed(profile):
    for call in "sendmsg recvmsg read write dup2 dup3 chdir close close_range execve exit_group fcntl".split():
        assert _ask(profile, call) == 0, call
    assert _ask(profile, "prctl", 15) == 0


def test_device_nodes_are_refused_by_strict_whatever_the_high_bits():
    strict = load_profile("strict")
    assert _ask(strict, "mknodat", 3, 0, 0o10644) == 0
    assert _ask(strict, "mknodat", 3, 0, 0o10644 | 0xABCD0000) == 0
    for mode in (0o20644, 0o60644, 0o20644 | 1 << 16):
        assert _ask(strict, "mknodat", 3, 0, mode) == EPERM


def test_a_program_may_confine_itself_but_not_take_the_listener():
    strict = load_profile("strict")
    assert _ask(strict, "seccomp", 1, 0) == 0
    assert _ask(strict, "seccomp", 1, 4) == 0
    assert _ask(strict, "seccomp", 1, 8) == EPERM
    assert _ask(strict, "landlock_restrict_self", 3, 0) == 0


def test_profiles_derived_from_strict_differ_where_their_names_say():
    strict, python, node, shell = (load_profile(name) for name in ("strict", "python", "node", "shell"))
    assert _ask(python, "shmget") == 0
    assert _ask(node, "pkey_alloc") == 0
    assert _ask(strict, "pkey_alloc") == ENOSYS
    assert _ask(shell, "ioctl", 3, 0x40045431) == 0
    assert _ask(strict, "ioctl", 3, 0x40045431) == EPERM
    assert _ask(shell, "mprotect", 0, 4096, 7) == EPERM
    assert _ask(strict, "mprotect", 0, 4096, 7) == 0


# --- options


def test_nested_opens_what_an_inner_sandbox_needs_and_keeps_the_floor(profile):
    rules = apply_options(profile, ["nested"])
    assert _ask(rules, "clone", NEWUSER | 17) == 0
    for call in "unshare setns mount umount2 move_mount open_tree fsopen pivot_root mount_setattr".split():
        assert _ask(rules, call) == 0, call
    assert _ask(rules, "sethostname") == 0
    assert _ask(rules, "ioctl", 3, 0x8914) == 0
    assert _ask(rules, "prctl", 24) == 0
    assert _ask(rules, "keyctl", 1) == 0
    assert _ask(rules, "keyctl", 2) == EPERM
    assert _ask(rules, "clone3") == ENOSYS
    assert _ask(rules, "prlimit64", 1, 7, 5) == EPERM
    assert _ask(rules, "ioctl", 0, 0x5412) == EPERM
    assert _ask(rules, "ptrace") == EPERM


def test_devices_open_ioctl_but_not_the_terminal(profile):
    rules = apply_options(profile, ["devices"])
    assert _ask(rules, "ioctl", 3, 0xC0104600) == 0
    assert _ask(rules, "ioctl", 3, 0x5412 | 1 << 32) == EPERM


def test_pin_cpu_refuses_affinity_altogether(profile):
    assert _ask(apply_options(profile, ["pin_cpu"]), "sched_setaffinity", 0) == EPERM


def test_no_memfd_refuses_memory_without_a_name(profile):
    rules = apply_options(profile, ["no_memfd"])
    assert _ask(rules, "memfd_create", 1, 8) == EPERM
    assert _ask(rules, "memfd_secret") in {EPERM, ENOSYS}


def test_no_exec_memfd_allows_only_sealed_memory(profile):
    rules = apply_options(profile, ["no_exec_memfd"])
    sealed = EPERM if profile.name in {"wasm", "edge"} else 0
    assert _ask(rules, "memfd_create", 1, 8 | 1) == sealed
    assert _ask(rules, "memfd_create", 1, 0x10) == EPERM
    assert _ask(rules, "memfd_create", 1, 0x18) == EPERM
    assert _ask(rules, "memfd_create", 1, 1) == EPERM
    assert _ask(rules, "execveat", 3, 0, 0, 0, 0x1000 | 1 << 33) == EPERM
    assert _ask(rules, "execveat", 3, 0, 0, 0, 0x100) == 0


def test_no_network_leaves_local_sockets(profile):
    rules = apply_options(profile, ["no_network"])
    assert _ask(rules, "socket", 1, 1, 0) == 0
    for family in (2, 10, 16, 2 | 1 << 32):
        assert _ask(rules, "socket", family, 2, 0) == EPERM
    assert _ask(rules, "socket", 1 | 1 << 32, 1, 0) == 0
    assert _ask(rules, "socketpair", 2, 1) == EPERM


def test_wx_refuses_memory_that_is_both(profile):
    rules = apply_options(profile, ["wx"])
    for call in ("mmap", "mprotect"):
        assert _ask(rules, call, 0, 4096, 7) == EPERM
        assert _ask(rules, call, 0, 4096, 6) == EPERM
        assert [_ask(rules, call, 0, 4096, prot) for prot in (0, 1, 3, 5)] == [0] * 4


def test_unknown_option_is_refused():
    with pytest.raises(ConfigError, match="'nestd'.*nested"):
        apply_options(load_profile("basic"), ["nestd"])


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_all_options_together_compile(profile, arch):
    assert len(compile_rules(profile, arch, options=OPTIONS)) // 8 < 4096


# --- compile_rules


def test_extra_allow_wins_over_rules_floor_and_notify():
    strict = load_profile("strict")
    program = compile_rules(strict, "x86_64", extra_allow=["mount", "prlimit64"], notify=["mount", "openat"])
    numbers, arch = syscalls.numbers("x86_64"), syscalls.AUDIT_ARCH_X86_64
    assert bpf.interpret(program, numbers["mount"], arch, ()) == seccomp_filter.SECCOMP_RET_ALLOW
    assert bpf.interpret(program, numbers["prlimit64"], arch, (1, 4, 9)) == seccomp_filter.SECCOMP_RET_ALLOW
    assert bpf.interpret(program, numbers["openat"], arch, ()) == seccomp_filter.SECCOMP_RET_USER_NOTIF


def test_log_lets_only_what_no_rule_names_through():
    program = compile_rules(load_profile("strict"), "x86_64", log=True)
    numbers, arch = syscalls.numbers("x86_64"), syscalls.AUDIT_ARCH_X86_64
    assert bpf.interpret(program, numbers["shmget"], arch, ()) == seccomp_filter.SECCOMP_RET_LOG
    assert bpf.interpret(program, numbers["clone"], arch, (NEWUSER,)) == seccomp_filter.SECCOMP_RET_ERRNO | EPERM
    assert bpf.interpret(program, numbers["clone3"], arch, ()) == seccomp_filter.REFUSE_UNKNOWN
    assert bpf.interpret(program, 999, arch, ()) == seccomp_filter.REFUSE_UNKNOWN


@pytest.mark.parametrize("argument", ["extra_allow", "notify"])
def test_misspelt_call_is_refused(argument):
    with pytest.raises(ConfigError, match="opnat"):
        compile_rules(load_profile("strict"), "x86_64", **{argument: ["opnat"]})


def test_unknown_architecture_is_refused():
    with pytest.raises(ConfigError, match="riscv64"):
        compile_rules(load_profile("strict"), "riscv64")


def test_no_filter_ever_kills(profile):
    program = bpf.decode(compile_rules(profile, "x86_64", options=["nested"]))
    actions = {k & 0xFFFF0000 for code, _, _, k in program if code == bpf.RET}
    assert actions <= {seccomp_filter.SECCOMP_RET_ALLOW, seccomp_filter.SECCOMP_RET_ERRNO}


# --- files of the caller


def test_custom_file_is_read_and_gets_the_floor(tmp_path):
    path = _write(tmp_path, 'default = "allow"\n[[deny]]\nwhy = "no such thing here"\ncalls = ["bpf"]\n')
    rules = load_profile_file(path)
    assert rules.name == "mine"
    assert _ask(rules, "bpf") == EPERM
    assert _ask(rules, "mount") == 0
    assert _ask(rules, "io_uring_setup") == ENOSYS
    assert _ask(rules, "prlimit64", 1, 7, 5) == EPERM


def test_floor_cannot_be_opened_by_a_file(tmp_path):
    text = 'extends = "strict"\n[[allow]]\nwhy = "I want it all"\ncalls = ["io_uring_setup", "prlimit64", "ioctl"]\n'
    rules = load_profile_file(_write(tmp_path, text))
    assert _ask(rules, "io_uring_setup") == ENOSYS
    assert _ask(rules, "prlimit64", 1, 7, 5) == EPERM
    assert _ask(rules, "ioctl", 0, 0x5412) == EPERM
    assert _ask(rules, "ioctl", 0, 0x9999) == 0


def test_extending_file_widens_then_narrows(tmp_path):
    text = (
        'extends = "strict"\n'
        '[[deny]]\nwhy = "not on the first of the month"\ncalls = ["shmget"]\n'
        'when = [{ arg = 0, op = "eq", value = -1 }]\n'
        '[[allow]]\nwhy = "shared memory is wanted"\ncalls = ["shmget"]\n'
    )
    rules = load_profile_file(_write(tmp_path, text))
    assert _ask(rules, "shmget", 5) == 0
    assert _ask(rules, "shmget", 0xFFFFFFFF) == EPERM
    assert _ask(rules, "shmget", (1 << 64) - 1) == EPERM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "either `default` or `extends`"),
        ('default = "allow"\nextends = "basic"\n', "either `default` or `extends`"),
        ('extends = "bassic"\n', "no seccomp profile 'bassic'"),
        ('default = "maybe"\n', "maybe"),
        ('default = "deny"\nallowed = []\n', "allowed"),
        ('default = "deny"\n[[allow]]\nwhy = " "\ncalls = ["read"]\n', "`why` is empty"),
        ('default = "deny"\n[[allow]]\ncalls = ["read"]\n', "why"),
        ('default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["opnat"]\n', "did you mean .*openat"),
        ('default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["qqqq"]\n', "no system call 'qqqq'$"),
        (
            'default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["read"]\nwhen = [{arg=3, op="eq", value=1}]\n',
            "3 arg",
        ),
        (
            'default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["read"]\nwhen = [{arg=0, op="is", value=1}]\n',
            "is",
        ),
        (
            'default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="eq", value="AF_X"}]\n',
            "AF_X",
        ),
        (
            'default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="eq", value=4294967296}]\n',
            "fit",
        ),
        (
            'default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="eq", value=-2147483649}]\n',
            "fit",
        ),
        (
            'default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="eq", value=[1]}]\n',
            "one value",
        ),
        ('default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="in", value=1}]\n', "list"),
        (
            'default = "deny"\n[[allow]]\nwhy="w"\ncalls=["read"]\nwhen=[{arg=0, op="eq", value=3, mask=1}]\n',
            "mask",
        ),
        ("default = [\n", "not TOML"),
    ],
)
def test_wrong_file_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_profile_file(_write(tmp_path, text))


def test_error_in_a_file_names_entry_and_file(tmp_path):
    path = _write(
        tmp_path,
        'default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["read"]\n[[deny]]\nwhy = "w"\ncalls = ["no"]\n',
    )
    with pytest.raises(ConfigError) as caught:
        load_profile_file(path)
    assert caught.value.key == "$.deny[0]"
    assert caught.value.source == str(path)


def test_absent_binary_and_huge_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile_file(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile_file("nul\0byte")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load_profile_file(tmp_path / "binary")
    (tmp_path / "huge").write_bytes(b"#" * (seccomp_profile.MAX_PROFILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load_profile_file(tmp_path / "huge")


# --- intersection


def test_intersection_of_strict_and_basic_is_within_both():
    both = intersect(load_profile("strict"), load_profile("basic"))
    assert both.name == "strict&basic"
    assert not both.default_allow
    assert _ask(both, "read") == 0
    assert _ask(both, "shmget") == EPERM
    assert _ask(both, "mount") == EPERM
    assert _ask(both, "clone3") == ENOSYS


def test_intersection_of_disjoint_argument_lists_allows_nothing(tmp_path):
    one = 'default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["socket"]\nwhen = [{arg=0, op="eq", value=%d}]\n'
    first = load_profile_file(_write(tmp_path, one % 1))
    second = load_profile_file(_write(tmp_path, one % 2))
    both = intersect(first, second)
    assert [_ask(both, "socket", family) for family in range(4)] == [EPERM] * 4


def test_rules_that_would_not_fit_a_filter_are_refused(tmp_path):
    values = list(range(800))
    text = f'default = "deny"\n[[allow]]\nwhy = "w"\ncalls = ["ioctl"]\nwhen = [{{arg=1, op="in", value={values}}}]\n'
    with pytest.raises(ConfigError, match="more than 512 alternatives"):
        load_profile_file(_write(tmp_path, text))


def test_entries_that_together_would_not_fit_a_filter_are_refused(tmp_path):
    entry = '[[allow]]\nwhy = "w"\ncalls = ["ioctl"]\nwhen = [{{arg=1, op="in", value={}}}]\n'
    text = 'default = "deny"\n' + entry.format(list(range(400))) + entry.format(list(range(400, 800)))
    with pytest.raises(PolicyError, match="800 alternatives"):
        load_profile_file(_write(tmp_path, text))
