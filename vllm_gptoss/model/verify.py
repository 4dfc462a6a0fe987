"""Refuse what can't be served before the engine takes any memory, with a reason a user can act on."""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from vllm.config import CacheConfig, StructuredOutputsConfig, VllmConfig
from vllm.model_executor.models.config import GptOssForCausalLMConfig

from vllm_gptoss.model.checkpoint import check_checkpoint
from vllm_gptoss.model.config import ConfigError, ModelArgs

READS_SAFETENSORS = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor")


class GptOssVerify(GptOssForCausalLMConfig):
    """Called by vLLM while it builds its configuration, in the process that the user started."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Raises: ConfigError, CheckpointError."""
        GptOssForCausalLMConfig.verify_and_update_config(vllm_config)
        args = ModelArgs.from_hf(vllm_config.model_config.hf_config.to_dict())
        _check_parallel(args, vllm_config.parallel_config.tensor_parallel_size)
        _choose_grammars(vllm_config.structured_outputs_config)
        _keep_turns(vllm_config.cache_config)
        if vllm_config.load_config.load_format in READS_SAFETENSORS:
            folder = _local_folder(vllm_config)
            if folder is not None:
                check_checkpoint(folder, args)


def _choose_grammars(config: StructuredOutputsConfig) -> None:
    """Grammars of a turn name control tokens by their ids, which xgrammar alone has a form for.

    By `auto` vLLM takes guidance or outlines for what xgrammar refuses, and then for each request that follows.
    """
    if config.backend not in ("auto", "xgrammar"):
        raise ConfigError(
            f"structured_outputs_config.backend {config.backend!r} can't hold an answer of gpt-oss to its channels: "
            "leave it out, or set it to 'xgrammar'"
        )
    config.backend = "xgrammar"


def _keep_turns(config: CacheConfig) -> None:
    """What a turn has generated is found when the next one sends it back.

    0, vLLM's default, keeps of sliding layers only what lies before the end of a prompt, and a hit needs all layers.
    """
    if config.prefix_cache_retention_interval == 0:
        config.prefix_cache_retention_interval = None


def _check_parallel(args: ModelArgs, ranks: int) -> None:
    if args.num_heads % ranks:
        raise ConfigError(f"tensor_parallel_size {ranks} does not divide num_attention_heads {args.num_heads}")
    if args.num_kv_heads % ranks and ranks % args.num_kv_heads:
        raise ConfigError(
            f"tensor_parallel_size {ranks} neither divides num_key_value_heads {args.num_kv_heads} nor is a "
            "multiple of it: its heads can't be shared out evenly"
        )
    if args.vocab_size < ranks:
        raise ConfigError(f"tensor_parallel_size {ranks} is larger than vocab_size {args.vocab_size}")


def _local_folder(vllm_config: VllmConfig) -> Path | None:
    """The checkpoint's folder, or None while vLLM still has files to download: then the loader checks."""
    model = vllm_config.model_config.model
    if Path(model).is_dir():
        return Path(model)
    config = try_to_load_from_cache(
        model,
        "config.json",
        revision=vllm_config.model_config.revision,
        cache_dir=vllm_config.load_config.download_dir,
    )
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    return all((folder / name).exists() for name in json.loads(index.read_text())["weight_map"].values())
