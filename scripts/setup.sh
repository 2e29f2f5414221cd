#!/usr/bin/env bash
# Installs what building, testing and (with "bench") benchmarking need on Debian 12. Safe to run again.
set -euo pipefail
venv="${RUTILE_VENV:-$HOME/.cache/rutile/venv}"
sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo

packages=(build-essential clang libclang-dev pkg-config python3-venv mariadb-client sysbench default-jdk-headless maven etcd-client iproute2 nftables haproxy)
[ "${1:-}" = bench ] && packages+=(mariadb-server galera-4 rsync socat lsof etcd-server)
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' && continue
  # Another JDK or Maven on the PATH serves as well as Debian's.
  case $p in
    default-jdk-headless) command -v javac >/dev/null && continue ;;
    maven) command -v mvn >/dev/null && continue ;;
  esac
  missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  $sudo apt-get update -qq
  # Servers installed for tests and benchmarks shall not start by themselves.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: install it with rustup (https://rustup.rs), then run this again." >&2
  exit 1
fi

requirements="$(dirname "$0")/../tests/clients/python/requirements.txt"
stamp="$venv/.requirements"
if ! cmp -s "$requirements" "$stamp"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$stamp"
fi
echo "setup complete"
