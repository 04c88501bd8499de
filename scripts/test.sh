#!/usr/bin/env bash
# All checks: formatting, lint, types and tests. Arguments are passed on to pytest, e.g. scripts/test.sh -k hamburger;
# --long kills runs some 400 times instead of a few (see tests/test_faults.py).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment requirements.txt requirements-sharing.txt requirements-formats.txt requirements-dev.txt
export OMP_NUM_THREADS=1
echo "ruff ..."
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
echo "mypy ..."
"$PYTHON" -m mypy
echo "pytest ..."
# A file per process at a time, on up to 8 cores; --long in one process, which counts all faults.
processes=(-n logical --maxprocesses 8 --dist loadfile)
[[ " $* " != *" --long "* ]] || processes=()
exec "$PYTHON" -m pytest ${processes[@]+"${processes[@]}"} "$@"
