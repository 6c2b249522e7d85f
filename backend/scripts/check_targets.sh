#!/usr/bin/env bash
# Every target of the Makefile on a clean clone of what is committed, so that none leans on what another has made.
#
# What is installed (the virtual environment, the front end's packages) is kept between targets, because that
# takes minutes; that a target asks for it is checked by tests/test_makefile.py. All else that git does not know
# is removed before each. The two targets that need a Docker daemon are left out, with a word, where there is
# none. Takes about an hour.
#
#   check_targets.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
server=
end() {
  [ -z "$server" ] || kill -TERM "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap end EXIT
git clone --quiet . "$folder/clone"
cd "$folder/clone"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

declare -A arguments=(
  [prove]="PROOF=fuzz_frames" [families]="NAMES=Phi" [prove-prefixes]="SCHEDULES=2" [bench-lens]="BENCH=--help" [bench-cores]="BENCH=--help" [bench-serve]="BENCH=--help" [bench-turns]="BENCH=--help" [bench-alone]="BENCH=--help" [bench-page]="BENCH=--help" [bench-frames]="BENCH=--help" [bench-sliders]="BENCH=--help" [bench]="PORT=$port"
  [chat]="PORT=$port" [doctor]="PORT=$port"
)
# The Makefile's own list. `setup` and `clean` are the first and the last, `run` is there while others need it,
# and this script does not call itself.
mapfile -t targets < <(make --no-print-directory help | awk '/^  make / {print $2}' |
  grep -vxE 'setup|run|clean|targets-test')
[ $# -eq 0 ] || targets=("$@")

say() { printf '\n==== make %s\n' "$*"; }
bare() { git clean --quiet -xdff --exclude=.venv --exclude=frontend/node_modules && git checkout --quiet .; }

serve() {
  make run PORT="$port" >"$folder/run.log" 2>&1 &
  until python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/readyz', timeout=5)" 2>/dev/null; do
    if ! kill -0 $! 2>/dev/null || grep -q "did not start" "$folder/run.log"; then cat "$folder/run.log"; return 1; fi
    sleep 1
  done
  server=$(pgrep -f -- "steersight serve .*--port $port " | head -n 1)
}

say setup
make setup
failed=()
for target in "${targets[@]}"; do
  say "$target ${arguments[$target]:-}"
  case "$target" in
    docker-test | stranger-test)
      if ! docker info >/dev/null 2>&1; then echo "LEFT OUT: no Docker daemon answers."; continue; fi ;;
  esac
  bare
  case "$target" in
    chat | bench | doctor)
      serve || { failed+=(run); continue; }
      # shellcheck disable=SC2086
      echo "Tell me about Paris." | make --no-print-directory "$target" ${arguments[$target]} || failed+=("$target")
      kill -TERM "$server"; wait || true
      server= ;;
    *)
      # shellcheck disable=SC2086
      make --no-print-directory "$target" ${arguments[$target]:-} || failed+=("$target") ;;
  esac
done
say clean
make clean || failed+=(clean)
[ ! -e .venv ] || failed+=(clean)
if [ ${#failed[@]} -gt 0 ]; then printf '\nThese do not work on a clean clone: %s\n' "${failed[*]}"; exit 1; fi
printf '\nAll that was tried works on a clean clone.\n'
