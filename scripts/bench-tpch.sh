#!/usr/bin/env bash
# The 22 queries of TPC-H on Rutile, beside MariaDB and, with MYSQL_PEER=host:port (root, no password), a MySQL server; each
# answer is compared with DuckDB's. Prints a Markdown table of seconds, and fails when one of Rutile's answers is wrong.
#   SERVER=host:port   a Rutile that runs already, instead of a new one; data that is loaded there stays
#   TPCH_SCALE=0.1  TPCH_QUERIES=1,2,3  TPCH_RUNS=2  TPCH_TIMEOUT=300  TPCH_MARIADB=0 leaves MariaDB out  RUTILE_BIN=…
set -euo pipefail
# shellcheck source=scripts/bench-lib.sh
source "$(dirname "$0")/bench-lib.sh"
here=$(dirname "$0")/tpch
cache=${TPCH_FOLDER:-$HOME/.cache/rutile/tpch}
venv=$cache/venv

mkdir -p "$cache"
if ! cmp -s "$here/requirements.txt" "$venv/.requirements"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/.requirements"
fi

servers=()
if [ -n "${SERVER:-}" ]; then
  servers+=("rutile=$SERVER")
else
  start_rutile
fi
if [ "${TPCH_MARIADB:-1}" = 1 ]; then start_mariadb --local-infile=1; fi
for n in "${!names[@]}"; do servers+=("${names[n]}=127.0.0.1:${ports[n]}"); done
if [ -n "${MYSQL_PEER:-}" ]; then servers+=("mysql=$MYSQL_PEER"); fi

"$venv/bin/python" "$here/run.py" "${servers[@]}" --scale "${TPCH_SCALE:-0.1}" --folder "$cache" --runs "${TPCH_RUNS:-2}" \
  --timeout "${TPCH_TIMEOUT:-300}" ${TPCH_QUERIES:+--queries "$TPCH_QUERIES"}
