# shellcheck shell=bash
# Prometheus 2 and promtool at the version of this Debian or Ubuntu release, which keeps to one.
install_prometheus2() {
    local directory=$1
    apt_extract "$directory" prometheus
    ln -s usr/bin "$directory/bin"
    "$directory/bin/promtool" --version
}
