"""The process around one llama.cpp server. `server.py` starts it by path and talks to it through stdin and stdout.

    stdin    one line of JSON: the settings, key included (arguments would show it to `ps`); then nothing until the end
    stdout   one line of JSON: {"url": …} once the model is loaded, or {"missing": …} / {"failed": …}

Why a process of its own: the server's destructor waits for every request in flight while it holds the interpreter
lock, so that inside the pipeline an interrupted run would hang at exit; and a failed assertion in llama.cpp ends the
whole process.
Promise: it ends at once when stdin closes, hence with its parent, however that one dies. Imports the standard library
and xllamacpp, nothing of this project.
"""

import json
import os
import sys
from typing import Any, TextIO


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever C++ prints from here on must not be taken for a reply
    settings = json.loads(sys.stdin.readline())
    try:
        import xllamacpp
    except ImportError as error:
        _reply(replies, {"missing": str(error)})
        return
    try:
        server = xllamacpp.Server(_parameters(xllamacpp, settings))
    except (RuntimeError, ValueError) as error:
        _reply(replies, {"failed": str(error)})
        return
    _reply(replies, {"url": server.listening_address})
    sys.stdin.read()  # returns when the parent closes its end or dies
    os._exit(0)  # see above: an orderly end would wait for requests that nobody reads any more


def _parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["model"]}  # else answers name the file with its folder
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.ui = False
    params.endpoint_slots = False
    params.n_parallel = 1
    params.n_ctx = settings["context"]
    params.kv_unified = False
    params.ctx_shift = False
    params.fit_params = False  # use the settings unchanged instead of shrinking them to the free memory
    params.cache_ram_mib = 0  # up to 8 GB of old conversations otherwise; each slot keeps its own last prompt anyway
    params.cache_idle_slots = False
    # Its CPU kernel splits long contexts by thread, so that the text would depend on the number of threads; without it,
    # generation is a tenth faster here and reading a prompt a tenth slower.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.verbosity = settings["verbosity"]
    return params


def _reply(replies: TextIO, message: dict[str, str]) -> None:
    print(json.dumps(message), file=replies, flush=True)


if __name__ == "__main__":
    main()
