"""Writers that are killed while they append: `driver LOG ACKS SEED`; run as a program of its own.

Eight forks append to one log. After each `append` that returned, the fork notes serial and MAC in a file of its own. At
every line on standard input some of them are killed with SIGKILL at a random instant and others take their place; at its
end the remaining ones are ended, also by SIGKILL.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from kavach.audit.log import AuditLog
from kavach.errors import KavachError

KEY = b"k" * 32
WRITERS = 8
ROTATE_BYTES = 200_000


def write_until_killed(path: str, acknowledged: str, number: int) -> None:
    file = os.open(f"{acknowledged}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with AuditLog(path, key=KEY, rotate_bytes=ROTATE_BYTES) as log:
        # Lines of very different lengths: what crosses a page can be torn.
        for count in range(1_000_000):
            done = log.append("exec.outcome", sandbox_id=f"sb-{number}", payload={"x": "y" * (count * 997 % 12_000)})
            os.write(file, f"{done.serial} {done.mac}\n".encode())


def start(path: str, acknowledged: str, number: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(path, acknowledged, number)
        except KavachError as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    return child


def kill(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            os.write(1, b"a writer ended by itself\n")


def main() -> None:
    path, acknowledged, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    writers = [start(path, acknowledged, number) for number in range(WRITERS)]
    for _ in sys.stdin:
        time.sleep(chance.uniform(0.001, 0.03))
        victims = chance.sample(range(WRITERS), chance.choice((1, 1, 2, WRITERS)))
        kill([writers[one] for one in victims])
        for one in victims:
            writers[one] = start(path, acknowledged, one)
        os.write(1, b"killed\n")
    kill(writers)


if __name__ == "__main__":
    main()
