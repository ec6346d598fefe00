#!/usr/bin/env bash
# The whole job, from nothing to tables and figures.
#
#   bash run_all.sh            train the full table (a CUDA device), then write paper/tables and paper/figures
#   bash run_all.sh --quick    the same job on embedded data, in minutes, a cell a core (or JOBS=1); into results-quick/
#   bash run_all.sh --test     the whole test suite, linter and type checker
#   bash run_all.sh --plan     how many cells are missing and about how long they take here; trains nothing
#   bash run_all.sh --cpu      the full table although there is no CUDA device
#
# JOBS=4 trains four cells at once, on as many GPUs as there are (python -m harness.sweep --help has other studies)
# narrowed by:  SEEDS="0 1"  VARIANTS="compact vanilla"  DATASETS="c10"  RECIPES="published common"  EPOCHS=20
# places:       DATA_DIR=data  OUT=results/runs  (what is done there is not trained again)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Idle OpenMP threads soon sleep instead of spinning on, which would slow down whatever else runs here.
[[ -n ${OMP_WAIT_POLICY+x}${GOMP_SPINCOUNT+x}${KMP_BLOCKTIME+x} ]] || export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=10000

usage() { sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }
fail() { printf '%s\n' "$*" >&2; exit 2; }
refuse() { fail "run_all.sh: unknown option $(printf '%.80q' "$1"); see bash run_all.sh --help"; }

# Prints the modules that $1 cannot import, without importing anything large.
lacks() {
  "$1" - "${@:2}" 2>/dev/null <<'PY' || echo "a working python"
import importlib.util as u, sys
from importlib.metadata import version
missing = [name for name in sys.argv[1:] if u.find_spec(name) is None]
if "torch" not in missing and tuple(map(int, version("torch").split(".")[:2])) < (2, 11):
    missing.append("torch>=2.11")
print(*missing)
PY
}

# Chooses the Python: .venv if it is there, else the active one if it has everything, else a new .venv.
set_up() {
  local needed=(torch torchvision timm fvcore torchinfo numpy scipy sklearn PIL tabulate matplotlib pynvml) extra="."
  if [[ $1 == test ]]; then needed+=(pytest ruff pyright hypothesis); extra=".[test]"; fi
  if [[ ! -e .venv/bin/python ]] && command -v python >/dev/null && [[ -z $(lacks python "${needed[@]}") ]]; then
    PYTHON=python
    return
  fi
  PYTHON=.venv/bin/python
  if [[ ! -e $PYTHON ]]; then
    echo "setting up .venv (once; PyTorch is a download of some gigabytes) ..."
    python3 -m venv .venv || fail "python3 -m venv failed: Python 3.10 or newer with venv is needed"
  fi
  if [[ -n $(lacks "$PYTHON" "${needed[@]}") ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$extra" || fail "the installation failed; see pip's message above"
  fi
}

list() { if [[ -n $2 ]]; then printf '%s\n' "$1"; tr ', ' '\n' <<<"$2" | sed '/^$/d'; fi; }

narrowing() {
  list --seed "${SEEDS:-}"
  list --variants "${VARIANTS:-}"
  list --datasets "${DATASETS:-}"
  list --recipes "${RECIPES:-}"
  list --epochs "${EPOCHS:-}"
  list --jobs "${JOBS:-}"
}

# Runs a command of the harness and waits for it, whatever comes: a sweep that is told to stop saves first.
run() {
  local child="" told=0 code
  trap 'tell HUP HUP' HUP
  trap 'tell INT TERM' INT  # what runs in the background does not hear Ctrl-C
  trap 'tell TERM TERM' TERM
  trap 'tell USR1 USR1' USR1
  "$PYTHON" -m "harness.$1" "${@:2}" &
  child=$!
  [[ $told -eq 0 ]] || kill "$child" || true  # the signal came when there was no child to tell
  while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break  # else it was a signal that ended the waiting
  done
  trap - HUP INT TERM USR1
  [[ $told -eq 0 ]] || code=$told
  if [[ $code -gt 128 ]]; then
    echo "harness.$1 was stopped, so nothing comes after it; the same command goes on: bash run_all.sh $mode" >&2
    exit "$code"
  fi
  return "$code"
}

# Passes signal $1 on as $2. Ctrl-C a second time ends it at once.
tell() {
  local send=$2
  [[ $told -eq 0 || $1 != INT ]] || send=KILL
  told=$((128 + $(kill -l "$1")))
  [[ -z $child ]] || kill -s "$send" "$child" 2>/dev/null || true
}

quick() {
  local code=0
  run sweep quick --device cpu --out results-quick/runs ${JOBS:+--jobs "$JOBS"} || code=$?
  [[ $code -eq 2 ]] && exit 2
  run report --study quick --results results-quick/runs --bench results-quick/bench --out results-quick/paper || code=$?
  exit "$code"
}

full() {
  local flags=() out=${OUT:-results/runs} code=0 word
  while IFS= read -r word; do flags+=("$word"); done < <(narrowing)
  flags+=(--data-dir "${DATA_DIR:-data}" --out "$out")
  if [[ $1 == plan ]]; then exec "$PYTHON" -m harness.sweep main "${flags[@]}" --dry-run; fi
  if [[ $1 != cpu ]] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    run sweep main "${flags[@]}" --dry-run
    fail "There is no CUDA device here, so nothing was started. Try the same job on embedded data: bash run_all.sh --quick
To train on this CPU all the same: bash run_all.sh --cpu (narrow it first, e.g. SEEDS=0 VARIANTS=compact DATASETS=c10)"
  fi
  run sweep main "${flags[@]}" || code=$?
  [[ $code -eq 2 ]] && exit 2
  run report --results "$out" || code=$?
  exit "$code"
}

check() {
  "$PYTHON" -m ruff check .
  "$PYTHON" -m ruff format --check .
  "$PYTHON" -m pyright --pythonpath "$(command -v "$PYTHON")"
  "$PYTHON" -m pytest "$@"
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
