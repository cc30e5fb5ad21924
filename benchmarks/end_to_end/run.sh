#!/usr/bin/env bash
# Ratchet against TRL's GRPO trainer, end to end on this machine, one after the other: `make bench-end-to-end`.
# Prints a table and writes .bench/end_to_end.json. About three minutes on 2 cores; leave the machine alone meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."

stamp=.bench/site/.ready
if ! cmp -s benchmarks/requirements.txt "$stamp"; then
    echo "benchmark: installing $(grep -v '^#' benchmarks/requirements.txt | tr '\n' ' ')into .bench/site"
    rm -rf .bench/site
    .venv/bin/uv pip install --quiet --python .venv/bin/python --target .bench/site --no-deps -r benchmarks/requirements.txt
    cp benchmarks/requirements.txt "$stamp"
fi
exec .venv/bin/python benchmarks/end_to_end/compare.py --site .bench/site --out .bench "$@"
