# Sourced by demo.sh and test.sh: makes an environment in the checkout and installs what is missing in it.
# Leaves $PYTHON, the interpreter of that environment. Quick when nothing has changed.
ENVIRONMENT=.venv
PYTHONS="python3 python3.13 python3.12 python3.11 python"
CONSTRAINTS=()

fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    for candidate in "${HAMGAN_PYTHON:-}" $PYTHONS; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# floors REQUIREMENTS...: the lowest version that each line of these files allows, as constraints for pip.
floors() {
    sed -nE 's/^([A-Za-z0-9_.-]+)(\[[a-z,]+\])?>=([^,]+).*/\1==\3/p' "$@"
}

# use_lowest_versions REQUIREMENTS...: what is prepared next is an environment of its own at the floors of these files.
use_lowest_versions() {
    ENVIRONMENT=.venv-lowest
    PYTHONS="python3.12 python3.11" # later ones have no wheels of some of these versions
    CONSTRAINTS=(--constraint "$ENVIRONMENT/floors.txt")
    mkdir -p "$ENVIRONMENT"
    floors "$@" >"$ENVIRONMENT/floors.txt"
}

# prepare_environment REQUIREMENTS...: the files that must be installed.
prepare_environment() {
    PYTHON="$PWD/$ENVIRONMENT/bin/python"
    local stamp file
    for file in "$@"; do
        stamp="$ENVIRONMENT/installed-$file"
        if [ ! -x "$PYTHON" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$(cksum "$file" pyproject.toml setup.py)" ]; then
            install_requirements "$file" "$stamp"
        fi
    done
}

install_requirements() {
    local file="$1" stamp="$2" python options=()
    if [ ! -x "$PYTHON" ]; then
        python="$(find_python)" || fail "none of $PYTHONS is Python 3.11 or later. Set HAMGAN_PYTHON to one that is."
        echo "Making a virtual environment in $ENVIRONMENT with $("$python" --version) ..."
        "$python" -m venv "$ENVIRONMENT" || fail "could not make $ENVIRONMENT; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    # What packages of data ask for is not used.
    [ "$file" != requirements-land.txt ] || options=(--no-deps)
    echo "Installing $file into $ENVIRONMENT (the first time: some 5 GB and a few minutes) ..."
    # An empty array counts as unset in bash before 4.4.
    if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check \
        ${CONSTRAINTS[@]+"${CONSTRAINTS[@]}"} ${options[@]+"${options[@]}"} -r "$file"; then
        fail "installing $file failed; is the network there? Nothing else was changed: run the same command again."
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --editable . ||
        fail "installing hamgan itself failed; the message above says why."
    cksum "$file" pyproject.toml setup.py >"$stamp"
}
