#!/usr/bin/env bash
# Puts into .whl of the repository root the wheels that the GPU machine (Python 3.12, Linux x86-64, no network) lacks for
# learner.* and services.weights.*. Run once on the CPU machine, in the repository:
#   benchmarks/gpu/carry.sh            PYTHON=... names a Python with pip and torch other than .venv/bin/python
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import torch, setuptools' || { echo "carry.sh: $python lacks torch or setuptools, which DeepSpeed's setup.py imports; run 'make setup', or set PYTHON" >&2; exit 1; }
exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
for name in /.whl/; do grep -qxF "$name" "$exclude" 2>/dev/null || echo "$name" >>"$exclude"; done
rm -rf .whl && mkdir .whl

pin() { sed -n "s/^\($1==[^ ]*\).*/\1/p" requirements/gpu.lock; }
pip() { nice "$python" -m pip --disable-pip-version-check "$@"; }

wanted=()
for name in annotated-types hjson msgspec pydantic pydantic-core redis tomli-w typing-extensions typing-inspection; do
    wanted+=("$(pin "$name")")
done
platforms=()
for tag in 2_28 2_27 2_24 2_17 2014 2_12 2010 1 2_5; do platforms+=(--platform "manylinux${tag/#2_/_2_}_x86_64"); done
pip download -qq --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" -d .whl "${wanted[@]}"

# For comparison alone (--plan learner): Ratchet does not use it.
pip download -qq --no-deps --only-binary=:all: --python-version 3.12 -d .whl liger-kernel==0.8.5

# DeepSpeed is published as a source alone. With no op compiled it builds to a pure wheel; ops are compiled at first use,
# and the learner uses none.
env DS_BUILD_OPS=0 DS_ACCELERATOR=cpu DS_IGNORE_CUDA_DETECTION=1 CUDA_VISIBLE_DEVICES= \
    nice "$python" -m pip --disable-pip-version-check wheel -qq --no-deps --no-build-isolation --no-binary=deepspeed -w .whl "$(pin deepspeed)"

ls -l .whl | awk 'NR > 1 {print $5, $9}'
if ls .whl | grep -vE -- '-(none-any|manylinux[^-]*x86_64)\.whl$' | grep -v none-any; then
    echo "carry.sh: the file above is no wheel for Linux x86-64" >&2; exit 1
fi
[ "$(ls .whl | wc -l)" -eq $((${#wanted[@]} + 2)) ] || { echo "carry.sh: ${#wanted[@]} + 2 wheels were wanted" >&2; exit 1; }
kib=$(du -sk .whl | cut -f1)
echo "total: $kib KiB of at most 61440"
[ "$kib" -lt 61440 ] || { echo "carry.sh: too large to be carried" >&2; exit 1; }
