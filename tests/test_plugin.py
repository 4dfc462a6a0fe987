"""What vLLM gets from this package, and how it does without."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import vllm
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.model_executor.models.registry import ModelRegistry
from vllm.platforms import builtin_platform_plugins, current_platform

from vllm_gptoss import installation, plugin

ROOT = Path(__file__).parents[1]


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, timeout=300
    )
    return done.stdout.strip() or done.stderr


def registered() -> list:
    model = ModelRegistry.models["GptOssForCausalLM"]
    return [model.module_name, model.class_name, get_quantization_config("gpt_oss_mxfp4")]


def test_the_registered_classes_are_ours():
    plugin.register()
    module, name, quantization = registered()
    assert (module, name) == ("vllm_gptoss.model.gptoss", "GptOssForCausalLM")
    assert quantization.__module__ == "vllm_gptoss.model.mxfp4"
    assert ModelRegistry.models[name].load_model_cls().__module__ == module
    assert type(current_platform).__module__ == "vllm_gptoss.cpu.platform"


def test_registering_twice_changes_nothing():
    plugin.register()
    before = registered(), vllm.config.ModelConfig.try_get_generation_config
    plugin.register()
    assert (registered(), vllm.config.ModelConfig.try_get_generation_config) == before


def test_vllm_without_the_plugin_is_stock():
    code = (
        "import vllm.plugins; vllm.plugins.load_general_plugins()\n"
        "from vllm.model_executor.models.registry import ModelRegistry\n"
        "from vllm.platforms import current_platform\n"
        "print(ModelRegistry.models['GptOssForCausalLM'].module_name, type(current_platform).__name__)"
    )
    assert python(code, VLLM_PLUGINS="") == "vllm.model_executor.models.gpt_oss UnspecifiedPlatform"
    assert python(code, VLLM_PLUGINS="gptoss") == "vllm_gptoss.model.gptoss CpuPlatform"


def test_importing_the_package_costs_nothing():
    code = "import sys, vllm_gptoss, vllm_gptoss.plugin; print('torch' in sys.modules, 'vllm' in sys.modules)"
    assert python(code) == "False False"


@pytest.mark.parametrize("device", builtin_platform_plugins)
def test_the_platform_stands_down_where_vllm_has_a_device(monkeypatch, device):
    assert plugin.platform() == "vllm_gptoss.cpu.platform.CpuPlatform"
    monkeypatch.setitem(builtin_platform_plugins, device, lambda: f"vllm.platforms.{device}.Platform")
    assert plugin.platform() is None


def test_another_vllm_is_refused_with_the_version_that_is_needed(monkeypatch):
    monkeypatch.setattr(vllm, "__version__", "0.33.1")
    with pytest.raises(RuntimeError, match=r"needs vllm<0\.33,>=0\.32, found vllm 0\.33\.1"):
        plugin.register()


def test_the_pin_that_is_checked_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["vllm>=0.32,<0.33"]
    assert installation.pinned_vllm().specifier == installation.Requirement(project["dependencies"][0]).specifier


def test_an_overwritten_harmony_library_is_named(monkeypatch, tmp_path):
    class Overwritten:
        """The file as oss-harmony recorded it, with another file in its place."""

        def __init__(self, file):
            self.file = file
            self.hash = file.hash

        def __str__(self):
            return str(self.file)

        def locate(self):
            other = tmp_path / "__init__.py"
            other.write_text("# another package's module")
            return other

    files = [Overwritten(file) for file in metadata.files("oss-harmony")]
    monkeypatch.setattr(installation.metadata, "files", lambda name: files)
    with pytest.raises(RuntimeError, match="openai-harmony has overwritten"):
        plugin.register()


def test_a_missing_harmony_library_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation.metadata, "files", missing)
    with pytest.raises(RuntimeError, match="pip install oss-harmony"):
        plugin.register()


def test_constraints_pin_by_name_and_version_alone():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert any(pin.startswith("vllm==0.32.") for pin in pins)
    assert all(pin.count("==") == 1 and "/" not in pin and "@" not in pin for pin in pins)
