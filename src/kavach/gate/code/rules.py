"""Patterns of the techniques in any text, for where nothing can be parsed and to tell where parsing is worth it.

Enforces: a text that only shows code is reported at `info`, whatever the code would do: a listing, a manual or a log
may name `rm -rf`. Only a complete reverse shell is `high`, and what has no honest use in a text is `medium`. Does not:
know whether anything is about to run (`kavach.gate.command` does). May be used by: kavach.gate.code.
"""

from __future__ import annotations

from kavach.gate.code.groups import GROUPS
from kavach.gate.rule import Match, Rule
from kavach.model.verdict import Severity

_AT = r"(?:(?m:^)|[;&|(`\"'$#>:]|\b(?:sudo|exec|then|do|RUN)[ \t])[ \t]{0,8}"
"""Where a command's name can stand: not inside a word, and not in the middle of a sentence."""
_SHELL = r"(?:/[a-z/]{1,16}/)?(?:ba|z|k|da|a|c)?sh\b"
_PATH = r"(?:[~.$]?/|\$\{?[A-Z]|--?[a-zA-Z])"


def _rule(group: str, *choices: str, literals: str, severity: Severity = Severity.INFO, size: int = 256) -> Rule:
    """Return a group's rule; `<at>`, `<shell>` and `<path>` in its choices stand for the expressions above."""
    found = GROUPS[group]
    expression = "|".join(choices).replace("<at>", _AT).replace("<shell>", _SHELL).replace("<path>", _PATH)
    words = tuple(word.encode("latin-1") for word in literals.split())
    accept = _is_code_beside if group == "unicode-obfuscation" else None
    return Rule(group, found.category, severity, found.message, expression, size, words, accept=accept)


def _is_code_beside(match: Match) -> bool:
    """Whether code stands beside an override: text in right-to-left scripts has its own use for it."""
    around = match.before(64) + match.after(64)
    return match.group().startswith(b"\\") or any(sign in around for sign in (b"(", b"{", b";", b"=", b"//", b"#"))


RULES: tuple[Rule, ...] = (
    _rule(
        "shell-exec",
        (
            r"\b(?:os\.(?:system|popen)|subprocess\.get(?:status)?output|shell_exec|passthru|popen|Kernel\.system|"
            r"os\.execute|child_process\.exec(?:Sync)?|child_process['\"]\)\.exec(?:Sync)?|"
            r"Runtime\.getRuntime\(\)\.exec|proc_open)[ \t]?\("
        ),
        r"\bshell[ \t]?=[ \t]?True\b",
        literals=(
            "os.system popen getoutput shell_exec passthru .system os.execute child_process getruntime shell proc_open"
        ),
    ),
    _rule(
        "process-spawn",
        (
            r"\b(?:subprocess\.(?:run|call|Popen|check_call|check_output)|os\.(?:exec[lv]p?e?|spawn[lv]p?e?|"
            r"posix_spawnp?)|pty\.spawn|new ProcessBuilder|exec\.Command(?:Context)?|"
            r"child_process['\"]\)\.(?:spawn|fork|execFile)(?:Sync)?|CreateProcess[AW]?|Process\.Start|"
            r"Command::new|execv[pe]{0,2}|execl[pe]?)[ \t]?\("
        ),
        literals=(
            "subprocess os.exec os.spawn posix_spawn pty.spawn processbuilder exec.command "
            "child_process createprocess process.start command::new exec"
        ),
    ),
    _rule(
        "eval",
        r"(?:^|[^\w.$>])(?:eval|exec)\((?:[^)\n]|\)[^\n])",
        r"\bnew Function\(",
        r"\bInvoke-Expression\b",
        r"\binstance_eval\b",
        r"\b(?:pickle|marshal)\.loads\(",
        r"<at>eval[ \t]{1,8}[\"'$`]",
        literals="eval exec( function( invoke-expression .loads(",
    ),
    _rule(
        "shell-invocation",
        r"<at><shell>[ \t]{1,8}-[a-z]{0,3}[ci]\b",
        r"\b(?i:cmd(?:\.exe)?[ \t]{1,8}/c|(?:powershell|pwsh)(?:\.exe)?[ \t]{1,8}-)",
        literals="sh cmd powershell pwsh",
    ),
    _rule(
        "metacharacters",
        r"\$\{IFS\}",
        r"[;&|][ \t]{0,4}(?:cat|id|whoami|wget|curl|nc|sh|bash)[ \t]{0,2}[$`;&|]",
        r"(?:%3[bB]|%7[cC]|%60|%24%28)[^\s\"'<>]{0,8}(?:cat|id|ls|whoami|wget|curl|sh)\b",
        literals="ifs cat id whoami wget curl nc sh ls",
    ),
    _rule(
        "pipe-to-shell",
        (
            r"[^|\n]\|[ \t]{0,4}(?:sudo[ \t]{1,2}(?:-[A-Za-z]{1,2}[ \t]{1,2})?)?<shell>(?:[ \t]{0,8}(?:$|"
            r"[\n\"'`;&|)])|[ \t]{1,8}-)"
        ),
        r"\|[ \t]{0,4}(?:python[\d.]{0,6}|perl|ruby|node|php)[ \t]{0,8}(?:-[ \t]{0,8})?(?:[\n\"'`;&|)]|$)",
        literals="sh python perl ruby node php",
    ),
    _rule(
        "http-request",
        r"\b(?:requests|httpx)\.(?:post|put|patch)\(",
        r"\burllib\.request\.urlopen\(",
        r"\bXMLHttpRequest\b",
        r"\bhttp\.(?:Post|NewRequest)\(",
        r"\bnavigator\.sendBeacon\(",
        r"\bInvoke-(?:WebRequest|RestMethod)\b",
        (
            r"<at>(?:curl|wget)[ \t][^\n]{0,160}(?:[ \t]-[a-zA-Z]{0,4}[dFT][ \t]|--data|--form|--upload-file|"
            r"--post-(?:data|file)|-X[ \t]?POST)"
        ),
        literals=("requests. httpx. urlopen xmlhttprequest http.post http.newrequest sendbeacon invoke- curl wget"),
    ),
    _rule(
        "dns-exfiltration",
        (
            r"<at>(?:dig|nslookup|host|drill)[ \t][^\n]{0,120}(?:\$\([^\n)]{1,120}\)|`[^\n`]{1,120}`|"
            r"\$\{?\w{1,32}\}?)\.[a-zA-Z0-9$]"
        ),
        literals="dig nslookup host drill",
    ),
    _rule(
        "reverse-shell",
        r"/dev/(?:tcp|udp)/[^\s/]{1,80}/[^\s]{1,16}[ \t]{1,8}(?:2>&1[ \t]{1,8})?0[<>]&\d",
        (
            r"\b(?:nc|ncat|netcat)(?:\.exe|\.traditional|\.openbsd)?\b[^\n|"
            r";]{0,120}[ \t]-[a-z]{0,6}[ec][ \t]{1,8}[\"']?(?:<shell>|(?i:cmd(?:\.exe)?|powershell)\b)"
        ),
        (
            r"\bmkfifo[ \t][^\n]{1,160}\|[^\n]{0,40}sh[ \t]{1,8}-i[^\n]{0,60}\|[ \t]{0,8}(?:nc|ncat|netcat|telnet|"
            r"openssl)\b"
        ),
        (
            r"\bsocat[ \t][^\n]{0,120}(?i:(?:tcp|openssl)[^\n]{1,80}(?:exec|system):|(?:exec|system):"
            r"[^\n]{1,80}(?:tcp|openssl))"
        ),
        literals="/dev/tcp /dev/udp nc mkfifo socat ncat netcat",
        severity=Severity.HIGH,
        size=512,
    ),
    _rule(
        "network-tools",
        (
            r"<at>(?:nc|ncat|netcat|socat|nmap|masscan|telnet|tcpdump|tshark|hydra|sqlmap|nikto)[ \t]{1,8}(?:-|"
            r"[\w.]{1,64}[ \t]{1,8}\d|TCP|UNIX|\d)"
        ),
        r"/dev/(?:tcp|udp)/",
        r"\bsocket\.socket\(",
        r"\bfsockopen\(",
        r"\bSockets\.TCPClient\b",
        r"\bnew Socket\(",
        r"\bnet\.Dial\(",
        literals=(
            "nc ncat netcat socat nmap masscan telnet tcpdump tshark hydra sqlmap nikto /dev/ socket fsockopen net.dial"
        ),
    ),
    _rule(
        "sudo",
        r"<at>(?:sudo|doas|pkexec)[ \t]{1,8}[-\w/]",
        r"<at>su[ \t]{1,8}-",
        r"\bNOPASSWD:",
        r"\bos\.set(?:re|res|e)?uid\(0",
        literals="sudo doas pkexec su nopasswd uid",
    ),
    _rule(
        "permission-change",
        (
            r"<at>chmod[ \t]{1,8}(?:-[a-zA-Z]{1,16}[ \t]{1,8})?(?:0?[0-7]{3,4}|"
            r"[ugoa,]{0,4}[+=-][rwxstX]{1,6})[ \t]"
        ),
        r"<at>(?:chown|chgrp|setfacl|chattr)[ \t]{1,8}[-+\w]",
        r"\bos\.(?:chmod|chown|lchown|fchmod)\(",
        literals="chmod chown chgrp setfacl chattr",
    ),
    _rule(
        "kernel-module",
        r"<at>(?:insmod|modprobe|rmmod|kldload|kextload)[ \t]{1,8}[-\w./]",
        r"\b(?:f?init_module|delete_module)\(",
        literals="insmod modprobe rmmod kldload kextload _module(",
    ),
    _rule(
        "mount",
        r"<at>(?:mount|umount|losetup|pivot_root)[ \t]{1,8}<path>",
        r"\bpivot_root\(",
        r"\bmount\([\"'][^\n\"']{1,80}[\"'],",
        literals="mount losetup pivot",
    ),
    _rule(
        "capabilities",
        r"<at>(?:setcap|capsh|unshare|nsenter)[ \t]{1,8}[-'\"\w/]",
        r"\bcap_(?:setuid|setgid|sys_admin|sys_ptrace|sys_module|dac_override|net_raw)\b",
        r"\bCAP_SYS_(?:ADMIN|PTRACE|MODULE)\b",
        r"--cap-add\b",
        r"docker[ \t]{1,8}run[ \t][^\n]{0,160}--privileged",
        literals="setcap capsh unshare nsenter cap --privileged",
    ),
    _rule(
        "account-change",
        r"<at>(?:useradd|adduser|usermod|userdel|chpasswd|groupadd|gpasswd)(?:[ \t]{1,8}[-\w]|[ \t]{0,8}\n)",
        r">>?[ \t]{0,8}/etc/(?:passwd|shadow|group|sudoers)\b",
        literals="useradd adduser usermod userdel chpasswd groupadd gpasswd /etc/",
    ),
    _rule(
        "persistence",
        (
            r">>?[ \t]{0,8}(?:~|\$HOME|/root|/home/[\w.-]{1,32})?/\.(?:bashrc|bash_profile|profile|zshrc|"
            r"ssh/authorized_keys)\b"
        ),
        r">>?[ \t]{0,8}/etc/(?:cron|rc\.local|profile|systemd|ld\.so\.preload)",
        r"<at>crontab[ \t]{1,8}(?:-[eriu]|-(?m:$)|-[ \t]|[\w/])",
        r"\bLD_PRELOAD=",
        r"<at>systemctl[ \t]{1,8}enable\b",
        literals="bashrc profile zshrc authorized /etc/ crontab preload systemctl",
    ),
    _rule(
        "package-install",
        (
            r"<at>(?:(?:python[\d.]{0,6}[ \t]{1,8}-m[ \t]{1,8})?pip[\d.]{0,6}[ \t]{1,8}install|"
            r"npm[ \t]{1,8}(?:install|i|add)|yarn[ \t]{1,8}add|pnpm[ \t]{1,8}(?:add|install)|gem[ \t]{1,8}install|"
            r"cargo[ \t]{1,8}install|go[ \t]{1,8}install|(?:apt|apt-get|dnf|yum|brew|conda|"
            r"snap)[ \t]{1,8}(?:-y[ \t]{1,8})?install|apk[ \t]{1,8}add|easy_install)[ \t]"
        ),
        literals="install npm yarn pnpm apk",
    ),
    _rule(
        "remote-script",
        (
            r"\b(?:curl|wget)\b[^\n|]{1,200}\|"
            r"[ \t]{0,4}(?:sudo[ \t]{1,2}(?:-[A-Za-z]{1,2}[ \t]{1,2})?)?(?:<shell>|python[\d.]{0,6}|perl|ruby|"
            r"node)\b"
        ),
        (
            r"\b(?:sh|bash|zsh|source|eval|\.)[ \t]{1,8}(?:-c[ \t]{1,8})?[\"']?(?:<\(|\$\(|`)[ \t]{0,2}(?:curl|"
            r"wget)\b"
        ),
        (
            r"(?i:\b(?:iex|invoke-expression)\b[^\n]{0,80}(?:downloadstring|\birm\b|\biwr\b|invoke-webrequest|"
            r"invoke-restmethod))"
        ),
        r"\b(?:exec|eval)\([^\n]{0,80}(?:urlopen|requests\.get)\(",
        literals="curl wget iex invoke-expression urlopen requests.get",
        size=384,
    ),
    _rule(
        "dynamic-import",
        r"\b__import__\(",
        r"\bimportlib\.import_module\(",
        r"\brunpy\.run_(?:path|module)\(",
        r"\bimp\.load_source\(",
        r"\brequire\([ \t]?[a-zA-Z_$][\w$.]{0,64}[ \t]?[)+]",
        r"\bimport\([ \t]?[a-zA-Z_$][\w$.]{0,64}[ \t]?[)+]",
        r"\bdlopen\(",
        literals="import load require( dlopen( runpy",
    ),
    _rule(
        "base64-obfuscation",
        (
            r"\b(?:(?:exec|eval|system)[ \t]?\(|(?:Invoke-Expression|iex|IEX)\b)[^\n]{0,120}(?:b64decode|"
            r"base64_decode|FromBase64String|decode64|atob)[ \t]?\("
        ),
        (
            r"\bbase64[ \t]{1,8}(?:-d|-D|--decode)\b[^\n|]{0,80}\|[ \t]{0,4}(?:sudo[ \t]{1,8})?(?:<shell>|"
            r"python[\d.]{0,6}|perl|ruby)\b"
        ),
        (
            r"(?i:\b(?:powershell|pwsh)(?:\.exe)?\b[^\n]{0,80}[ \t]-e(?:nc|ncodedcommand|"
            r"c)?[ \t]{1,8}[A-Za-z0-9+/=]{40,160})"
        ),
        literals="b64decode base64 frombase64string decode64 atob powershell pwsh",
        severity=Severity.MEDIUM,
        size=384,
    ),
    _rule(
        "unicode-obfuscation",
        r"\xE2\x80[\xAA-\xAE]",
        r"\xE2\x81[\xA6-\xA9]",
        r"(?:\\u00[2-7][0-9a-fA-F]){12}",
        literals="\xe2 \\u00",
    ),
    _rule(
        "hex-obfuscation",
        r"\b(?:exec|eval|system)[ \t]?\([^\n]{0,80}(?:fromhex|unhexlify|hex2bin|rot13|rot_13)",
        r"(?:\\x[0-9a-fA-F]{2}){24}",
        r"\bxxd[ \t]{1,8}-r\b[^\n|]{0,60}\|[ \t]{0,4}<shell>",
        r"(?:chr\(\d{1,3}\)[ \t]?[.+&][ \t]?){8}",
        literals="fromhex unhexlify hex2bin rot13 rot_13 \\x xxd chr(",
        size=384,
    ),
    _rule(
        "shell-obfuscation",
        r"\b(?:cat|curl|wget|bash|sh|nc|rm|echo)\$\{IFS\}",
        r"\$@(?:ba|z)?sh\b",
        r"\b[a-z]'[a-z]'[a-z]{1,8}[ \t]{1,8}[-/]",
        r"\$\(?rev[ \t]{0,8}<<<",
        literals="ifs $@ ' rev",
    ),
    _rule(
        "security-disable",
        (
            r"<at>(?:setenforce[ \t]{1,8}0|ufw[ \t]{1,8}disable|iptables[ \t]{1,8}-F|auditctl[ \t]{1,8}-(?:D|"
            r"e[ \t]{1,8}0)|history[ \t]{1,8}-c|unset[ \t]{1,8}HISTFILE)\b"
        ),
        r"\bHISTFILE=/dev/null",
        (
            r"\b(?:systemctl|service)[ \t]{1,8}(?:stop|disable|mask)[ \t]{1,8}(?:auditd|rsyslog|firewalld|ufw|"
            r"apparmor|falcon-sensor)"
        ),
        r"\brandomize_va_space[ \t]?=[ \t]?0",
        literals="setenforce ufw iptables auditctl history histfile systemctl service randomize",
    ),
    _rule(
        "sensitive-path",
        r"/etc/(?:shadow|gshadow|sudoers|passwd)\b",
        r"\.ssh/(?:id_(?:rsa|dsa|ecdsa|ed25519)(?:(?m:$)|[^\w.]|\.(?:(?m:$)|[^p]))|authorized_keys\b)",
        r"\.aws/credentials\b",
        r"\.kube/config\b",
        r"\.docker/config\.json\b",
        r"/proc/(?:self|\d{1,7})/(?:environ|mem)\b",
        r"/var/run/docker\.sock\b",
        r"\.git-credentials\b",
        r"/run/secrets/kubernetes\.io/",
        literals="/etc/ .ssh/ .aws/ .kube/ .docker/ /proc/ docker.sock .git-credentials /run/secrets",
    ),
    _rule(
        "traversal",
        (
            r"(?i:(?:(?m:^)|[^./\\%])(?:(?:\.\.|%2e%2e|%252e%252e|\.%2e|%2e\.)(?:/|\\|%2f|%5c|%252f)){2,20}"
            r"(?:etc|proc|root|windows|boot|var)\b|(?:(?m:^)|[^./\\])(?:\.\.[/\\]){6,20})"
        ),
        literals=".. %2e",
    ),
    _rule(
        "destructive",
        (
            r"<at>rm[ \t]{1,8}(?:-[a-zA-Z-]{1,24}[ \t]{1,4}){0,3}-?[a-zA-Z-]{0,24}(?:rf|fr|r|R|-recursive|"
            r"-no-preserve-root)\b[ \t]{1,8}[\"']?[-/~$*.\w]"
        ),
        r"<at>dd[ \t][^\n]{0,80}\bof=/dev/(?:[shv]d|nvme|xvd|mmcblk|disk)",
        r"<at>(?:mkfs(?:\.\w+)?|wipefs|shred)[ \t]{1,8}[-\w/]",
        r">[ \t]{0,8}/dev/(?:[shv]d[a-z]|nvme\d)",
        r"\bshutil\.rmtree\(",
        r":\(\)[ \t]?\{[ \t]?:[ \t]?\|[ \t]?:[ \t]?&",
        r"(?i:\bdrop[ \t]{1,8}(?:table|database)[ \t]{1,8}\w)",
        literals="rm dd mkfs wipefs shred /dev/ rmtree :() drop",
    ),
    _rule(
        "weak-hash",
        r"\bhashlib\.(?:md5|sha1|md4)\(",
        r"\bhashlib\.new\([\"'](?:md5|sha1|md4)",
        r"\bMessageDigest\.getInstance\(\"(?:MD5|SHA-?1)\"",
        r"\bcreateHash\([\"'](?:md5|sha1)",
        r"\b(?:DES|DES3|ARC4|RC4)\.new\(",
        r"\bMODE_ECB\b",
        r"\bmd5\.(?:New|Sum)\(",
        r"\bsha1\.(?:New|Sum)\(",
        r"\bCipher\.getInstance\(\"(?:DES|RC4|AES/ECB)",
        r"\bEVP_(?:md5|sha1|rc4|des_\w{1,16})\(",
        literals="md5 sha1 sha-1 md4 des arc4 rc4 ecb",
    ),
    _rule(
        "hard-coded-key",
        r"\b(?:AES|DES3?|Blowfish|ChaCha20)\.new\([ \t]?b?[\"'][^\"'\n]{8,64}[\"']",
        r"\bFernet\([ \t]?b?[\"'][^\"'\n]{20,64}[\"']",
        r"\bhmac\.new\([ \t]?b?[\"'][^\"'\n]{4,64}[\"']",
        r"\bjwt\.encode\([^\n]{1,80},[ \t]?[\"'][^\"'\n]{4,64}[\"']",
        r"\bSecretKeySpec\(\"[^\"\n]{8,64}\"",
        r"\bopenssl[ \t]{1,8}enc\b[^\n]{0,120}[ \t](?:-k|-pass[ \t]{1,8}pass:|-K)[ \t]?[\w]{4,64}",
        literals=".new( fernet( jwt.encode secretkeyspec openssl",
    ),
)
"""One rule a group, named after it."""
