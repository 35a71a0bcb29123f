"""Runs inside a throw-away machine as its root: withholds one thing after another, and says what Kavach makes of it.

Started by test_withheld_sysctls.py: argv = the folders of packages as JSON, the cases as JSON. A case is a row of
(name, "root" or "plain", what to write where; `umount` takes a mount away). For each one line `FOUND {...}` is printed; a file that this kernel does
not have makes the case `absent`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback

PACKAGES, CASES = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.path[:0] = PACKAGES

import kavach  # noqa: E402 - found only now
import kavach.doctor  # noqa: E402 - as above
import kavach.sandbox  # noqa: E402 - as above: imported once, for every case

PLAIN_ID = 12345
PR_SET_DUMPABLE = 4  # linux/prctl.h
CLONE_NEWNS, MS_PRIVATE, MNT_DETACH = 0x00020000, 0x44000, 2  # linux/sched.h, linux/mount.h (with MS_REC)
MARK = "echo ran > mark; echo ran $KEY"


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def become_plain() -> None:
    os.setgroups([])
    os.setresgid(PLAIN_ID, PLAIN_ID, PLAIN_ID)
    os.setresuid(PLAIN_ID, PLAIN_ID, PLAIN_ID)
    # As a login would leave it: the change of ids alone hides this process's own /proc from itself.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def hide(mount: str) -> None:
    """Take a mount away from this process alone."""
    if mount:
        libc = ctypes.CDLL(None)
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, MS_PRIVATE, None) == 0
        assert libc.umount2(mount.encode(), MNT_DETACH) == 0


def attempt(policy: str, folder: str, **more: object) -> dict[str, object]:
    """Return how one command ended, or the refusal; and whether it left its mark in a folder of the host."""
    workdir = {"workdir": folder, "workdir_rw": True} if folder else {}
    try:
        # The wall is what is looked at: the gate would take the secret out that shows its delivery.
        unread = kavach.ExternalizationPolicy.off()
        result = kavach.run(["sh", "-c", MARK], policy=policy, timeout_s=120, externalization=unread, **workdir, **more)
    except kavach.KavachError as error:
        said = {"error": type(error).__name__, "control": getattr(error, "control", None), "message": str(error)}
    else:
        rows = result.enforcement.rows
        said = {
            "rows": {row.control.value: (row.state.value, row.detail, row.reason) for row in rows if row.asked},
            "score": int(result.score),
            "requested": int(result.requested_score),
            "reason": result.reason.value,
            "stdout": result.stdout,
            "stderr": result.stderr,
            "holes": list(result.enforcement.holes),
        }
    return said | {"marked": bool(folder) and os.path.exists(f"{folder}/mark")}


def look(who: str) -> dict[str, object]:
    """Return what becomes of each preset (of basic with a secret), and what the doctor says."""
    if who == "plain":
        become_plain()
    found: dict[str, object] = {}
    keys = kavach.CredentialProxy()
    keys.register("key", b"secret")
    secrets = {"secrets": [kavach.SecretRef(name="key", inject_via=kavach.EnvVar("KEY"))], "credentials": keys}
    for policy, more in (("strict", {}), ("basic", secrets)):
        # A folder of this machine cannot be shown to root's commands as their own: its file system has no idmaps.
        folder = tempfile.mkdtemp(dir="/tmp") if who == "plain" else ""
        found[policy] = attempt(policy, folder, **more)
    report = kavach.doctor.examine()
    found["doctor"] = [
        {"control": row.control, "available": row.available.value, "cause": row.cause, "fix": row.fix}
        for row in report.rows
    ]
    found["best_wall"] = report.best_wall
    return found


def in_child(who: str, hidden: str) -> dict[str, object]:
    """Return what a forked child finds, so that nothing is remembered from one case to the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            hide(hidden)
            said = look(who)
        except BaseException:  # noqa: BLE001 - reported to the test
            said = {"trouble": traceback.format_exc()}
        with os.fdopen(writer, "w", encoding="utf-8") as file:
            json.dump(said, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text)


def examine(name: str, who: str, changes: dict[str, str]) -> dict[str, object]:
    """Return what is found under these changes, and undo them."""
    hidden, written = changes.get("umount", ""), {path: text for path, text in changes.items() if path != "umount"}
    before = {path: read(path) for path in written if os.path.exists(path)}
    if len(before) < len(written):
        return {"case": name, "who": who, "absent": True}
    try:
        for path, text in written.items():
            write(path, text)
        return {"case": name, "who": who, **in_child(who, hidden)}
    finally:
        for path, text in before.items():
            try:
                write(path, text)
            except OSError:
                continue  # Yama's highest scope cannot be left; it is tried last


def main() -> None:
    for name, who, changes in CASES:
        print("FOUND " + json.dumps(examine(name, who, changes)), flush=True)


main()
