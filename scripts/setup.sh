#!/usr/bin/env bash
# Builds .venv for a CPU machine: exact versions, no CUDA, no compiler. Does nothing when .venv is up to date.
#   scripts/setup.sh            PYTHON=/path/to/python3.12 chooses the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/cpu.lock
stamp=.venv/.ready
log=.venv/setup.log
cpu_wheels=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '       %s\n' "${@:2}" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || fail "vLLM's CPU build exists for Linux only; this is $(uname -s)." "Use a Linux machine or container."

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; }
python=
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    if fits "$candidate"; then python=$candidate && break; fi
done
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo "no python3 on PATH")
    fail "needs Python 3.11 to 3.14; found ${PYTHON:+PYTHON=$PYTHON, }$found." \
        "Install one (Debian: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3.11"
fi
if [ -x .venv/bin/python ] && fits .venv/bin/python; then python=.venv/bin/python; fi

# What the environment is made of. The stamp holds it, so a fresh checkout's file times do not matter.
recipe=$({ cat "$lock" pyproject.toml scripts/setup.sh; "$python" --version; uname -m; pwd; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ] && [ -x .venv/bin/python ]; then
    touch "$stamp"
    exit 0
fi
rm -f "$stamp"

if [ "$python" != .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv >/dev/null 2>&1 ||
        fail "'$python -m venv' failed." "On Debian and Ubuntu: apt-get install python3-venv"
    python=.venv/bin/python
fi
: >"$log"

pip() {
    "$python" -m pip --disable-pip-version-check --no-input install \
        --no-deps --no-compile --root-user-action=ignore "$@" >>"$log" 2>&1
}
stop() { fail "$1 failed; the end of $log:" "$(grep -v -i '^warning' "$log" | tail -n 12)"; }
pin() { sed -n "s/^\($1==[^ ]*\).*/\1/p" "$lock"; }

# torch first, and never the CUDA build (several GB): the version's local label asks for the CPU build by name, which
# the default index does not have. It is either at hand (find-links, a mirror) or on PyTorch's index of CPU wheels.
torch=$(pin torch)+cpu
if ! "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch') != '${torch#*==}')" 2>/dev/null; then
    say "installing $torch"
    pip "$torch" || pip --index-url "$cpu_wheels" "$torch" || stop "installing $torch"
fi

# uv takes half a minute for what takes pip several. It does not read pip's configuration: where that is what leads to
# the packages, pip does it.
say "installing $(grep -c '==' "$lock") locked packages (details in $log)"
pip "$(pin uv)" || stop "installing uv"
locked=$(mktemp)
trap 'rm -f "$locked"' EXIT
grep -v '^deepspeed==' "$lock" >"$locked"
UV_HTTP_TIMEOUT=120 .venv/bin/uv pip install --python "$python" --no-deps -r "$locked" >>"$log" 2>&1 ||
    pip -r "$locked" || stop "installing $lock"

# deepspeed comes as source: built with the torch that is already here, and without compiling its ops.
DS_BUILD_OPS=0 pip --no-build-isolation "$(pin deepspeed)" || stop "installing deepspeed"
pip --no-build-isolation -e . || stop "installing ratchet itself"

# The grader `code` runs what a model wrote in a sandbox of bubblewrap. All else does without it.
if ! command -v bwrap >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing bubblewrap, the sandbox of the grader code"
        get() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bubblewrap >>"$log" 2>&1; }
        get || { apt-get update >>"$log" 2>&1 && get; } || say "that failed (see $log); everything but the grader code works"
    else
        say "bubblewrap is not installed, and the grader code needs it (Debian, Ubuntu: apt-get install bubblewrap)"
    fi
fi

echo "$recipe" >"$stamp"
say "ready in ${SECONDS} s"
