"""What must be installed beside this package, checked before anything is registered."""

import base64
import hashlib
from importlib import metadata

from packaging.requirements import Requirement

PACKAGE = "vllm-gptoss"


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
