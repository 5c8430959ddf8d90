"""`python -m backend [--config cluster.yaml]`: a cluster's models on a local Ray.

It ends on SIGTERM, on SIGINT and at the end of its standard input, which is how it knows that whoever started it is
gone. A second signal does not wait. This process is the guard (`guard.py`) of the one that does the work (`cluster.py`)
and of Ray's: whichever of them is killed, the others go too.
"""

import os
import sys

from backend import guard

# Serve drains its replicas (30 s unless a model says otherwise), and Ray stops its processes.
GRACE_S = 60

if __name__ == "__main__":
    cluster = [sys.executable, "-m", "backend.cluster", *sys.argv[1:]]
    os.execv(sys.executable, guard.command(cluster, grace_s=GRACE_S))  # noqa: S606 - no shell is wanted
