#!/usr/bin/env bash
# The whole job, from nothing to tables and figures.
#
#   bash run_all.sh            train the full table (a CUDA device), then write paper/: index.html, tables, figures
#   bash run_all.sh --quick    the same job on embedded data, in minutes, a run a core (or JOBS=1); into results-quick/
#   bash run_all.sh --test     the whole test suite, linter and type checker
#   bash run_all.sh --plan     how many runs are missing and about how long they take here; trains nothing
#   bash run_all.sh --cpu      the full table although there is no CUDA device
#
# JOBS=4 trains four runs at once, on as many GPUs as there are (python -m harness.sweep --help has other studies)
# SEEDS_AT_ONCE=5 trains five seeds of a cell as one, for small models on a GPU that waits for its host
# narrowed by:  SEEDS="0 1"  VARIANTS="compact vanilla"  DATASETS="c10"  RECIPES="published common"  EPOCHS=20
# places:       DATA_DIR=data  OUT=results/runs  (what is done there is not trained again)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,13p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }
fail() { printf '%s\n' "$*" >&2; exit 2; }
refuse() { fail "run_all.sh: unknown option $(printf '%.80q' "$1"); see bash run_all.sh --help"; }

# Whether Python $1 has the modules that follow; imports nothing large.
has() {
  "$1" - "${@:2}" 2>/dev/null <<'PY'
import sys
from importlib.metadata import version
from importlib.util import find_spec
sys.exit(not all(map(find_spec, sys.argv[1:])) or tuple(map(int, version("torch").split(".")[:2])) < (2, 11))
PY
}

# Chooses the Python: .venv if it is there, else the active one if it has everything, else a new .venv.
set_up() {
  local needed=(torch torchvision timm numpy scipy sklearn PIL tabulate matplotlib tqdm filelock safetensors) extra="."
  if [[ $1 == test ]]; then
    needed+=(fvcore torchinfo pynvml pytest xdist ruff pyright hypothesis tensorboard wandb comet_ml onnx onnxruntime)
    needed+=(nbclient ipykernel playwright)
    extra=".[test]"
  fi
  if [[ ! -e .venv/bin/python ]]; then
    for PYTHON in python python3; do
      if has "$PYTHON" "${needed[@]}"; then return; fi
    done
    echo "setting up .venv (once; PyTorch is a download of some gigabytes) ..."
    python3 -m venv .venv || fail "python3 -m venv failed: Python 3.10 or newer with venv is needed"
  fi
  PYTHON=.venv/bin/python
  has "$PYTHON" "${needed[@]}" || "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$extra" ||
    fail "the installation failed; see pip's message above"
}

# From here on everything is exec, so that a signal to this script is one to the sweep, which saves first.
quick() {
  exec "$PYTHON" -m harness.reproduce quick --device cpu --out results-quick/runs ${JOBS:+--jobs "$JOBS"} \
    report --study quick --results results-quick/runs --bench results-quick/bench --out results-quick/paper --html
}

full() {
  local words=(main) out=${OUT:-results/runs} list
  add() { if read -ra list <<<"${2//,/ }" && [[ ${#list[@]} -gt 0 ]]; then words+=("$1" "${list[@]}"); fi; }
  add --seed "${SEEDS:-}"
  add --variants "${VARIANTS:-}"
  add --datasets "${DATASETS:-}"
  add --recipes "${RECIPES:-}"
  add --epochs "${EPOCHS:-}"
  add --jobs "${JOBS:-}"
  add --seeds-at-once "${SEEDS_AT_ONCE:-}"
  words+=(--data-dir "${DATA_DIR:-data}" --out "$out")
  if [[ $1 == plan ]]; then exec "$PYTHON" -m harness.sweep "${words[@]}" --dry-run; fi
  if [[ $1 != cpu ]] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    "$PYTHON" -m harness.sweep "${words[@]}" --dry-run || exit
    fail "There is no CUDA device here, so nothing was started. Try the same job on embedded data: bash run_all.sh --quick
To train on this CPU all the same: bash run_all.sh --cpu (narrow it first, e.g. SEEDS=0 VARIANTS=compact DATASETS=c10)"
  fi
  exec "$PYTHON" -m harness.reproduce "${words[@]}" report --results "$out" --html
}

check() {
  "$PYTHON" -m ruff check .
  "$PYTHON" -m ruff format --check .
  "$PYTHON" -m pyright --pythonpath "$(command -v "$PYTHON")"
  exec "$PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"  # a test file is one process's
}

mode=${1---full}  # an empty word is no mode
[[ $# -gt 0 ]] && shift
[[ $# -gt 0 && $mode != --test ]] && refuse "$1"
case $mode in
  --quick) set_up run; quick ;;
  --test) set_up test; check "$@" ;;
  --full | --cpu | --plan) set_up run; full "${mode#--}" ;;
  -h | --help) usage ;;
  *) refuse "$mode" ;;
esac
