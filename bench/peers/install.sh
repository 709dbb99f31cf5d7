#!/usr/bin/env bash
# Installs the PyTorch peer into bench/peers/.venv (about 6 GB: the Linux wheel of PyTorch brings its CUDA libraries
# even where only the CPU is used). Run once; `npm run bench step` finds it. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")"

"${PYTHON:-python3}" -m venv .venv
.venv/bin/pip install --quiet --upgrade-strategy only-if-needed torch==2.15.0 numpy
.venv/bin/python -c 'import torch; print("installed PyTorch", torch.__version__, "threads", torch.get_num_threads())'
