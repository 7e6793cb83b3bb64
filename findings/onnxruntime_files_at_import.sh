#!/usr/bin/env bash
# Importing ONNX Runtime on Linux writes a device id and a database below the home folder; the documented call that
# disables telemetry comes too late to prevent it.
#
# Versions: ONNX Runtime 1.32.0, Python 3.11, Linux x86-64.
# Input:    `import onnxruntime` in a fresh home folder; no session, no model.
# Expected: no file is written, or none after `onnxruntime.disable_telemetry_events()`.
# Seen:     .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid and onnxruntime.db exist after the import, also where
#           the call follows, and where the variable is set after the import.
#           With ORT_DISABLE_TELEMETRY=1 in the environment before the import nothing is written.
# Remedy:   set ORT_DISABLE_TELEMETRY=1 before the process imports onnxruntime.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxruntime==1.32.0

# Usage: files_after NAME CODE: run CODE in a home folder of its own, print the files that it leaves there.
files_after() {
  mkdir "$work/$1"
  env -u XDG_CACHE_HOME -u ORT_DISABLE_TELEMETRY HOME="$work/$1" "$work/venv/bin/python" -c "$2"
  (cd "$work/$1" && find . -type f | sort | tr '\n' ' ')
}

folder=./.cache/Microsoft/DeveloperTools/.onnxruntime
both="$folder/deviceid $folder/onnxruntime.db "
ORT_DISABLE_TELEMETRY=1 "$work/venv/bin/python" -c 'import onnxruntime; print("ONNX Runtime", onnxruntime.__version__)'
plain=$(files_after plain 'import onnxruntime')
call=$(files_after call 'import onnxruntime; onnxruntime.disable_telemetry_events()')
late=$(files_after late 'import onnxruntime, os; os.environ["ORT_DISABLE_TELEMETRY"] = "1"')
early=$(files_after early 'import os; os.environ["ORT_DISABLE_TELEMETRY"] = "1"; import onnxruntime')
printf 'import:                   %s\nwith the call:            %s\nvariable after the import: %s\nvariable before it:        %s\n' \
  "$plain" "$call" "$late" "${early:-nothing}"
if [ "$plain" != "$both" ] || [ "$call" != "$both" ] || [ "$late" != "$both" ] || [ -n "$early" ]; then
  echo "the behaviour has changed" >&2
  exit 1
fi
