#!/usr/bin/env bash
# Writes requirements/cpu.lock from what .venv holds, or requirements/gpu.lock by resolving pyproject.toml for GPU hosts.
#   scripts/lock.sh cpu|gpu
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
cpu)
    lock=requirements/cpu.lock
    draft=$(mktemp)
    {
        grep '^#' "$lock"
        {
            # The local label (+cpu) is asked for by setup.sh; a build that was installed from a file goes by its version.
            .venv/bin/python -m pip --disable-pip-version-check list --format=freeze 2>/dev/null |
                grep -v -E '^(pip|ratchet|torch|triton|intel-openmp|intel-cmplr-lib-ur|six)=='
            grep -E '^(intel-openmp|intel-cmplr-lib-ur|six)==' "$lock"
            .venv/bin/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch").partition("+")[0])'
        } | LC_ALL=C sort -f
    } >"$draft"
    cat "$draft" >"$lock"
    rm -f "$draft"
    ;;
gpu)
    # Resolved without installing or building anything; no hashes and no addresses, so that any mirror serves it.
    .venv/bin/uv pip compile pyproject.toml --extra gpu --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
        --output-file requirements/gpu.lock.draft
    {
        echo '# Everything that a GPU host runs (Linux, x86_64, Python 3.11), exact. Written by `make lock-gpu`; install with'
        echo '#   pip install torch==2.13.0 && DS_BUILD_OPS=0 pip install --no-build-isolation -r requirements/gpu.lock'
        cat requirements/gpu.lock.draft
    } >requirements/gpu.lock
    rm -f requirements/gpu.lock.draft
    ;;
*)
    echo "usage: scripts/lock.sh cpu|gpu" >&2
    exit 2
    ;;
esac
