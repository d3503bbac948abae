"""Tokens a second and peak memory of vLLM on the rows of engine_speed.py: one line of JSON for every number of sequences and of rows.

  vllm_speed.py                gpt-oss-20b's full shape in bfloat16, random weights, built on the device
  vllm_speed.py --mxfp4        the same with its experts in four bits
  vllm_speed.py --layers 2     a first try

Every `--seqs`, vLLM's max_num_seqs, has a process of its own, so that its memory is its own; vLLM's log goes to stderr. The engine runs in
that process, not in another as is vLLM's default: its weights can be replaced there and its memory read. The rows are run once untimed
(`first_s`), and no prefix is cached, for every round repeats them. A row's length is its max_tokens, so vLLM knows it beforehand, which
engine_speed.py's engines do not. The whole KV cache, `--kv-gib`, is in the peaks.

vLLM's dummy weights lie within 0.001, norms too: a router's bias then outweighs what it reads, and all tokens take the same four experts
of 32. So they are drawn as bench/fabricate.py draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine_speed import make_rows  # which puts the project's root on the path

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
os.environ |= {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_HOST_IP": "127.0.0.1"}  # without the latter it asks the network
os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # greedy needs none, and FlashInfer may not be there


def replace_dummy_weights() -> list[int]:
    """Let vLLM's dummies be drawn as ours; the list returned holds the weights' bytes once a model is loaded."""
    import torch
    from vllm.model_executor.model_loader import dummy_loader

    from bench.fabricate import MXFP4_SCALES, _fill

    weights_bytes: list[int] = []

    def fill(model: torch.nn.Module, *_: Any) -> None:
        if weights_bytes:  # called for the model first, then for every module in it
            return
        parameters = dict(model.named_parameters())
        generator = torch.Generator(next(iter(parameters.values())).device).manual_seed(3407)
        for name, parameter in parameters.items():
            if parameter.dtype == torch.uint8:
                parameter.data.random_(*(MXFP4_SCALES if name.endswith("scale") else (0, 256)), generator=generator)
            else:
                _fill(name, parameter.data, generator)
        weights_bytes.append(sum(parameter.nbytes for parameter in parameters.values()))

    assert hasattr(dummy_loader, "initialize_dummy_weights"), "this vLLM draws its dummy weights elsewhere"
    dummy_loader.initialize_dummy_weights = fill
    return weights_bytes


def load(folder: Path, asked: argparse.Namespace) -> Any:
    from vllm import LLM

    from bench.fabricate import _config, _write_config

    config = _config("gpt-oss-20b")
    config.num_hidden_layers, config.layer_types = asked.layers, config.layer_types[: asked.layers]
    _write_config(config, "mxfp4" if asked.mxfp4 else "bf16", folder)
    return LLM(
        model=str(folder), skip_tokenizer_init=True, load_format="dummy", dtype="bfloat16", generation_config="vllm", max_model_len=1024,
        max_num_seqs=asked.seqs[0], kv_cache_memory_bytes=int(asked.kv_gib * 2**30), enable_prefix_caching=False,
    )  # fmt: skip


def generate(llm: Any, rows: Sequence[Any], lengths: Sequence[int]) -> tuple[float, list[list[int]]]:
    """Seconds that all rows took together, and the tokens of each."""
    import torch
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(row.prompt)} for row in rows]
    sampling = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, detokenize=False) for length in lengths]
    torch.cuda.synchronize()
    started = time.perf_counter()
    made = llm.generate(prompts, sampling, use_tqdm=False)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    tokens = [list(each.outputs[0].token_ids) for each in made]
    assert [len(each) for each in tokens] == list(lengths), "rows are longer or shorter than asked"
    return seconds, tokens


def measure(llm: Any, count: int, weights_bytes: int, asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    rows, lengths = make_rows(count, llm.model_config.get_vocab_size(), 1)
    first_s, first = generate(llm, rows, lengths)
    torch.cuda.reset_peak_memory_stats()
    seconds, runs = zip(*(generate(llm, rows, lengths) for _ in range(asked.rounds)), strict=True)
    limit = asked.seqs[0] * asked.bandwidth * 1e9 / weights_bytes
    return {
        "rows": count,
        "first_s": round(first_s, 1),
        "tokens": sum(lengths),
        "tokens_per_s": [round(sum(lengths) / each, 1) for each in seconds],
        "share_of_bandwidth_limit": round(sum(lengths) / min(seconds) / limit, 3),  # as engine_speed.py has it
        "peak_allocated_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2),
        "distinct_tokens": len(set().union(*first)),  # a handful would say that the weights are degenerate
        "rows_unlike_first_run": [sum(one != other for one, other in zip(run, first, strict=True)) for run in runs],
    }


def measure_all(asked: argparse.Namespace) -> None:
    import torch
    import transformers
    import vllm

    about = {"engine": f"vllm-{asked.seqs[0]}", "model": "mxfp4" if asked.mxfp4 else "bf16", "layers": asked.layers}
    about |= {each.__name__: each.__version__ for each in (torch, transformers, vllm)}
    weights_bytes = replace_dummy_weights()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        llm = load(Path(folder), asked)
        about["load_s"] = round(time.perf_counter() - started, 1)  # imports, weights, compilation and graphs
        about["device"] = torch.cuda.get_device_name()
        for count in asked.rows:
            print(json.dumps(about | measure(llm, count, weights_bytes[0], asked)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mxfp4", action="store_true")
    parser.add_argument("--seqs", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=[96])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--kv-gib", type=float, default=8)
    parser.add_argument("--bandwidth", type=float, default=3350, help="of the card's memory, GB/s; an H100 SXM's by default")
    asked = parser.parse_args()
    if len(asked.seqs) > 1:
        commands = [[sys.executable, *sys.argv, "--seqs", str(each)] for each in asked.seqs]  # the last --seqs counts
        sys.exit(any([subprocess.run(command, check=False).returncode for command in commands]))
    code = 0
    try:
        measure_all(asked)
    except Exception as error:  # what fails is a finding
        traceback.print_exc()
        print(json.dumps({"engine": f"vllm-{asked.seqs[0]}", "failed": f"{type(error).__name__}: {error}"[:500]}), flush=True)
        code = 1
    os._exit(code)  # vLLM's own end takes long, and nothing is left to do


if __name__ == "__main__":
    main()
