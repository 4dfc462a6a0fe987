"""A checkpoint without weights: a folder with the configuration alone, and a load format that makes weights up.

`write_folder` writes the folder, `register` teaches vLLM the format `gptoss_random` (`random_loader.py`). A process
that vLLM spawns imports the main module again under the name `__mp_main__`: a launcher that calls `register` under
both names has the format in the engine's processes too, whether they are forked or spawned.
"""

from dataclasses import replace
from pathlib import Path

from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.tiny.hf_config import PUBLISHED, Sizes, generation_config, model_config

LOAD_FORMAT = "gptoss_random"
MAIN_NAMES = ("__main__", "__mp_main__")
"""What a main module is called in its own process, and in those that it spawns."""

SHAPES = PUBLISHED | {
    # To try the harness where there is no GPU.
    "tiny": Sizes(layers=2, hidden=128, intermediate=128, experts=8, heads=4, kv_heads=2, vocab=2048),
}


def sizes_of(shape: str, layers: int | None = None) -> Sizes:
    """The sizes of a shape, of which `layers` may take fewer."""
    return replace(SHAPES[shape], layers=layers or SHAPES[shape].layers)


def args_of(sizes: Sizes) -> ModelArgs:
    """What the model reads from the configuration of these sizes."""
    return ModelArgs.from_hf(model_config(sizes, "mxfp4"))


def write_folder(folder: Path, sizes: Sizes, tokenizer: bool = False) -> None:
    """Write the configuration, and with `tokenizer` the files that a server needs to speak in text.

    Raises: ValueError for a tokenizer that knows more tokens than the vocabulary has rows.
    """
    from vllm_gptoss.tiny.checkpoint import write_json
    from vllm_gptoss.tiny.tokenizer import write_tokenizer

    if tokenizer and not sizes.has_text:
        raise ValueError(f"a vocabulary of {sizes.vocab} is too small for the tokenizer")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", model_config(sizes, "mxfp4"))
    write_json(folder / "generation_config.json", generation_config(sizes))
    if tokenizer:
        write_tokenizer(folder)


def register() -> None:
    """Make `load_format="gptoss_random"` known to vLLM in this process."""
    from vllm.model_executor.model_loader import register_model_loader

    from benchmarks.random_loader import RandomLoader

    register_model_loader(LOAD_FORMAT)(RandomLoader)
