"""vLLM's command line with the load format `gptoss_random`.

    python -m benchmarks.serve_random serve FOLDER --load-format gptoss_random

FOLDER needs a configuration and a tokenizer: `random_model.write_folder(folder, sizes, tokenizer=True)`.
"""

from benchmarks import random_model

if __name__ in random_model.MAIN_NAMES:
    random_model.register()

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
