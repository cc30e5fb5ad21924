#!/usr/bin/env bash
# Writes requirements/cpu.lock from what .venv holds, or requirements/gpu.lock by resolving pyproject.toml for GPU hosts.
#   scripts/lock.sh cpu|gpu
# Both hold for every Python that the project claims, by markers. An environment shows only what its own Python needs:
# lines of cpu.lock with a marker stay as they are, and the test at the end says which package has to be added by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
cpu)
    lock=requirements/cpu.lock
    draft=$(mktemp)
    trap 'rm -f "$draft"' EXIT
    marked=$(grep -E '^[^#]*;' "$lock")
    names=$(sed 's/==.*//' <<<"$marked" | paste -s -d '|')
    {
        grep '^#' "$lock"
        {
            # The local label (+cpu) is asked for by setup.sh; a build that was installed from a file goes by its version.
            .venv/bin/python -m pip --disable-pip-version-check list --format=freeze 2>/dev/null |
                grep -v -i -E "^(pip|ratchet|torch|triton|$names)=="
            echo "$marked"
            .venv/bin/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch").partition("+")[0])'
        } | LC_ALL=C sort -f
    } >"$draft"
    cat "$draft" >"$lock"
    ;;
gpu)
    # Resolved without installing or building anything; no hashes and no addresses, so that any mirror serves it.
    hosts="platform_machine == 'x86_64' and sys_platform == 'linux' and platform_python_implementation == 'CPython'"
    newest="python_full_version < '3.13'"
    draft=$(mktemp -d)
    trap 'rm -rf "$draft"' EXIT
    { cat pyproject.toml && printf '\n[tool.uv]\nenvironments = ["%s"]\n' "$newest and $hosts"; } >"$draft/pyproject.toml"
    uv=$PWD/.venv/bin/uv
    # In that folder, because uv takes `environments` from where it is called.
    (cd "$draft" && "$uv" pip compile pyproject.toml --extra gpu --python-version 3.11 --universal --fork-strategy fewest \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet --output-file lock >/dev/null)
    {
        echo '# Everything that a GPU host runs (Linux, x86_64, Python 3.11 or 3.12), exact. Written by `make lock-gpu`; install with'
        echo '#   pip install torch==2.13.0 setuptools wheel'
        echo '#   DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 pip install --no-build-isolation -r requirements/gpu.lock && pip install --no-deps .'
        # A marker says what kind of host this is, on each line, and on some the Python that needs the package.
        sed -E "s/ and (platform_machine|sys_platform|platform_python_implementation|implementation_name) [!=]= '[A-Za-z0-9_]+'//g
            s/ ; $newest\$//; s/'/\"/g" "$draft/lock"
    } >requirements/gpu.lock
    ;;
*)
    echo "usage: scripts/lock.sh cpu|gpu" >&2
    exit 2
    ;;
esac
.venv/bin/python -m pytest -q tests/deploy/test_locks.py
