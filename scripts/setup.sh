# Sourced by run_all.sh and test.sh: sets ROOT and, by set_up, PYTHON, the interpreter to use.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

die() {
  echo "$(basename "$0"): error: $1" >&2
  exit 2
}

# Sets BASE_PYTHON: python3, or another that is there where python3 is none that TensorFlow has wheels for.
find_python() {
  local candidate found
  for candidate in python3 python3.13 python3.12 python3.11; do
    command -v "$candidate" > /dev/null || continue
    found="${found-}${found+, }$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)"
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; then
      BASE_PYTHON="$candidate"
      return
    fi
  done
  die "Python 3.11, 3.12 or 3.13 is needed (found: ${found:-none}): apt install python3.12 python3.12-venv"
}

# The requirements, one a line: of the program, and of what else is named.
requirements() {
  local gpu=""
  if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then gpu=yes; fi
  if [ "${KERAS_BACKEND-}" = jax ]; then
    sed -E "s/^tensorflow[^#]*/jax${gpu:+[cuda12]}>=0.7 /" "$ROOT/requirements.txt"
  else
    sed -E "s/^tensorflow>/tensorflow${gpu:+[and-cuda]}>/" "$ROOT/requirements.txt"
  fi
  local file
  for file in "$@"; do cat "$file"; done
}

# True if the interpreter $1 has what `requirements` prints on standard input, and what the extras there ask for.
has_requirements() {
  "$1" -c '
import sys
from importlib.metadata import requires, version
from packaging.requirements import Requirement


def is_met(requirement):
    if not requirement.specifier.contains(version(requirement.name), prereleases=True):
        return False
    further = [Requirement(line) for line in requires(requirement.name) or [] if requirement.extras]
    return all(is_met(each) for each in further if is_of_extra(each.marker, requirement.extras))


def is_of_extra(marker, extras):
    def holds(extra):
        return marker.evaluate({"extra": extra})

    return marker and not holds("") and any(map(holds, extras))


lines = (line.partition("#")[0].strip() for line in sys.stdin)
sys.exit(not all(is_met(Requirement(line)) for line in lines if line))
' 2> /dev/null
}

# Sets PYTHON to the active virtual environment, the Python at hand if it has the requirements (Kaggle and
# Colab do), or .venv; installs what is missing. Arguments: files of further requirements.
set_up() {
  [ -n "${BASE_PYTHON-}" ] || find_python
  if [ -n "${KAGGLE_KERNEL_RUN_TYPE-}" ]; then
    PYTHON="$BASE_PYTHON"
    return
  fi
  if [ -n "${VIRTUAL_ENV-}" ]; then
    PYTHON="$VIRTUAL_ENV/bin/python"
  elif requirements "$@" | has_requirements "$BASE_PYTHON"; then
    PYTHON="$BASE_PYTHON"
  else
    PYTHON="$ROOT/.venv/bin/python"
    if ! "$PYTHON" -m pip --version > /dev/null 2>&1; then
      "$BASE_PYTHON" -c 'import ensurepip, venv' 2> /dev/null ||
        die "$BASE_PYTHON has no venv: apt install $("$BASE_PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
      "$BASE_PYTHON" -m venv --clear "$ROOT/.venv" || die "$ROOT/.venv can't be made"
    fi
  fi
  if ! requirements "$@" | has_requirements "$PYTHON"; then
    echo "Installing the requirements with $PYTHON (about 2 GB, once) ..." >&2
    local quiet=--quiet # a log needs no bars
    if [ -t 2 ]; then quiet=""; fi
    trap 'echo "$(basename "$0"): interrupted while installing; the same command installs the rest" >&2; exit 130' INT
    requirements "$@" | "$PYTHON" -m pip install $quiet --disable-pip-version-check --requirement /dev/stdin >&2 ||
      die "the requirements could not be installed: see above"
    trap - INT
  fi
}
