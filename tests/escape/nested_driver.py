"""Runs in every sandbox but the innermost: makes the next one, in which this runs again or the acts do.

Read as a text by the driver of the corpus and given to `python3 -c`; standard input says what is to be done.
"""

import json
import sys

TOLD = json.load(sys.stdin)
sys.path[:0] = TOLD["path"]

import kavach  # noqa: E402 - found only now


def execute(sandbox, argv, text):
    """Return how a command with this input ended; by a pipe, for memory files may be refused in here."""
    process = sandbox.spawn(argv, timeout_s=240)
    process.stdin.write(text.encode())
    process.close_stdin()
    return process.wait()


def attack():
    """Return the ending of each batch of acts in the innermost sandbox."""
    said = []
    with kavach.Sandbox(policy="strict") as sandbox:
        for text in TOLD["texts"]:
            result = execute(sandbox, [TOLD["python"], "-I", "-S", "-c", TOLD["prelude"]], text)
            said.append([result.reason.value, result.exit_code, result.stdout, result.stderr[-2000:]])
    return json.dumps(said)


def go_deeper():
    """Return what the next sandbox says."""
    policy = kavach.SandboxPolicy.strict(python="caller", execute=TOLD["path"], nested=True, max_pids=None)
    with kavach.Sandbox(policy=policy) as sandbox:
        argv = [sys.executable, "-B", "-c", TOLD["driver"]]
        result = execute(sandbox, argv, json.dumps(TOLD | {"depth": TOLD["depth"] - 1}))
    assert result.exit_code == 0, result.stderr
    return result.stdout


sys.stdout.write(attack() if TOLD["depth"] == 2 else go_deeper())
