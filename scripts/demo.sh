#!/usr/bin/env bash
# The demo: trains a small conditional HamGAN on real photographs, evaluates it and draws a sheet. No arguments needed;
# they are passed on as overrides, e.g. scripts/demo.sh --train.total_kimg 8 --run_dir runs/quick
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment requirements.txt
exec "$PYTHON" scripts/demo.py "$@"
