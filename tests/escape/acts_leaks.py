"""What of the caller might leak in: environment, descriptors, names, memory, the state of a process."""

from __future__ import annotations

from escape_case import ROOT, Case

CASES = [
    Case(
        "no variable of the caller's environment is there",
        "HELD",
        "escaped(F['canary'] in os.environ or F['secret'] in os.environ.values())",
    ),
    Case(
        "the environment holds only what a sandbox gives",
        "HELD",
        "escaped(set(os.environ) - {'PATH', 'HOME', 'LANG', 'LC_ALL', 'LC_CTYPE', 'TMPDIR', 'TERM', 'USER', 'LOGNAME', 'SHELL', 'PWD', 'TZ', 'HOSTNAME', 'PYTHONDONTWRITEBYTECODE'})",
    ),
    Case("no descriptor of the caller is open", "HELD", "escaped([one for one in FDS if one > 3])"),
    Case(
        "no open descriptor leads to a file of the host",
        "HELD",
        "found = []\nfor one in FDS:\n    try:\n        found.append(os.readlink(f'/proc/self/fd/{one}'))\n    except OSError:\n        pass\nescaped([one for one in found if one.startswith('/') and not one.startswith(('/dev/null', '/proc', '/memfd:kavach-stdin'))])",
    ),
    Case(
        "no descriptor can be asked back from the host by number",
        "HELD",
        "def is_open(one):\n    try:\n        fcntl.fcntl(one, fcntl.F_GETFD)\n        return one in FDS\n    except OSError:\n        return False\nescaped([one for one in range(3, 1024) if is_open(one)])",
    ),
    Case(
        "the working directory is not the caller's",
        "HELD",
        "escaped(os.getcwd() == F['cwd'] or os.getcwd() not in ('/workspace',))",
    ),
    Case(
        "the file mode mask is not the caller's",
        "HELD",
        "if not INSIDE:\n    os.umask(0)\nescaped(os.umask(0o22) == 0)",
    ),
    Case(
        "no terminal is inherited",
        "HELD",
        "found = []\nfor one in (0, 1, 2):\n    found.append(os.isatty(one))\nif not INSIDE:\n    found.append(os.isatty(os.openpty()[1]))\nescaped(any(found))",
    ),
    Case("the host's name is not told", "HELD", "escaped(os.uname().nodename == F['hostname'])"),
    Case(
        "the host's name is not told through /proc",
        "HELD",
        "escaped(read_file('/proc/sys/kernel/hostname').decode().strip() == F['hostname'])",
    ),
    Case("the host's users are not told", "HELD", "escaped(len(open('/etc/passwd').readlines()) > 3)"),
    Case("the host's groups are not told", "HELD", "escaped(len(open('/etc/group').readlines()) > 3)"),
    Case(
        "the temporary folder of the host is not shown",
        "HELD",
        "escaped([one for one in os.listdir('/tmp') if 'kavach' in one or one == os.path.basename(F['system'])] if INSIDE else True)",
    ),
    Case(
        "shared memory of the host is not shown",
        "HELD",
        "escaped(os.path.basename(F['shared']) in os.listdir('/dev/shm'))",
    ),
    Case(
        "messages of the kernel are not told through /proc",
        "HELD|EACCES|EPERM",
        "os.close(os.open('/proc/kmsg', os.O_RDONLY | os.O_NONBLOCK))",
        ROOT,
    ),
    Case(
        "the program's path of the launcher is not told",
        "HELD|ENOENT|EACCES",
        "escaped(read_file('/proc/1/cmdline') if INSIDE else read_file('/proc/self/cmdline'))",
    ),
    Case(
        "a name of the caller is not told by the user's id",
        "HELD",
        "import pwd\nescaped(pwd.getpwuid(os.getuid()).pw_name == F['user'])",
    ),
    Case(
        "statistics of the host's other processes are not told",
        "HELD|ENOENT|EACCES",
        "escaped(read_file(f\"/proc/{F['victim']}/stat\"))",
    ),
    Case(
        "the signals that the caller blocks or ignores are not inherited",
        "HELD",
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\nif not INSIDE:\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])\n    status = dict(line.split(':', 1) for line in open('/proc/self/status'))\nescaped(int(status['SigBlk'], 16))",
    ),
    Case(
        "the default timer slack, dumpability and name of the launcher are not inherited",
        "HELD",
        "escaped(open('/proc/self/comm').read().strip() not in ('python3', 'python3.11', 'python3.12', 'python3.13', 'python3.14') if INSIDE else True)",
    ),
]
