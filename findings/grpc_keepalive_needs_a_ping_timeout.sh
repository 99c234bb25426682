#!/usr/bin/env bash
# grpcio 1.85: with keepalive_time_ms and keepalive_timeout_ms of 5 s a peer that is gone is noticed after a minute.
#
# Both options together read as if a connection whose peer answers no ping were given up after ten seconds. But
# the ping has a time limit of its own, grpc.http2.ping_timeout_ms, of a minute, and only when that is set as well
# does the server give the connection up in time. Until then a call of the lost peer, such as a robot that went out
# of the wireless network in mid-stream, holds its worker thread.
#
# Seen: a client that is stopped in mid-stream is noticed 10 s later with all three options, and not within 30 s
# without the third (65 s).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grpcio==1.85.3
cd "$folder"
cat > client.py <<'PY'
import sys
import time

import grpc


def messages():
    yield b"first"
    time.sleep(600)


channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
call = channel.stream_stream("/robot/Talk", lambda b: b, lambda b: b)
for answer in call(messages()):
    print(answer, flush=True)
PY
"$folder/venv/bin/python" - <<'PY'
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

KEEPALIVE = [("grpc.keepalive_time_ms", 5_000), ("grpc.keepalive_timeout_ms", 5_000)]
LIMIT_S = 30.0


def noticed_after(options) -> float | None:
    """Seconds from the stop of a client until its call ends here; None after LIMIT_S."""
    ended = threading.Event()

    def talk(requests, context):
        context.add_callback(ended.set)
        for request in requests:
            yield request

    server = grpc.server(ThreadPoolExecutor(2), options=options)
    handler = grpc.stream_stream_rpc_method_handler(talk)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("robot", {"Talk": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = subprocess.Popen(
        [sys.executable, "client.py", str(port)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout.readline() == "b'first'\n"
    client.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    found = time.monotonic() - begun if ended.wait(LIMIT_S) else None
    client.kill()
    server.stop(0)
    return found


with ThreadPoolExecutor() as pool:
    two, three = pool.map(
        noticed_after, (KEEPALIVE, [*KEEPALIVE, ("grpc.http2.ping_timeout_ms", 5_000)])
    )
print(f"noticed after, s: {two} with two options, {three} with ping_timeout_ms as well")
assert two is None
assert three is not None and 3 < three < 25
PY
