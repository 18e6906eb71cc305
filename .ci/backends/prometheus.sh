# shellcheck shell=bash
# Prometheus and promtool at the version of this Debian or Ubuntu release, which keeps to one.
install_prometheus() {
    local directory=$1
    apt_extract "$directory" prometheus
    ln -s usr/bin "$directory/bin"
    "$directory/bin/promtool" --version
}
