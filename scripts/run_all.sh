#!/usr/bin/env bash
# Nothing -> submission.csv: set-up, data, folds, training, ensemble, report.
# Takes the options of train.py. A second run continues the first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

places=() # --input and --output, which the other stages take too
arguments=("$@")
for ((i = 0; i < $#; i++)); do
  case "${arguments[i]}" in
    --input | --output) places+=("${arguments[i]}" "${arguments[i + 1]-}") ;;
    --input=* | --output=*) places+=("${arguments[i]%%=*}" "${arguments[i]#*=}") ;;
    -h | --help) help=yes ;;
  esac
done

find_python
status=0
[ -n "${help-}" ] || PYTHONPATH="$ROOT/src" "$BASE_PYTHON" -m digit_recognizer.data.places "${places[@]}" || status=$?
[ "$status" = 0 ] || [ "$status" = 3 ] || exit "$status"
set_up
[ "$status" = 0 ] || "$PYTHON" "$ROOT/scripts/download.py" "${places[@]}"
"$PYTHON" "$ROOT/scripts/train.py" "$@"
[ -z "${help-}" ] || exit 0
"$PYTHON" "$ROOT/scripts/ensemble.py" "${places[@]}"
"$PYTHON" "$ROOT/scripts/report.py" "${places[@]}"
