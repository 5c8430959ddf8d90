"""The process that is a llama.cpp engine: one model, loaded by xllamacpp, behind the OpenAI protocol on loopback.

`python -m backend.engines._llamacpp_server --model file.gguf --alias name --port 45123 ...` serves until SIGTERM. The
key that every route but `/health` demands is LLMGW_ENGINE_KEY in the environment.

llama.cpp has an HTTP server of its own, which is not used: it looks for a client that has gone only after a second in
which no request at all got a result (`server_response::recv_with_timeout` starts its wait anew on each), so on a busy
server a request that waits, is in prefill or is not streamed runs on to its end. Here the routes (`_llamacpp_http.py`)
call the same llama.cpp in process, where every event can end a request (`_llamacpp_slots.py`).
"""

import argparse
import os
import secrets
from pathlib import Path

from aiohttp import web
from xllamacpp.xllamacpp import CommonParams, Server, llama_pooling_type

from backend.engines._bert_gguf import converted
from backend.engines._llamacpp_http import application
from backend.engines._llamacpp_slots import Slots

# Prompt tokens in one step. A request can be left, and a token of another be made, only between two steps; 64 is some
# 0.3 s of a small model on one core, and no slower in all than llama.cpp's 2048.
STEP_TOKENS = 64
# How long open answers may hold back the end after SIGTERM.
SHUTDOWN_S = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamacpp-server")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file, or the folder of a BERT")
    parser.add_argument("--alias", required=True, help="the model name that answers carry")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens of one sequence, prompt and answer")
    parser.add_argument("--parallel", type=int, required=True, help="sequences served at the same time")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument(
        "--max-answer", type=int, default=-1, help="tokens of an answer that was asked for without bound"
    )
    parser.add_argument("--embeddings", action="store_true")
    return parser.parse_args()


def parameters(args: argparse.Namespace) -> CommonParams:
    params = CommonParams()
    params.model.path = str(converted(args.model) if args.model.is_dir() else args.model)
    params.model_alias = {args.alias}
    params.n_parallel = args.parallel
    params.n_ctx = args.context * args.parallel
    params.n_predict = args.max_answer
    params.ctx_shift = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.n_batch = params.n_ubatch = STEP_TOKENS
    params.endpoint_metrics = True
    # Its own server cannot be switched off: a free loopback port, one thread, and a key that nobody is told.
    params.hostnames, params.port, params.n_threads_http = ["127.0.0.1"], 0, 1
    params.api_keys = [secrets.token_hex(32)]
    params.ui = False
    if args.embeddings:
        params.embedding = True
        params.pooling_type = llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # Mean pooling needs the whole text in one step.
        params.n_batch = params.n_ubatch = args.context
    return params


def main() -> None:
    args = arguments()
    slots = Slots(Server(parameters(args)), args.parallel)
    app = application(args.alias, args.context, os.environ["LLMGW_ENGINE_KEY"], slots, embeddings=args.embeddings)
    web.run_app(
        app,
        host=args.host,
        port=args.port,
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_S,
    )


if __name__ == "__main__":
    main()
