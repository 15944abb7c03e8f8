"""GGUF LoRA adapters, by llama.cpp's own converter, and what the gguf package makes of the one in blocks.

    python tests/golden/gguf_adapters.py LLAMA_CPP

LLAMA_CPP is a checkout of llama.cpp; its `convert_lora_to_gguf.py` writes the files. Rows of queries and keys in
`dequantised.safetensors` are back in the order of transformers, so that its tensors are those of a PEFT adapter.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
OUT = HERE / "gguf" / "lora"
ADAPTERS = [
    ("llama", "alora", "f32"),
    ("llama", "embedding", "f32"),
    ("llama", "head", "f32"),
    ("llama", "layers", "f32"),
    ("llama", "norms", "f32"),
    ("llama_tied", "all-linear", "f32"),
    ("llama_tied", "all-linear", "f16"),
    ("llama_tied", "all-linear", "bf16"),
    ("llama_tied", "all-linear", "q8_0"),
    ("llama_tied", "odd-rank", "f32"),
    ("mistral", "all-linear", "f32"),
    ("phi3", "all-linear", "f32"),
    ("qwen2", "fp16", "f16"),
    ("qwen3", "all-linear", "f32"),
]
NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEADS = {"attn_q": 4, "attn_k": 2}


def convert(llama_cpp: Path) -> None:
    OUT.mkdir(exist_ok=True)
    for base, adapter, kind in ADAPTERS:
        command = [sys.executable, llama_cpp / "convert_lora_to_gguf.py", HERE / base / "adapters" / adapter]
        command += ["--base", HERE / base, "--outtype", kind, "--outfile", OUT / f"{base}-{adapter}-{kind}.gguf"]
        subprocess.run(command, check=True)


def dequantise() -> None:
    import gguf

    tensors = {}
    for tensor in gguf.GGUFReader(OUT / "llama_tied-all-linear-q8_0.gguf").tensors:
        _, layer, part, _, factor = tensor.name.split(".")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if factor == "lora_b" and part in HEADS:
            rows, rank = values.shape
            heads = values.reshape(HEADS[part], rows // HEADS[part] // 2, 2, rank)
            values = heads.swapaxes(1, 2).reshape(rows, rank)
        name = f"base_model.model.model.layers.{layer}.{NAMES[part]}.{factor[:-1]}{factor[-1].upper()}.weight"
        tensors[name] = np.ascontiguousarray(values)
    save_file(tensors, OUT / "dequantised.safetensors")


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
    dequantise()
