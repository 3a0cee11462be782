#!/usr/bin/env bash
# Installs what the SMAC path needs in Python: install_python.sh PYTHON PYTHON_WITH_GRPC_TOOLS (absolute paths)
#
# SMAC_SOURCE may be a checkout of github.com/oxwhirl/smac or the address of an archive of it; else the pinned commit
# is downloaded. smac is not on PyPI: `pip install smac` gives another project, which this replaces. smac and pysc2
# ask for a protobuf of 2020 and for packages that only pysc2's graphical tools use, so both come without what
# they ask for.
set -euo pipefail
python=$1 compiler=$2
here=$(cd "$(dirname "$0")" && pwd)
. "$here/pins.sh"
install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

install --editable "$here/../..[sc2]"
install --no-deps "$PYSC2" "$S2CLIENTPROTOCOL"
install --no-deps --force-reinstall "${SMAC_SOURCE:-$SMAC_ARCHIVE}" || {
  echo "smac could not be installed from ${SMAC_SOURCE:-$SMAC_ARCHIVE}: without access to it," \
    "give a checkout of it, or the address of an archive, by SMAC_SOURCE." >&2
  exit 1
}
"$python" "$here/rebuild_s2clientprotocol.py" "$compiler"

cd / # so that no folder named smac where this was called is taken for the package
"$python" - <<'TEST'
from google.protobuf.internal import api_implementation
from pysc2.lib import remote_controller
from s2clientprotocol import sc2api_pb2
from smac.env import StarCraft2Env

assert api_implementation.Type() != "python", "protobuf runs in its slow pure-Python implementation"
assert sc2api_pb2.Request.FromString(sc2api_pb2.Request(id=7).SerializeToString()).id == 7
sizes = StarCraft2Env(map_name="MMM2").get_env_info()
assert (sizes["n_agents"], sizes["obs_shape"], sizes["state_shape"]) == (10, 176, 322), sizes
TEST
echo "smac, pysc2 and s2clientprotocol work in $("$python" -c 'import sys; print(sys.prefix)')."
