# What the benchmark scripts share: a work folder, servers that end with the script, free ports. To be sourced.
#   RUTILE_BIN=… names another binary than the one that was built last.
target=${CARGO_TARGET_DIR:-$HOME/.cache/rutile/target}/release
bin=${RUTILE_BIN:-$target/rutile}
work=$(mktemp -d)
pids=()

cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_until WHAT COMMAND…: until the command succeeds, a minute at most.
wait_until() {
  local what=$1; shift
  for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "$what: not ready after a minute" >&2
  tail -n 5 "$work"/*.log >&2
  exit 1
}

query() { mysql --no-defaults -h127.0.0.1 -P"$1" -uroot -N -e "$2"; }

wait_ready() { wait_until "the server on port $1" query "$1" 'SELECT 1'; }

run_in_background() { # log command…
  local log=$1; shift
  "$@" >"$work/$log.log" 2>&1 &
  pids+=($!)
}

# Three members of the placement driver and three stores; their addresses are then in pd_addresses.
start_rutile_stores() {
  local n clients=() peers=() list=""
  for n in 1 2 3; do
    clients[n]=127.0.0.1:$(free_port)
    peers[n]=127.0.0.1:$(free_port)
    list+=${list:+,}pd$n=http://${peers[n]}
  done
  pd_addresses=${clients[1]},${clients[2]},${clients[3]}
  for n in 1 2 3; do
    run_in_background "pd$n" "$bin" pd --name "pd$n" --data-dir "$work/pd$n" --client-addr "${clients[n]}" \
      --peer-addr "${peers[n]}" --initial-cluster "$list"
  done
  wait_until "the placement driver" "$bin" ctl --pd "$pd_addresses" tso
  for n in 1 2 3; do
    run_in_background "kv$n" "$bin" kv --data-dir "$work/kv$n" --addr "127.0.0.1:$(free_port)" \
      --status-addr "127.0.0.1:$(free_port)" --pd "$pd_addresses"
  done
  wait_until "three replicas of every region" three_replicas
}

three_replicas() {
  python3 - "${pd_addresses%%,*}" <<'END'
import json, sys, urllib.request
regions = json.load(urllib.request.urlopen(f"http://{sys.argv[1]}/pd/api/v1/regions"))["regions"]
sys.exit(not regions or any(len(r["peers"]) != 3 or r.get("pending_peers") for r in regions))
END
}

# Servers started so far, by name and port.
names=(); ports=()

start_rutile() {
  local port; port=$(free_port)
  run_in_background rutile "$bin" playground --data-dir "$work/rutile" --sql-port "$port" --pd-port "$(free_port)" \
    --kv-port "$(free_port)" --status-port "$(free_port)"
  wait_ready "$port"
  names+=(rutile); ports+=("$port")
}

# Galera's copying of data fails as root.
mariadb_user=$(id -un)
[ "$mariadb_user" = root ] && mariadb_user=mysql && chmod 711 "$work"
mariadb_options=(--no-defaults --user="$mariadb_user" --bind-address=127.0.0.1 --innodb-flush-log-at-trx-commit=1
  --innodb-log-file-size=1G --max-connections=2000)

make_mariadb() { # directory
  mkdir "$work/$1"
  [ "$(id -un)" = "$mariadb_user" ] || chown "$mariadb_user" "$work/$1"
  mariadb-install-db --no-defaults --auth-root-authentication-method=normal --user="$mariadb_user" --datadir="$work/$1" \
    >"$work/$1-install.log" 2>&1
}

start_mariadb() { # options…
  command -v mariadbd >/dev/null || { echo "SKIPPED: MariaDB is not installed" >&2; return; }
  local port; port=$(free_port)
  make_mariadb mariadb
  run_in_background mariadb mariadbd "${mariadb_options[@]}" --datadir="$work/mariadb" --socket="$work/mariadb/sock" \
    --port="$port" --innodb-buffer-pool-size=2G --log-bin="$work/mariadb/binlog" --sync-binlog=1 "$@"
  wait_ready "$port"
  names+=(mariadb); ports+=("$port")
}
