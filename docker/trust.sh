#!/bin/sh
# Let this stage trust the certificates of docker/certificates, besides the public ones. Does nothing without any.
#
#   trust.sh FOLDER
#
# One bundle serves everybody: Python's ssl (and through it pip), curl and OpenSSL read it by default on Debian;
# pip is told by its configuration, because it may have been told otherwise there; Node is told by the caller,
# through NODE_EXTRA_CA_CERTS.
set -eu
bundle=/etc/ssl/certs/ca-certificates.crt
mkdir -p "$(dirname "$bundle")"
for certificate in "$1"/*.crt; do
  [ -f "$certificate" ] || exit 0
  # A newline first: a file without one at its end would swallow the next certificate's first line.
  { echo; cat "$certificate"; } >> "$bundle"
  echo "Trusting $(basename "$certificate")"
done
if command -v pip >/dev/null; then pip config --global set global.cert "$bundle" >/dev/null; fi
