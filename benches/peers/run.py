#!/usr/bin/env python3
"""Sampan beside other programs that answer the same line, in interleaved rounds on this machine.

    python3 benches/peers/run.py [--rounds 5] [--seconds 2] [--connections 1,32] [--json FILE]

It needs `wrk` and a `sampan` (--sampan PATH, or target/dist/sampan or target/release/sampan). Of the
peers it measures those that are installed, and names the others:

  bare hyper         benches/peers/hyper, which it builds with cargo
  nginx -> hyper     `nginx`, one worker a processor, kept connections to the server behind it
  crun, static       `crun` (as root): the same server, linked statically, in a container with the host's
                     network; what Docker would start, without Docker
  wasmtime serve     `wasmtime`, or the path in WASMTIME
  spin               `spin`, or the path in SPIN

Two things are measured in each round: the time from the start of a program to its first answer, and
requests in a second with their latency. wrk asks again as soon as it has an answer, so latencies are
those at full load and say nothing of a load that is far from it. CPU is that of the server's whole
tree of processes, the kernel's part included; that of nginx is without the server behind it. Everything
listens on loopback, and ends with this script.
"""

import argparse, contextlib, json, os, pathlib, platform, shutil, signal, socket, statistics
import subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "benches" / "peers"
PATIENCE = 30.0
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def answers(port):
    """Whether a request is answered with the line."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as it:
            it.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            said = b""
            while piece := it.recv(4096):
                said += piece
            return said.startswith(b"HTTP/1.1 200") and b"Hello from Sampan!" in said
    except OSError:
        return False


def tree(pid):
    """The processes that a process has started, and itself."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
                found += [int(it) for it in (task / "children").read_text().split()]
    return found


def cpu(pid):
    """CPU time in seconds that a process and those that it has started have used."""
    used = 0
    for it in tree(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{it}/stat").read_text().rsplit(")", 1)[1].split()
            used += int(fields[11]) + int(fields[12])
    return used / TICK


def memory(pid):
    """Resident bytes of the same."""
    pages = 0
    for it in tree(pid):
        with contextlib.suppress(OSError):
            pages += int(pathlib.Path(f"/proc/{it}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Subject:
    """A way to answer: `command(port, directory)` is what is started."""

    def __init__(self, name, command, behind=None):
        self.name, self.command, self.behind = name, command, behind
        self.rounds = []

    @contextlib.contextmanager
    def running(self):
        """Starts it, and yields its port, its process and how long its first answer took."""
        with contextlib.ExitStack() as stack:
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            behind = None
            if self.behind:
                behind, *_ = stack.enter_context(self.behind.running())
            port = free_port()
            command = self.command(port, directory, behind)
            log = stack.enter_context(open(directory / "log", "wb"))
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                while not answers(port):
                    if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                        said = (directory / "log").read_text(errors="replace").strip()
                        said = said.partition("Stack backtrace")[0][-600:] or "it says nothing"
                        raise RuntimeError(f"it does not answer: {said}")
                yield port, process.pid, time.perf_counter() - start
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    for it in tree(process.pid):
                        with contextlib.suppress(OSError):
                            os.kill(it, signal.SIGKILL)
                    process.wait()

    def round(self, seconds, connections):
        with self.running() as (port, pid, start):
            told = {"start_ms": start * 1e3, "memory_bytes": memory(pid)}
            for count in connections:
                wrk(port, count, 0.3)
                before = cpu(pid)
                figures = wrk(port, count, seconds)
                used = cpu(pid) - before
                figures["cpu_us"] = used / max(figures["requests"], 1) * 1e6
                told[str(count)] = figures
            self.rounds.append(told)


def wrk(port, connections, seconds):
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency",
         f"http://127.0.0.1:{port}/"],
        check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    words = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) == 2}
    requests = next(line for line in said.splitlines() if " requests in " in line).split()[0]
    units = {"us": 1.0, "ms": 1e3, "s": 1e6}

    def micros(text):
        unit = text.lstrip("0123456789.")
        return float(text[: len(text) - len(unit)]) * units[unit]

    return {
        "requests": int(requests),
        "per_second": float(words["Requests/sec:"]),
        "p50_us": micros(words["50%"]),
        "p99_us": micros(words["99%"]),
    }


def hyper():
    """Builds the server, linked statically."""
    target = ROOT / "target" / "peers"
    triple = f"{platform.machine()}-unknown-linux-gnu"
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--target", triple,
         "--manifest-path", HERE / "hyper" / "Cargo.toml", "--target-dir", target],
        check=True, env=os.environ | {"RUSTFLAGS": "-C target-feature=+crt-static"})
    return target / triple / "release" / "peer-hyper"


def nginx(program):
    def command(port, directory, behind):
        (directory / "nginx.conf").write_text(f"""
            daemon off; worker_processes {len(os.sched_getaffinity(0))}; pid {directory}/pid;
            error_log {directory}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off;
                client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
                fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;
                scgi_temp_path {directory}/s;
                upstream behind {{ server 127.0.0.1:{behind}; keepalive 256; }}
                server {{
                    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000000;
                    location / {{
                        proxy_pass http://behind; proxy_http_version 1.1;
                        proxy_set_header Connection "";
                    }}
                }}
            }}""")
        return [program, "-p", directory, "-c", directory / "nginx.conf"]
    return command


def crun(program, server):
    def command(port, directory, _):
        bundle = directory / "bundle"
        for place in ("dev", "proc"):
            (bundle / "rootfs" / place).mkdir(parents=True)
        shutil.copy(server, bundle / "rootfs" / "server")
        kinds = ["pid", "ipc", "uts", "mount"]
        (bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/server", str(port)], "cwd": "/", "user": {"uid": 0, "gid": 0},
                "env": [], "noNewPrivileges": True,
            },
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": it} for it in kinds]},
        }))
        name = f"sampan-peer-{os.getpid()}-{port}"
        run = [program, "--cgroup-manager=disabled", f"--root={directory}/state", "run",
               "--bundle", bundle, name]
        # crun refuses a machine that has both versions of control groups, of which it would use none:
        # it does not see the second one.
        both = pathlib.Path("/sys/fs/cgroup/unified")
        if both.is_dir() and shutil.which("unshare"):
            run = ["unshare", "--mount", "sh", "-c", f'umount {both} && exec "$@"', "sh", *run]
        return run
    return command


def spin(program, component):
    def command(port, directory, _):
        (directory / "spin.toml").write_text(f"""spin_manifest_version = 2
[application]
name = "hello"
version = "0.1.0"
[[trigger.http]]
route = "/..."
component = "hello"
[component.hello]
source = "{component}"
""")
        return [program, "up", "-f", directory / "spin.toml", "--listen", f"127.0.0.1:{port}",
                "--state-dir", directory, "--quiet"]
    return command


def found(name):
    """The program with this name, unless a variable names another."""
    return shutil.which(os.environ.get(name.upper(), name))


def is_webassembly(spin):
    """Whether a `spin` is the one that serves components."""
    said = subprocess.run([spin, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "up" in said.stdout.split() and "trigger" in said.stdout.lower()


def subjects(sampan):
    """All that can be measured here, and why the others cannot."""
    guest = {it: ROOT / "workloads" / "dist" / f"{it}.wasm" for it in ("hello", "hello-p3")}
    all_of_it, missing = [], []

    def ours(component, isolation):
        return lambda port, *_: [sampan, "run", guest[component], "--addr", f"127.0.0.1:{port}",
                                 "--isolation", isolation, "--replicas", "2"]

    for label, component in (("0.2", "hello"), ("0.3", "hello-p3")):
        for isolation in ("request", "pod"):
            all_of_it.append(Subject(f"Sampan, {label}, {isolation}", ours(component, isolation)))
    server = None
    if shutil.which("cargo"):
        server = hyper()
        bare = Subject("bare hyper", lambda port, *_: [server, str(port)])
        all_of_it.insert(0, bare)
        if program := found("nginx"):
            all_of_it.append(Subject("nginx -> hyper", nginx(program), behind=bare))
        else:
            missing.append("nginx is not installed")
        if (program := found("crun")) and os.geteuid() == 0:
            all_of_it.append(Subject("crun, static hyper", crun(program, server)))
        else:
            missing.append("crun is not installed" if not program else "crun needs root")
    else:
        missing.append("bare hyper, nginx and crun need cargo, which builds the server")
    if program := found("wasmtime"):
        for label, component in (("0.2", "hello"), ("0.3", "hello-p3")):
            all_of_it.append(Subject(f"wasmtime serve, {label}", lambda port, *_, it=component, program=program: [
                program, "serve", "-Scli", "--addr", f"127.0.0.1:{port}", guest[it]]))
    else:
        missing.append("wasmtime is not installed, and WASMTIME names none")
    # Debian has another program of that name, which checks models.
    if (program := found("spin")) and is_webassembly(program):
        all_of_it.append(Subject("spin, 0.2", spin(program, guest["hello"])))
    else:
        missing.append("spin is not installed, and SPIN names none")
    return all_of_it, missing


def text(all_of_it, connections):
    """Tables of Markdown, for benches/README.md, that a terminal shows as well."""
    def median(subject, figure):
        return statistics.median(figure(it) for it in subject.rounds)

    def row(name, *cells):
        return f"| {name:24} | " + " | ".join(f"{it:>9}" for it in cells) + " |"

    def rule(columns):
        return f"|{'-' * 26}|" + f"{'-' * 11}|" * columns

    rounds = max((len(it.rounds) for it in all_of_it), default=0)
    lines = [f"{machine()}\nwrk -t1, medians of {rounds} interleaved rounds\n",
             row("", "start", "memory"), rule(2)]
    for subject in all_of_it:
        start = median(subject, lambda it: it["start_ms"])
        held = median(subject, lambda it: it["memory_bytes"]) / (1 << 20)
        lines.append(row(subject.name, f"{start:.1f} ms", f"{held:.1f} MiB"))
    for count in map(str, connections):
        lines += ["", row(f"c = {count}", "req/s", "× first", "CPU", "p50", "p99"), rule(5)]
        first = median(all_of_it[0], lambda it: it[count]["per_second"])
        for subject in all_of_it:
            rate, used, p50, p99 = (
                median(subject, lambda it, key=key: it[count][key])
                for key in ("per_second", "cpu_us", "p50_us", "p99_us"))
            lines.append(row(subject.name, f"{rate:,.0f}", f"{rate / first:.2f}",
                             f"{used:.1f} µs", f"{p50:.0f} µs", f"{p99:.0f} µs"))
    return "\n".join(lines)


def machine():
    """The machine, as Linux names it, and the day."""
    cpus = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((it.partition(":")[2].strip() for it in cpus if it.startswith("model name")),
                 platform.machine())
    count = len(os.sched_getaffinity(0))
    return f"{count} × {model}, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampan", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", default="1,32")
    parser.add_argument("--json", type=pathlib.Path)
    asked = parser.parse_args()
    connections = [int(it) for it in asked.connections.split(",")]
    if not shutil.which("wrk"):
        sys.exit("error: `wrk` is not installed")
    built = [ROOT / "target" / it / "sampan" for it in ("dist", "release")]
    sampan = asked.sampan or next((it for it in built if it.exists()), None)
    if not sampan:
        sys.exit("error: there is no target/dist/sampan: build one, or name one with --sampan")
    all_of_it, missing = subjects(sampan.resolve())
    for reason in missing:
        print(f"left out: {reason}", file=sys.stderr)
    for number in range(asked.rounds):
        for subject in list(all_of_it):
            print(f"\rround {number + 1} of {asked.rounds}: {subject.name:24}", end="",
                  file=sys.stderr, flush=True)
            try:
                subject.round(asked.seconds, connections)
            except (RuntimeError, subprocess.SubprocessError, OSError) as error:
                print(f"\nleft out: {subject.name}: {error}", file=sys.stderr)
                missing.append(f"{subject.name}: {error}")
                all_of_it.remove(subject)
    print(file=sys.stderr)
    print(text(all_of_it, connections))
    if asked.json:
        told = {it.name: it.rounds for it in all_of_it}
        asked.json.write_text(json.dumps(
            {"machine": machine(), "left_out": missing, "subjects": told}, indent=1))


if __name__ == "__main__":
    main()
