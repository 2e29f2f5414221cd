#!/usr/bin/env bash
# Raw puts and gets over gRPC: three stores (and three members of the placement driver) beside three members of etcd, one after another
# for each case, every put fsynced by a majority on both. Prints a Markdown table of operations per second and the 99th percentile in ms.
#   BENCH_SECONDS=10  BENCH_CLIENTS="1 16 128"  BENCH_KEYS=100000  BENCH_BYTES=128  RUTILE_BIN=…
set -euo pipefail
# shellcheck source=scripts/bench-lib.sh
source "$(dirname "$0")/bench-lib.sh"
seconds=${BENCH_SECONDS:-10}
clients=${BENCH_CLIENTS:-1 16 128}
keys=${BENCH_KEYS:-100000}
bytes=${BENCH_BYTES:-128}

start_etcd() {
  local n urls=() peers=() list="" any
  for n in 1 2 3; do
    urls[n]=127.0.0.1:$(free_port)
    peers[n]=127.0.0.1:$(free_port)
    list+=${list:+,}e$n=http://${peers[n]}
  done
  for n in 1 2 3; do
    run_in_background "etcd$n" etcd --name "e$n" --data-dir "$work/etcd$n" --listen-client-urls "http://${urls[n]}" \
      --advertise-client-urls "http://${urls[n]}" --listen-peer-urls "http://${peers[n]}" \
      --initial-advertise-peer-urls "http://${peers[n]}" --initial-cluster "$list" --log-level error --quota-backend-bytes 8589934592
  done
  etcd_addresses=${urls[1]},${urls[2]},${urls[3]}
  any=${urls[1]}
  wait_until "etcd" env ETCDCTL_API=3 etcdctl --endpoints "$any" put ready 1
}

load() { "$target/raw-load" "$1" "$2" "$3" "$4" "$seconds" "$keys" "$bytes"; }

start_rutile_stores
command -v etcd >/dev/null && start_etcd || { echo "SKIPPED: etcd is not installed" >&2; etcd_addresses=""; }

echo "| operation | clients | rutile ops/s | p99 ms | etcd ops/s | p99 ms | ratio |"
echo "|---|---|---|---|---|---|---|"
for operation in put get; do
  for n in $clients; do
    read -r own _ own99 _ < <(load rutile "$pd_addresses" "$operation" "$n")
    peer=- peer99=- ratio=-
    if [ -n "$etcd_addresses" ]; then
      read -r peer _ peer99 _ < <(load etcd "$etcd_addresses" "$operation" "$n")
      ratio=$(awk -v a="$own" -v b="$peer" 'BEGIN { printf "%.2f", a / b }')
    fi
    echo "| $operation | $n | $own | $own99 | $peer | $peer99 | $ratio |"
  done
done
