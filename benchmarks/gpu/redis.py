"""`python -m benchmarks.gpu.redis PORT`: the packaged Redis on loopback, for as long as the measurement runs."""

import os
import sys

from gateway.cli.embedded_redis import server_path

if __name__ == "__main__":
    server = str(server_path())
    os.execv(server, [server, "--port", sys.argv[1], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
