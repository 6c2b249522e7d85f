#!/bin/sh
# Have libnuma.so.1, which vLLM's CPU build is linked against: the system's, else Debian's package installed
# (as root) or unpacked into the virtual environment (as anybody). Where neither works the server says at its
# start what to install; setting up the rest goes on.
#
#   libnuma.sh VENV
set -eu
"$1/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null && exit 0
[ -e "$1/lib/libnuma.so.1" ] && exit 0
command -v apt-get >/dev/null 2>&1 || exit 0
if [ "$(id -u)" = 0 ]; then
  echo "Installing libnuma1, which the CPU engine is linked against"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libnuma1 >/dev/null || true
  exit 0
fi
echo "Unpacking libnuma1, which the CPU engine is linked against, into $1"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if (cd "$folder" && apt-get download -qq libnuma1 && dpkg-deb -x libnuma1_*.deb root); then
  cp "$(find "$folder/root" -name libnuma.so.1 | head -n 1)" "$1/lib/libnuma.so.1"
fi
