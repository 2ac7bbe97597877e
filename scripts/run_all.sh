#!/usr/bin/env bash
# Nothing -> submission.csv: set-up, data, folds, training, ensemble, report.
# Takes the options of train.py. A second run continues the first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

stage() {
  "$PYTHON" "$ROOT/scripts/$1.py" "${@:2}"
}

places=() # --input and --output, which every stage takes
for ((i = 1; i <= $#; i++)); do
  case "${!i}" in
    --input | --output) places+=("${@:i:2}") ;;
    --input=* | --output=*) places+=("${!i}") ;;
    -h | --help | --list)
      set_up
      stage train "$@"
      exit
      ;;
  esac
done

find_python
PYTHONPATH="$ROOT/src" "$BASE_PYTHON" -m digit_recognizer.data.places "${places[@]}"
set_up
export DIGITS_NO_NOTICE=yes # of the sample: it is the first line here, and the last
stage download --if-needed "${places[@]}"
stage train "$@"
stage ensemble "${places[@]}"
stage report "${places[@]}"
unset DIGITS_NO_NOTICE
PYTHONPATH="$ROOT/src" "$PYTHON" -m digit_recognizer.data.places "${places[@]}"
