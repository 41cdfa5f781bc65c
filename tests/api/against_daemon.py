"""A recorder with two simulated cameras, and schemathesis against it: against_daemon.py CORENVR ST SECONDS"""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CORENVR, ST, SECONDS = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


class Local(http.client.HTTPConnection):
    """The control socket: whoever may open it is an administrator."""

    def __init__(self, path):
        super().__init__("recorder")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(path, method, what, body=None):
    connection = Local(path)
    connection.request(method, what, json.dumps(body) if body is not None else None, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {what}: {answer.status} {text!r}")
    return json.loads(text)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def wait(what, limit_s, ready):
    end = time.monotonic() + limit_s
    while True:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {limit_s} s")
        time.sleep(0.2)


def configuration(home, cameras, rtsp, web):
    text = f"""
[server]
state_dir = "{home}/state"
run_dir = "{home}/run"
[rtsp]
listen = ["127.0.0.1:{rtsp}"]
[http]
listen = ["127.0.0.1:{web}"]
[[storage]]
path = "{home}/recordings"
keep_free = "50MiB"
[recording]
segment = "4s"
"""
    # The second one is added over the API, so that it can be changed and removed there.
    return text + f'[[camera]]\nname = "front-door"\nurl = "rtsp://127.0.0.1:{cameras}/cam1"\ntransport = "tcp"\n'


def token(sock, role):
    """An account with a name that no generator hits upon, so that nothing that is asked removes it."""
    name = f"{role}-{secrets.token_hex(8)}"
    ask(sock, "POST", "/api/v1/users", {"name": name, "password": secrets.token_hex(16), "role": role})
    return ask(sock, "POST", f"/api/v1/users/{name}/tokens", {"label": "schemathesis"})["token"]


def examine(who, secret, web, home):
    print(f"-- as {who}", flush=True)
    command = [ST, "run", f"http://127.0.0.1:{web}/api/v1/openapi.json", "--checks", CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "--max-time", SECONDS, "--request-timeout", "40"]
    command += ["--workers", "1", "--generation-database", "none", "--continue-on-failure", "--warnings", "off", "--no-color"]
    command += ["--suppress-health-check", "all"]
    if secret:
        command += ["-H", f"Authorization: Bearer {secret}"]
    # What it keeps between runs goes with the rest.
    return subprocess.run(command, stdin=subprocess.DEVNULL, cwd=home).returncode == 0


def main():
    home = tempfile.mkdtemp(prefix="corenvr-api-")
    cameras, rtsp, web = free_port(), free_port(), free_port()
    config, sock = f"{home}/corenvr.toml", f"{home}/run/corenvr.sock"
    with open(config, "w") as f:
        f.write(configuration(home, cameras, rtsp, web))
    log = open(f"{home}/log", "w")
    run = lambda *args: subprocess.Popen([CORENVR, *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    children = [run("sim", "--cameras", "2", "--listen", f"127.0.0.1:{cameras}")]
    good = False
    try:
        children.append(run("run", "--config", config))
        wait("the recorder answers", 60, lambda: ask(sock, "GET", "/healthz"))
        ask(sock, "POST", "/api/v1/cameras", {"name": "yard", "url": f"rtsp://127.0.0.1:{cameras}/cam2", "transport": "tcp"})
        footage = lambda: ask(sock, "GET", "/api/v1/cameras/front-door/timeline")["spans"]
        wait("footage", 60, footage)
        callers = [("administrator", token(sock, "admin")), ("viewer", token(sock, "viewer")), ("nobody", None)]
        good = all([examine(who, secret, web, home) for who, secret in callers])
        # It has been asked a lot: it records as before, and stops in order.
        begin = footage()[-1]["end"]
        wait("footage goes on", 30, lambda: footage()[-1]["end"] > begin)
        children[1].send_signal(signal.SIGTERM)
        if children[1].wait(60) != 0:
            raise RuntimeError(f"the recorder ended with {children[1].returncode}")
        log.flush()
        with open(f"{home}/log") as f:
            words = f.read()
        if "panicked" in words:
            raise RuntimeError("something inside failed: the log says what")
    except BaseException:
        good = False
        log.flush()
        with open(f"{home}/log") as f:
            print("the recorder's last words:", *f.readlines()[-40:], sep="\n  ", file=sys.stderr)
        raise
    finally:
        for child in children:
            child.kill()
            child.wait()
        if good or "KEEP" not in os.environ:
            shutil.rmtree(home, ignore_errors=True)
    sys.exit(0 if good else 1)


main()
