#!/usr/bin/env bash
# Puts promtool into the directory given, from Debian's package, without installing it or what it depends on.
set -euo pipefail
mkdir -p "$1"
cd "$1"
if [ -x usr/bin/promtool ]; then exit 0; fi
apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }
dpkg -x prometheus_*.deb .
rm prometheus_*.deb
