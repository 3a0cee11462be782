#!/usr/bin/env bash
# Installs StarCraft II for Linux and SMAC's maps into $SC2PATH (~/StarCraftII): install_game.sh PASSWORD
#
# PASSWORD opens Blizzard's archive. Blizzard gives it together with the AI and Machine Learning License, and who
# types it accepts that licence; so it is not written down here.
#   SC2_ZIP      an archive that is already there, instead of a download
#   SMAC_SOURCE  a checkout of github.com/oxwhirl/smac, instead of a download of its maps
set -euo pipefail
password=${1-}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/pins.sh"
target=${SC2PATH:-$HOME/StarCraftII}
url=https://blzdistsc2-a.akamaihd.net/Linux/SC2.$SC2_VERSION.zip
fail() { echo "make sc2: $*" >&2; exit 1; }

if [ -z "$password" ]; then
  fail "the game is Blizzard's, under the AI and Machine Learning License
(https://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html). If you accept it, give the password that
https://github.com/Blizzard/s2client-proto#downloads names for that: make sc2 SC2_PASSWORD=..."
fi
for tool in curl unzip sha256sum tar; do
  command -v "$tool" >/dev/null || fail "$tool is needed and is not installed."
done
parent=$(dirname "$target")
mkdir -p "$parent"
work=$(mktemp -d "$parent/.sc2-install-XXXXXX")
trap 'rm -rf "$work"' EXIT

install_game() {
  local zip=${SC2_ZIP:-$parent/SC2.$SC2_VERSION.zip} size free
  if [ -z "${SC2_ZIP-}" ]; then
    size=$(curl -fsSLI "$url" | tr -d '\r' | awk 'tolower($1) == "content-length:" { size = $2 } END { print size }') || true
    [ -n "$size" ] || fail "$url cannot be reached."
    free=$(df --output=avail -B1 "$parent" | tail -1)
    # The archive, and about twice as much unpacked.
    [ "$free" -gt $((3 * size)) ] || fail "$parent has $((free >> 30)) GiB free; $((3 * size >> 30)) GiB are needed."
    echo "Downloading $url ($((size >> 20)) MiB; goes on where it was if interrupted)..."
    curl -fL --retry 5 --continue-at - --output "$zip" "$url"
    [ "$(stat -c %s "$zip")" = "$size" ] || fail "$zip has another size than $url ($size bytes): remove it, try again."
  fi
  echo "$SC2_SHA256  $zip" | sha256sum --check --status ||
    fail "$zip is not the expected file (SHA-256 $SC2_SHA256): remove it and try again."
  unzip -q -P "$password" "$zip" -d "$work" || fail "$zip could not be unpacked: is SC2_PASSWORD right?"
  ls "$work"/StarCraftII/Versions/Base*/SC2_x64 >/dev/null || fail "$zip has no StarCraft II client in it."
  mv "$work/StarCraftII" "$target"
  [ -n "${SC2_ZIP-}" ] || rm "$zip"
}

install_maps() {
  local source=${SMAC_SOURCE-}
  if [ -z "$source" ]; then
    mkdir "$work/smac"
    curl -fsSL --retry 5 "$SMAC_ARCHIVE" | tar -xz --strip-components=1 -C "$work/smac" ||
      fail "SMAC's maps cannot be downloaded from $SMAC_ARCHIVE."
    source=$work/smac
  fi
  cp -r "$source/smac/env/starcraft2/maps/SMAC_Maps" "$work/maps"
  (cd "$work/maps" && sha256sum --check --quiet "$here/maps.sha256") || fail "maps in $source are not those of SMAC."
  mkdir -p "$target/Maps"
  rm -rf "$target/Maps/SMAC_Maps"
  mv "$work/maps" "$target/Maps/SMAC_Maps"
}

if ls "$target"/Versions/Base*/SC2_x64 >/dev/null 2>&1; then
  echo "The game is in $target already."
else
  [ ! -e "$target" ] || fail "$target is there, but is no StarCraft II: remove it, or set SC2PATH to another place."
  install_game
fi
install_maps
echo "StarCraft II and SMAC's 23 maps are in $target."
[ "$target" = "$HOME/StarCraftII" ] || echo "Set SC2PATH=$target for whatever plays."
