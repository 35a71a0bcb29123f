"""Secrets arrive where the references say, and nowhere else: init, launcher, process list, disk and neighbour know none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
VICTIM = """
import glob, json, os, sys, time
import kavach
from kavach.launcher import client

WORD = 'canary-' + 'of-secrets-' + str(os.getpid()) + 'q'
NEEDLE = WORD.encode()


def credentials():
    proxy = kavach.CredentialProxy()
    proxy.register('token', kavach.FromBytes(NEEDLE)) if False else None
    return proxy


def scan(pid):
    '''Return how often the value is in the memory of a process.'''
    hits = 0
    with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', 0) as memory:
        for line in maps:
            where, rights = line.split()[:2]
            if 'r' not in rights or 'vvar' in line or 'vsyscall' in line:
                continue
            first, last = (int(word, 16) for word in where.split('-'))
            try:
                memory.seek(first)
                hits += memory.read(last - first).count(NEEDLE)
            except (OSError, OverflowError, ValueError):
                continue
    return hits


def lists():
    '''Return the processes whose arguments or environment hold the value.'''
    found = []
    for path in glob.glob('/proc/[0-9]*'):
        for part in ('cmdline', 'environ'):
            try:
                with open(f'{path}/{part}', 'rb') as file:
                    if NEEDLE in file.read():
                        found.append((int(path[6:]), part))
            except OSError:
                continue
    return found
"""


def run(code):
    argv = [sys.executable, "-B", "-c", VICTIM + textwrap.dedent(code)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
