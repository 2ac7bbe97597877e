#!/usr/bin/env bash
# Nothing -> submission.csv: set-up, data, folds, training, ensemble, report.
# Takes the options of train.py. A second run continues the first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

stage() {
  "$PYTHON" "$ROOT/scripts/$1.py" "${@:2}"
}

locations=() # --input and --output, which every stage takes; expanded so that bash 3.2, macOS' own, allows none
for ((i = 1; i <= $#; i++)); do
  case "${!i}" in
    --input | --output) locations+=("${@:i:2}") ;;
    --input=* | --output=*) locations+=("${!i}") ;;
    -h | --help | --list | --check) # no requirement is needed for these
      find_python
      PYTHON="$BASE_PYTHON"
      stage train "$@"
      exit
      ;;
  esac
done

find_python
PYTHON="$BASE_PYTHON"
stage train "$@" --check # a mistake is answered before anything is installed
set_up
export DIGITS_NO_NOTICE=yes # of the sample: it is the first line here, and the last
stage download --if-needed ${locations[@]+"${locations[@]}"}
stage train "$@"
stage ensemble ${locations[@]+"${locations[@]}"}
stage report ${locations[@]+"${locations[@]}"}
unset DIGITS_NO_NOTICE
stage train "$@" --check # the notice again
