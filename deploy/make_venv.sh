#!/usr/bin/env bash
# Makes a virtual environment: make_venv.sh DIRECTORY. Says in one sentence what is missing if it cannot.
set -euo pipefail
directory=$1

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if usable "$name"; then command -v "$name"; return; fi
  done
  echo "Python 3.11 or newer is needed, and none was found: install it, or name it by PYTHON=/path/to/python3." >&2
  return 1
}

# On Debian and Ubuntu the module that makes environments is a package of its own.
install_venv_module() {
  local sudo=() version
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  if command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null; then
    echo "Installing python$version-venv by apt-get..."
    # Another installation may hold the lock: the system's own, or a second environment of `make -j`.
    "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update -qq >/dev/null || true # an old list is often good enough
    if "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
      apt-get -o DPkg::Lock::Timeout=300 install -y -qq "python$version-venv" >/dev/null; then
      return
    fi
  fi
  echo "Python's venv module is missing; install it (sudo apt-get install python$version-venv) and try again." >&2
  return 1
}

python=$(find_python)
"$python" -c 'import ensurepip, venv' 2>/dev/null || install_venv_module "$python"
echo "Making $directory with $("$python" --version)..."
"$python" -m venv "$directory"
