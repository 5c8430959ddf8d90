"""One load generator: `vllm bench serve` as often as it is told to, so that its imports are paid once.

A line of its input is a job, a JSON list of the API key and the arguments; it is answered with a line when it is done.
"""

import json
import os
import sys

# vLLM writes its log where the replies go, from its import on.
REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from vllm.benchmarks.serve import add_cli_args, main  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402


def work() -> None:
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    for line in sys.stdin:
        os.environ["OPENAI_API_KEY"], *arguments = json.loads(line)
        main(parser.parse_args(arguments))
        print("done", file=REPLIES, flush=True)


if __name__ == "__main__":
    work()
