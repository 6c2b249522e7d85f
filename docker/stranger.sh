#!/usr/bin/env bash
# What the README promises a stranger: a bare Debian with Python, Node and make, the committed tree, two commands.
#
# Runs in a throwaway container as an ordinary user; nothing of this checkout's builds goes in. Proxy and index
# settings of the environment are passed on. Shared memory is as a real machine has it: Docker's 64 MiB are less
# than what vLLM's processes talk through.
set -euo pipefail
cd "$(dirname "$0")/.."
image=${STRANGER_IMAGE:-node:22-bookworm-slim}

git archive --format=tar HEAD | docker run --rm --interactive --shm-size 1g \
  --env HTTP_PROXY --env HTTPS_PROXY --env NO_PROXY --env PIP_INDEX_URL --env PIP_EXTRA_INDEX_URL \
  --env NPM_CONFIG_REGISTRY "$image" bash -euo pipefail -c '
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv make >/dev/null
    useradd --create-home stranger
    tar -x -C /home/stranger && chown -R stranger /home/stranger
    exec su stranger --whitelist-environment="$(env | grep -E "PROXY|INDEX|NPM|CERT|CA_" | cut -d= -f1 | paste -sd,)" \
      -l -c "bash -euo pipefail ~/docker/stranger-steps.sh"'
