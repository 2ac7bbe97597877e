#!/usr/bin/env bash
# Set-up and the whole test suite. Takes the options of pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up "$ROOT/tests/requirements.txt"
cd "$ROOT"
exec "$PYTHON" -m pytest --numprocesses 2 --dist loadfile "$@"
