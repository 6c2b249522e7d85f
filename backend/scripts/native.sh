#!/bin/sh
# Have the two system libraries that the CPU engine wants: the system's, else Debian's package installed (as root)
# or unpacked into the virtual environment (as anybody). Where neither works, setting up the rest goes on.
#
#   libnuma.so.1               vLLM's CPU build is linked against it; without it the server says what to install
#   libtcmalloc_minimal.so.4   makes the engine faster; `make doctor` says what to install
#
#   native.sh VENV
set -eu
venv=$1

# has NAME: whether the loader, or the virtual environment, has this library.
has() {
  [ -e "$venv/lib/$1" ] && return 0
  "$venv/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null
}

# have NAME PACKAGE...: the library, from the first of these packages that there is.
have() {
  name=$1; shift
  has "$name" && return 0
  if [ "$(id -u)" = 0 ]; then
    echo "Installing $1, which the CPU engine uses"
    [ -n "${updated:-}" ] || { apt-get update -qq || true; updated=yes; }
    for package in "$@"; do
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 && return 0
    done
    return 0
  fi
  echo "Unpacking $1, which the CPU engine uses, into $venv"
  for package in "$@"; do
    folder=$(mktemp -d)
    if (cd "$folder" && apt-get download -qq "$package" && dpkg-deb -x "$package"_*.deb root) 2>/dev/null; then
      cp "$(find "$folder/root" -name "$name" | head -n 1)" "$venv/lib/$name" || true
      rm -rf "$folder"
      return 0
    fi
    rm -rf "$folder"
  done
}

command -v apt-get >/dev/null 2>&1 || exit 0
have libnuma.so.1 libnuma1
# The second name is that of Debian 13 and Ubuntu 24.04.
have libtcmalloc_minimal.so.4 libtcmalloc-minimal4 libtcmalloc-minimal4t64
