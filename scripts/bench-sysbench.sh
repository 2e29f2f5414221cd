#!/usr/bin/env bash
# sysbench on Rutile's playground beside MariaDB and, with MYSQL_PEER=host:port (root, no password), a MySQL server:
# the servers one after another for each case, every commit fsynced on each. Prints a Markdown table of transactions per second.
# BENCH_NODES=3: a SQL server on three stores and three members of the placement driver, beside three nodes of MariaDB Galera.
#   BENCH_SECONDS=10  BENCH_THREADS="1 16 64"  BENCH_CASES="…"  BENCH_TABLES=4  BENCH_ROWS=100000  RUTILE_BIN=…
set -euo pipefail
# shellcheck source=scripts/bench-lib.sh
source "$(dirname "$0")/bench-lib.sh"
seconds=${BENCH_SECONDS:-10}
threads=${BENCH_THREADS:-1 16 64}
cases=${BENCH_CASES:-point_select read_only read_write write_only update_index update_non_index insert}
tables=${BENCH_TABLES:-4}
rows=${BENCH_ROWS:-100000}
nodes=${BENCH_NODES:-1}

# A SQL server over three stores.
start_rutile_cluster() {
  local port; port=$(free_port)
  start_rutile_stores
  run_in_background sql "$bin" sql --addr "127.0.0.1:$port" --status-addr "127.0.0.1:$(free_port)" --pd "$pd_addresses"
  wait_ready "$port"
  names+=(rutile); ports+=("$port")
}

galera_size() { [ "$(query "$1" "SHOW STATUS LIKE 'wsrep_cluster_size'" | cut -f2)" = "$2" ]; }

# Three nodes; the load goes to the first, as it goes to one SQL server.
start_galera() {
  local library=/usr/lib/galera/libgalera_smm.so n port first group list="" groups=()
  [ -e "$library" ] || { echo "SKIPPED: Galera is not installed" >&2; return; }
  for n in 1 2 3; do groups[n]=$(free_port); list+=${list:+,}127.0.0.1:${groups[n]}; done
  for n in 1 2 3; do
    port=$(free_port)
    make_mariadb "galera$n"
    group=gcomm://$list
    [ "$n" = 1 ] && first=$port && group=gcomm://
    run_in_background "galera$n" mariadbd "${mariadb_options[@]}" --datadir="$work/galera$n" --socket="$work/galera$n/sock" \
      --port="$port" --innodb-buffer-pool-size=1G --binlog-format=ROW --innodb-autoinc-lock-mode=2 --wsrep-on=ON \
      --wsrep-provider="$library" --wsrep-cluster-name=bench --wsrep-cluster-address="$group" --wsrep-sst-method=rsync \
      --wsrep-node-name="n$n" --wsrep-node-address="127.0.0.1:${groups[n]}" \
      --wsrep-sst-receive-address="127.0.0.1:$(free_port)" \
      --wsrep-provider-options="gmcast.listen_addr=tcp://127.0.0.1:${groups[n]};ist.recv_addr=127.0.0.1:$(free_port)"
    wait_ready "$port"
    wait_until "Galera with $n nodes" galera_size "$first" "$n"
  done
  names+=(galera); ports+=("$first")
}

sb() { # port case threads command
  sysbench "oltp_$2" --db-driver=mysql --mysql-host=127.0.0.1 --mysql-user=root --mysql-port="$1" --mysql-db=sbtest \
    --mysql-ssl=off --tables="$tables" --table-size="$rows" --threads="$3" --time="$seconds" --report-interval=0 "$4"
}

prepare() { # port
  query "$1" 'DROP DATABASE IF EXISTS sbtest; CREATE DATABASE sbtest'
  sb "$1" read_write 4 prepare >/dev/null
}

case $nodes in
  1) start_rutile; start_mariadb ;;
  3) start_rutile_cluster; start_galera ;;
  *) echo "BENCH_NODES is 1 or 3" >&2; exit 2 ;;
esac
if [ "$nodes" = 1 ] && [ -n "${MYSQL_PEER:-}" ]; then
  names+=(mysql); ports+=("${MYSQL_PEER##*:}")
elif [ "$nodes" = 1 ]; then
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
