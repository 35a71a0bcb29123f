"""OCI runtime-spec seccomp documents: reading, writing, and the two that the world ships."""

from __future__ import annotations

import json

import pytest

from kavach.errors import ConfigError, PolicyError
from kavach.linux import syscalls
from kavach.policy.seccomp_algebra import CallRule, Compare, SeccompRules
from kavach.policy.seccomp_oci import read_oci, write_oci
from kavach.policy.seccomp_oracle import judge_call
from kavach.policy.seccomp_rules import compile_rules, load_profile

EPERM, ENOSYS = 1, 38


def _ask(rules, call, *args, arch="x86_64"):
    return judge_call(rules, arch, syscalls.numbers(arch)[call], args).errno


def _document(*entries, default="SCMP_ACT_ERRNO", **more):
    return {"defaultAction": default, "syscalls": list(entries), **more}


def _entry(names, action="SCMP_ACT_ALLOW", args=None, **more):
    return {"names": names, "action": action, **({"args": args} if args else {}), **more}


def test_allow_list_is_read():
    rules, notes = read_oci(_document(_entry(["read", "write"]), defaultErrnoRet=38), "x86_64")
    assert [_ask(rules, call) for call in ("read", "write", "openat")] == [0, 0, ENOSYS]
    assert notes == ()


def test_deny_list_is_read():
    rules, _ = read_oci(_document(_entry(["mount"], "SCMP_ACT_ERRNO", errnoRet=13), default="SCMP_ACT_ALLOW"), "x86_64")
    assert [_ask(rules, call) for call in ("mount", "openat")] == [13, 0]


def test_floor_holds_for_documents_too():
    rules, _ = read_oci(_document(default="SCMP_ACT_ALLOW"), "x86_64")
    assert _ask(rules, "io_uring_setup") == ENOSYS
    assert _ask(rules, "prlimit64", 1, 7, 5) == EPERM


def test_refusal_wins_over_an_allow_of_the_same_call():
    args = [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]
    document = _document(_entry(["socket"], "SCMP_ACT_ERRNO", args, errnoRet=22), _entry(["socket"]))
    rules, _ = read_oci(document, "x86_64")
    assert _ask(rules, "socket", 16, 3, 9) == 22
    assert _ask(rules, "socket", 16, 3, 0) == 0


def test_tests_of_one_argument_are_alternatives_as_runc_reads_them():
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    rules, _ = read_oci(_document(_entry(["socket"], args=args)), "x86_64")
    assert [_ask(rules, "socket", family) for family in (0, 1, 2, 3)] == [EPERM, 0, 0, EPERM]


def test_masked_comparison_takes_mask_and_value_in_this_order():
    args = [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    rules, _ = read_oci(_document(_entry(["clone"], args=args)), "x86_64")
    assert _ask(rules, "clone", 17) == 0
    assert _ask(rules, "clone", 0x10000011) == EPERM


@pytest.mark.parametrize(
    ("op", "allowed"), [("EQ", {5}), ("NE", {4, 6}), ("LT", {4}), ("LE", {4, 5}), ("GT", {6}), ("GE", {5, 6})]
)
def test_every_operator_is_read(op, allowed):
    args = [{"index": 0, "value": 5, "op": f"SCMP_CMP_{op}"}]
    rules, _ = read_oci(_document(_entry(["socket"], args=args)), "x86_64")
    assert {family for family in (4, 5, 6) if _ask(rules, "socket", family) == 0} == allowed


def test_high_bits_that_the_kernel_drops_do_not_help():
    args = [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]
    rules, _ = read_oci(_document(_entry(["socket"], args=args)), "x86_64")
    assert _ask(rules, "socket", 40 | 1 << 32) == EPERM


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "TRACE", "NOTIFY"])
def test_other_refusals_become_errnos_and_are_noted(action):
    rules, notes = read_oci(_document(_entry(["mount"], f"SCMP_ACT_{action}"), default="SCMP_ACT_ALLOW"), "x86_64")
    assert _ask(rules, "mount") == EPERM
    assert notes == (f"SCMP_ACT_{action}: refused with an errno instead",)


def test_log_allows_and_is_noted():
    rules, notes = read_oci(_document(_entry(["mount"], "SCMP_ACT_LOG")), "x86_64")
    assert _ask(rules, "mount") == 0
    assert notes == ("SCMP_ACT_LOG: allowed, and not logged",)


def test_calls_of_other_architectures_are_noted():
    rules, notes = read_oci(_document(_entry(["read", "_llseek"])), "x86_64")
    assert _ask(rules, "read") == 0
    assert notes == ("_llseek: not a call of x86_64 or aarch64",)


def test_conditions_are_read_for_a_container_without_capabilities():
    document = _document(
        _entry(["mount"], includes={"caps": ["CAP_SYS_ADMIN"]}),
        _entry(["chroot"], excludes={"caps": ["CAP_SYS_CHROOT"]}),
        _entry(["arch_prctl"], includes={"arches": ["amd64"]}),
        _entry(["ptrace"], includes={"minKernel": "4.8"}),
        _entry(["kcmp"], excludes={"arches": ["amd64"]}),
        _entry(["bpf"], excludes={"minKernel": "5.0"}),
    )
    rules, _ = read_oci(document, "x86_64")
    asked = ("mount", "chroot", "arch_prctl", "ptrace", "kcmp", "bpf")
    assert [_ask(rules, call) for call in asked] == [EPERM, 0, 0, 0, EPERM, EPERM]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "object"),
        ({}, "defaultAction"),
        (_document(default="SCMP_ACT_MAYBE"), "SCMP_ACT_MAYBE"),
        (_document({"names": ["read"]}), "action"),
        (_document(_entry(["read"], args=[{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}])), "9"),
        (_document(_entry(["read"], args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])), "64 bits"),
        (_document(_entry(["read"], args=[{"index": 0, "value": 0, "op": "SCMP_CMP_IS"}])), "SCMP_CMP_IS"),
        (_document(_entry(["read"], wrong=1)), "wrong"),
    ],
)
def test_malformed_document_is_refused(document, message):
    with pytest.raises(ConfigError, match=message):
        read_oci(document, "x86_64")


def test_unknown_architecture_is_refused():
    with pytest.raises(ConfigError, match="riscv64"):
        read_oci(_document(), "riscv64")
    with pytest.raises(ConfigError, match="riscv64"):
        write_oci(load_profile("basic"), "riscv64")


def test_written_document_has_the_form_of_the_specification():
    document, notes = write_oci(load_profile("strict"), "x86_64")
    assert json.loads(json.dumps(document)) == document
    assert set(document) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert document["architectures"] == ["SCMP_ARCH_X86_64"]
    assert (document["defaultAction"], document["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", ENOSYS)
    for entry in document["syscalls"]:
        assert set(entry) <= {"names", "action", "errnoRet", "args"}
        assert entry["names"]
        for arg in entry.get("args", []):
            assert set(arg) <= {"index", "value", "valueTwo", "op"}
    assert any("socket" in note for note in notes)


def test_calls_that_exist_and_are_refused_keep_their_errno_when_written():
    document, _ = write_oci(load_profile("strict"), "aarch64")
    back, _ = read_oci(document, "aarch64")
    assert _ask(back, "ptrace", arch="aarch64") == EPERM
    assert _ask(back, "clone3", arch="aarch64") == ENOSYS


def test_rules_that_need_too_many_entries_are_refused():
    odd = tuple(Compare(arg=at, op="ne", value=0x5555) for at in (0, 1))
    rules = SeccompRules(name="r", default_allow=False, calls=(CallRule(call="socket", clauses=(odd, odd)),))
    with pytest.raises(PolicyError, match="socket: 2048 OCI rules"):
        write_oci(rules, "x86_64")


@pytest.mark.vectors
@pytest.mark.parametrize("file", ["moby-default.json", "containers-common-seccomp.json"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_documents_that_docker_and_podman_ship_are_read(file, arch, vectors):
    rules, notes = read_oci(json.loads((vectors / "seccomp" / file).read_text()), arch)
    for call in ("read", "openat", "execve", "futex", "mmap"):
        assert _ask(rules, call, arch=arch) == 0
    for call in ("bpf", "kexec_load", "init_module", "perf_event_open", "add_key"):
        assert _ask(rules, call, arch=arch) in {EPERM, ENOSYS}, call
    # Podman lets a container mount and make namespaces, Docker does not.
    namespaces = EPERM if file.startswith("moby") else 0
    for call, *args in (("mount",), ("unshare", 0x10000000), ("clone", 0x10000011)):
        assert _ask(rules, call, *args, arch=arch) == namespaces, call
    assert _ask(rules, "clone", 17, arch=arch) == 0
    assert _ask(rules, "clone3", arch=arch) == ENOSYS
    assert _ask(rules, "personality", 0x40000, arch=arch) in {EPERM, ENOSYS}
    assert all(note.endswith("not a call of x86_64 or aarch64") for note in notes)
    assert len(compile_rules(rules, arch)) // 8 < 1000
