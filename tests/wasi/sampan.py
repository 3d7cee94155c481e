"""Lets the runner of github.com/WebAssembly/wasi-testsuite run its tests with `sampan run`.

    SAMPAN=target/debug/sampan python3 SUITE/run-tests \
        --runtime-adapter tests/wasi/sampan.py --expectations tests/wasi/expected.toml

SUITE is a checkout of the suite's branch `prod/testsuite-base`, which has the tests built. What
comes of them is in docs/wasi.md.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

SAMPAN = shlex.split(os.getenv("SAMPAN", "sampan"))

# Addresses of servers that the runner starts for a test.
SERVER = re.compile(r"127\.0\.0\.1:\d+")


def get_name():
    return "sampan"


def get_version():
    run = subprocess.run(SAMPAN + ["--version"], encoding="UTF-8", capture_output=True, check=True)
    return run.stdout.split()[1]


def get_wasi_versions():
    return ["wasm32-wasip1", "wasm32-wasip3"]


def get_wasi_worlds():
    return ["wasi:cli/command", "wasi:http/service"]


def get_timeout_seconds():
    # Compiling a component for the first time is part of it.
    return 30


def compute_argv(test_path, args_env_root, proposals, wasi_world, wasi_version):
    args, env, root = args_env_root
    argv = SAMPAN + ["run", str(test_path)]
    for name, value in env.items():
        argv += ["--env", f"{name}={value}"]
        if "http" in proposals and SERVER.fullmatch(value):
            argv += ["--outbound", f"http://{value}"]
    if root:
        # The runner removes what an earlier test has left there, but for symbolic links.
        for left in Path(root).glob("**/*.cleanup"):
            if left.is_symlink():
                left.unlink()
        argv += ["--dir", f"{root}::/"]
    if wasi_world == "wasi:http/service":
        # The runner looks for the address on standard error.
        return ["sh", "-c", 'exec "$@" >&2', "sh"] + argv + ["--addr", "127.0.0.1:0"]
    return argv + ["--"] + args
