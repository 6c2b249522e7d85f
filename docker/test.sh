#!/usr/bin/env bash
# `docker compose up` as a person gets it, tried for real: build, start, the browser tests against the container,
# a graceful stop; then two replicas behind the balancer. Needs a Docker daemon and Compose 1.29 or 2.
#
#   test.sh FOLDER_OF_PYTHON [server] [replicas]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1; shift
[ $# -gt 0 ] || set -- server replicas

if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose="docker-compose"; fi
export COMPOSE_PROJECT_NAME=steersight-test PORT="${PORT:-8899}" BIND=127.0.0.1
url="http://127.0.0.1:$PORT"

say() { printf '\n== %s\n' "$*"; }
down() { $compose --profile replicas down --volumes --timeout 30 >/dev/null 2>&1 || true; }
container() { $compose --profile replicas ps --quiet --all "$1" 2>/dev/null || $compose --profile replicas ps --quiet "$1"; }
wait_until_healthy() {
  local state=starting
  while [ "$state" = starting ]; do
    sleep 1
    state=$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")
  done
  if [ "$state" != healthy ]; then $compose --profile replicas logs --tail 60 "$1"; say "$1 is $state"; exit 1; fi
}

stop_gracefully() {
  local id began; id=$(container "$1"); began=$(date +%s)
  $compose --profile replicas stop --timeout 30 "$1"
  local status; status=$(docker inspect --format '{{.State.ExitCode}}' "$id")
  say "$1 stopped in $(($(date +%s) - began)) s with exit status $status"
  [ "$status" = 0 ]
}

# The door for code is open in the container that is tested.
code_token=only-for-the-code-of-this-test
code_token_file=$(mktemp)
trap 'down; rm -f "$code_token_file"' EXIT
printf '%s' "$code_token" > "$code_token_file"
chmod 644 "$code_token_file"
export NNSIGHT=1 NNSIGHT_TOKEN_FILE=$code_token_file

down
say "Building with $($compose version | head -n 1)"
$compose --profile replicas build
docker images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep '^steersight'

case " $* " in *" server "*)
  say "Starting the server"
  $compose up --detach server
  wait_until_healthy server

  say "It is nobody special, and can write where it should only"
  $compose exec -T server sh -euc '
    [ "$(id -u)" = 10001 ]
    touch /data/.try /cache/.try /tmp/.try && rm /data/.try /cache/.try /tmp/.try
    if touch /opt/page/.try 2>/dev/null || touch /.try 2>/dev/null; then echo "The root file system is writable."; exit 1; fi'
  address=$(docker port "$(container server)" 8000)
  [ "$address" = "127.0.0.1:$PORT" ] || { echo "Published on $address"; exit 1; }

  say "A notebook runs code in it, and nobody without the token does"
  [ "$(curl -s -o /dev/null -w '%{http_code}' -X POST "$url/v1/nnsight/generate")" = 401 ]
  said=$(printf 'short\nedit\nclear\n' | "$bin/python" e2e/cells.py "$url" "$code_token" 2>/dev/null | tail -n 3)
  [ "$said" = "$(printf 'done\ndone\ndone')" ] || { echo "The notebook said: $said"; exit 1; }

  say "The stories, against the container"
  STEERSIGHT_E2E_URL=$url "$bin/python" -m pytest -c e2e/pytest.ini e2e
  stop_gracefully server
  down
esac

case " $* " in *" replicas "*)
  say "Starting two replicas behind the balancer"
  $compose --profile replicas up --detach balancer
  wait_until_healthy replica-a
  wait_until_healthy replica-b
  STEERSIGHT_E2E_URL=$url STEERSIGHT_COMPOSE="$compose --profile replicas" \
    "$bin/python" -m pytest -c e2e/pytest.ini e2e/replicas
  stop_gracefully balancer
esac
say "docker-test: all well"
