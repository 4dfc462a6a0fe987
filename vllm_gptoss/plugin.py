"""vLLM's entry points: names into its registries, nothing imported before it is needed.

vLLM calls `platform()` while it looks for a device and `register()` in every process that it starts.
An error while an entry point is imported would be logged and passed over, and vLLM would silently serve
its own model; so this module imports nothing of ours at the top, and checks raise inside `register()`.
"""


def register() -> None:
    """Put gpt-oss into vLLM's registries; a second call changes nothing.

    Raises: RuntimeError for another vLLM than the one this package was built for, or for a harmony
    library that another package has written over.
    """
    from vllm.model_executor.layers.quantization import register_quantization_config
    from vllm.model_executor.models.registry import ModelRegistry

    from vllm_gptoss import compat, installation
    from vllm_gptoss.model.mxfp4 import GptOssMxfp4Config

    installation.check_vllm_version()
    installation.check_harmony()
    ModelRegistry.register_model("GptOssForCausalLM", "vllm_gptoss.model.gptoss:GptOssForCausalLM")
    register_quantization_config(GptOssMxfp4Config.get_name())(GptOssMxfp4Config)
    compat.install()


def platform() -> str | None:
    """The platform for a machine with no accelerator; None wherever vLLM has a device of its own."""
    from vllm.platforms import builtin_platform_plugins

    if any(_finds_a_device(probe) for probe in builtin_platform_plugins.values()):
        return None
    return "vllm_gptoss.cpu.platform.CpuPlatform"


def _finds_a_device(probe) -> bool:
    try:
        return probe() is not None
    except Exception:
        # vLLM treats a probe that fails as a device that is not there.
        return False
