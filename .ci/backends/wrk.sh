# shellcheck shell=bash
# What makes the load for benchmarks/.
install_wrk() {
    apt_install wrk
    command -v wrk
}
