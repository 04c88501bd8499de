#!/usr/bin/env bash
# All checks: formatting, lint, types and tests. Arguments are passed on to pytest, e.g. scripts/test.sh -k hamburger;
# --long runs the tests that take minutes too. `scripts/test.sh --lowest` runs the tests, and no other checks, in
# .venv-lowest, with the lowest version of every requirement; more arguments may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
requirements=(requirements.txt requirements-sharing.txt requirements-formats.txt requirements-segmentation.txt requirements-land.txt requirements-dev.txt)
lowest=false
if [ "${1:-}" = --lowest ]; then
    lowest=true
    shift
    use_lowest_versions "${requirements[@]}"
fi
prepare_environment "${requirements[@]}"
export OMP_NUM_THREADS=1
if ! $lowest; then
    echo "ruff ..."
    "$PYTHON" -m ruff check .
    "$PYTHON" -m ruff format --check --quiet .
    echo "mypy ..."
    "$PYTHON" -m mypy
fi
echo "pytest ..."
# A file per process at a time, on up to 8 cores; --long in one process, which counts all faults.
processes=(-n logical --maxprocesses 8 --dist loadfile)
[[ " $* " != *" --long "* ]] || processes=()
exec "$PYTHON" -m pytest ${processes[@]+"${processes[@]}"} "$@"
