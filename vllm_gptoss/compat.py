"""The few seams that vLLM 0.32 has no hook for, and the checks of what it must be.

Each seam says why it is there and when it goes; `tests/test_compat.py` fails once it is needless.
"""

import base64
import functools
import hashlib
from importlib import metadata

from packaging.requirements import Requirement

from vllm_gptoss.plugin import PACKAGE


def pinned_vllm() -> Requirement:
    """The vLLM that the installed package asks for: `pyproject.toml` is the one place of the pin."""
    requirements = map(Requirement, metadata.requires(PACKAGE) or [])
    return next(requirement for requirement in requirements if requirement.name == "vllm")


def check_vllm_version() -> None:
    """Raises: RuntimeError when the vLLM that runs is outside the pin."""
    from vllm import __version__

    needed = pinned_vllm()
    if not needed.specifier.contains(__version__, prereleases=True):
        raise RuntimeError(
            f"{PACKAGE} {metadata.version(PACKAGE)} needs {needed}, found vllm {__version__}. "
            f"Install the vLLM that it names, or set VLLM_PLUGINS='' to serve without {PACKAGE}."
        )


def check_harmony() -> None:
    """Raises: RuntimeError when another package has overwritten the module of oss-harmony.

    `openai-harmony` and `gpt-oss` install the same module `openai_harmony` in a version that downloads
    its vocabulary; installers do not see the conflict.
    """
    try:
        files = metadata.files("oss-harmony") or []
    except metadata.PackageNotFoundError:
        raise RuntimeError(
            "oss-harmony, which vLLM needs for gpt-oss, is not installed: pip install oss-harmony"
        ) from None
    init = next((file for file in files if str(file) == "openai_harmony/__init__.py"), None)
    if init is None or init.hash is None:
        return
    digest = hashlib.new(init.hash.mode, init.locate().read_bytes()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != init.hash.value:
        raise RuntimeError(
            "the module openai_harmony is not that of oss-harmony any more: openai-harmony has overwritten "
            "it. Run: pip uninstall -y openai-harmony && pip install --force-reinstall --no-deps oss-harmony"
        )


def install() -> None:
    """Put the seams in place; a second call changes nothing."""
    _check_models_before_the_engine()
    _end_tokens_of_gpt_oss()


def _check_models_before_the_engine() -> None:
    """vLLM's table of checks by architecture has no registration function.

    Why: a bad checkpoint must be named before the engine's processes start.
    Goes: when `vllm.model_executor.models.config` lets a plugin register an entry.
    """
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_gptoss.model.verify import GptOssVerify

    MODELS_CONFIG_MAP["GptOssForCausalLM"] = GptOssVerify


def _end_tokens_of_gpt_oss() -> None:
    """vLLM learns a model's end tokens from `generation_config.json` alone.

    Why: a checkpoint without that file, or with one that forgets `<|call|>`, runs past the end of a turn.
    Goes: when a model class can state its end tokens.
    """
    from vllm.config import ModelConfig

    from vllm_gptoss.model.config import END_TOKENS

    stock = ModelConfig.try_get_generation_config
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def try_get_generation_config(self: ModelConfig) -> dict:
        config = stock(self)
        if getattr(self.hf_config, "model_type", None) == "gpt_oss":
            found = config.get("eos_token_id")
            found = [] if found is None else [found] if isinstance(found, int) else list(found)
            config["eos_token_id"] = list(dict.fromkeys([*found, *END_TOKENS]))
        return config

    ModelConfig.try_get_generation_config = try_get_generation_config
