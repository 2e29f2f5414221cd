#!/usr/bin/env bash
# sysbench on Rutile's playground beside MariaDB and, with MYSQL_PEER=host:port (root, no password), a MySQL server:
# the servers one after another for each case, every commit fsynced on each. Prints a Markdown table of transactions per second.
#   BENCH_SECONDS=10  BENCH_THREADS="1 16 64"  BENCH_CASES="…"  BENCH_TABLES=4  BENCH_ROWS=100000  RUTILE_BIN=…
set -euo pipefail
seconds=${BENCH_SECONDS:-10}
threads=${BENCH_THREADS:-1 16 64}
cases=${BENCH_CASES:-point_select read_only read_write write_only update_index update_non_index insert}
tables=${BENCH_TABLES:-4}
rows=${BENCH_ROWS:-100000}
bin=${RUTILE_BIN:-${CARGO_TARGET_DIR:-$HOME/.cache/rutile/target}/release/rutile}
work=$(mktemp -d)
pids=()

cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

query() { mysql --no-defaults -h127.0.0.1 -P"$1" -uroot -N -e "$2"; }

wait_ready() { # port
  for _ in $(seq 600); do query "$1" 'SELECT 1' >/dev/null 2>&1 && return; sleep 0.1; done
  echo "the server on port $1 does not answer" >&2
  exit 1
}

start_rutile() {
  local port; port=$(free_port)
  "$bin" playground --data-dir "$work/rutile" --sql-port "$port" --pd-port "$(free_port)" --kv-port "$(free_port)" \
    --status-port "$(free_port)" >"$work/rutile.log" 2>&1 &
  pids+=($!)
  wait_ready "$port"
  names+=(rutile); ports+=("$port")
}

start_mariadb() {
  command -v mariadbd >/dev/null || { echo "SKIPPED: MariaDB is not installed" >&2; return; }
  local port user; port=$(free_port); user=$(id -un)
  mariadb-install-db --no-defaults --auth-root-authentication-method=normal --user="$user" --datadir="$work/mariadb" \
    >"$work/mariadb-install.log" 2>&1
  mariadbd --no-defaults --user="$user" --datadir="$work/mariadb" --socket="$work/mariadb.sock" --port="$port" \
    --bind-address=127.0.0.1 --innodb-flush-log-at-trx-commit=1 --log-bin="$work/mariadb/binlog" --sync-binlog=1 \
    --innodb-buffer-pool-size=2G --innodb-log-file-size=1G --max-connections=2000 >"$work/mariadb.log" 2>&1 &
  pids+=($!)
  wait_ready "$port"
  names+=(mariadb); ports+=("$port")
}

sb() { # port case threads command
  sysbench "oltp_$2" --db-driver=mysql --mysql-host=127.0.0.1 --mysql-user=root --mysql-port="$1" --mysql-db=sbtest \
    --mysql-ssl=off --tables="$tables" --table-size="$rows" --threads="$3" --time="$seconds" --report-interval=0 "$4"
}

prepare() { # port
  query "$1" 'DROP DATABASE IF EXISTS sbtest; CREATE DATABASE sbtest'
  sb "$1" read_write 4 prepare >/dev/null
}

names=() ports=()
start_rutile
start_mariadb
if [ -n "${MYSQL_PEER:-}" ]; then
  names+=(mysql); ports+=("${MYSQL_PEER##*:}")
else
  echo "SKIPPED: MySQL (give a server as MYSQL_PEER=host:port)" >&2
fi
for port in "${ports[@]}"; do prepare "$port"; done

header="| case | threads |"; rule="|---|---|"
for name in "${names[@]}"; do header+=" $name |"; rule+="---|"; done
echo "$header ratio to the better peer |"
echo "$rule---|"
for case in $cases; do
  for t in $threads; do
    line="| $case | $t |" own="" best=0
    for i in "${!names[@]}"; do
      out=$(sb "${ports[$i]}" "$case" "$t" run 2>&1) || { echo "$out" >&2; out="transactions: 0 (0 per sec.)"; }
      tps=$(sed -n 's/.*transactions:.*(\([0-9.]*\) per sec.*/\1/p' <<<"$out")
      [ "${names[$i]}" = rutile ] && own=$tps || best=$(awk -v a="$best" -v b="$tps" 'BEGIN { print (b > a) ? b : a }')
      line+=" $tps |"
    done
    ratio=$(awk -v a="$own" -v b="$best" 'BEGIN { if (b > 0) printf "%.2f", a / b; else print "-" }')
    echo "$line $ratio |"
  done
done
