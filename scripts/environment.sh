# Sourced by demo.sh and test.sh: makes .venv in the checkout and installs what is missing in it.
# Leaves $PYTHON, the interpreter of that environment. Quick when nothing has changed.

fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    for candidate in "${HAMGAN_PYTHON:-}" python3 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# prepare_environment REQUIREMENTS...: the files that must be installed.
prepare_environment() {
    PYTHON="$PWD/.venv/bin/python"
    local stamp file
    for file in "$@"; do
        stamp=".venv/installed-$file"
        if [ ! -x "$PYTHON" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$(cksum "$file" pyproject.toml setup.py)" ]; then
            install_requirements "$file" "$stamp"
        fi
    done
}

install_requirements() {
    local file="$1" stamp="$2" python
    if [ ! -x "$PYTHON" ]; then
        python="$(find_python)" || fail "Python 3.11 or later is needed; none was found. Set HAMGAN_PYTHON to one."
        echo "Making a virtual environment in .venv with $("$python" --version) ..."
        "$python" -m venv .venv || fail "could not make .venv; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    echo "Installing $file into .venv (the first time: some 5 GB and a few minutes) ..."
    if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$file"; then
        fail "installing $file failed; is the network there? Nothing else was changed: run the same command again."
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --editable . ||
        fail "installing hamgan itself failed; the message above says why."
    cksum "$file" pyproject.toml setup.py >"$stamp"
}
